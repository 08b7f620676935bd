"""The model that is asked in an evaluation: loaded, and told from others."""

from pathlib import Path

from transformers import PreTrainedModel

from dudi_kit.models.loading import best_device, freeze, load_model
from dudi_kit.plan.fingerprint import digest
from dudi_kit.plan.schema import ModelSource


def loaded(source: ModelSource, *, who: str) -> PreTrainedModel:
    """The model, ready to be asked, on the first GPU or the CPU."""
    model = load_model(
        source.path,
        who=who,
        dtype=source.dtype,
        revision=source.revision,
        gguf_file=source.gguf_file,
        quantization=source.quantization,
        device=best_device(),
        placement=source.placement,
        device_memory=source.device_memory,
    )
    return freeze(model)


def weights_of(source: ModelSource) -> str:
    """Identifies the weights of a model: where they come from and, of a folder, what its files are."""
    folder = Path(source.path)
    files = sorted(folder.glob(source.gguf_file or "*")) if folder.is_dir() else []
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return digest([source.model_dump(), states])
