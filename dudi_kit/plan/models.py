"""Tokenizers and shapes of the models, found without loading a weight."""

from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from dudi_kit.data.chat import resolve_template
from dudi_kit.data.encode import Encoder
from dudi_kit.data.sources import require_hub_name
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import ModelError
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import ModelSource
from dudi_kit.recipe.schema.models import Dtype, Pretrained, Teacher


def given(model: Pretrained, dtype: Dtype) -> ModelSource:
    """Where a model that the recipe names comes from."""
    return ModelSource(
        path=model.model,
        dtype=dtype,
        revision=model.revision,
        gguf_file=model.gguf_file,
        tokenizer=model.tokenizer,
        tokenizer_revision=model.tokenizer_revision,
        chat_template=model.chat_template,
    )


def trained(run: RunDir, dtype: Dtype) -> ModelSource:
    """A model that a run of ours trained, or will have trained."""
    return ModelSource(path=str(run.final), dtype=dtype, tokenizer=str(run.tokenizer))


def held_as(source: ModelSource, teacher: Teacher) -> ModelSource:
    """The same, packed and placed as the teacher is."""
    fields = ("quantization", "placement", "device_memory")
    return source.model_copy(update={field: getattr(teacher, field) for field in fields})


def tokenizer_of(source: ModelSource, *, who: str) -> PreTrainedTokenizerBase:
    """The tokenizer with its chat template resolved."""
    if source.tokenizer is None:
        _check_weights(source, who)  # the better message, where the folder is wrong
    elsewhere = source.tokenizer is not None
    tokenizer = load_tokenizer(
        source.tokenizer or source.path,
        source.tokenizer_revision if elsewhere else source.revision,
        None if elsewhere else source.gguf_file,
    )
    resolve_template(tokenizer, source.chat_template, who=who)
    return tokenizer


def encoder_of(source: ModelSource, *, who: str) -> Encoder:
    """How the model's prompts and responses are written."""
    return Encoder(tokenizer_of(source, who=who), who=who)


def config_of(source: ModelSource, *, who: str) -> PreTrainedConfig:
    """The text model's configuration. Refuses a folder without weights that may be loaded, by their names alone."""
    _check_weights(source, who)
    if not Path(source.path).is_absolute():
        require_hub_name(source.path)
    options = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    try:
        config = AutoConfig.from_pretrained(source.path, revision=source.revision, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        where = "folder" if Path(source.path).is_absolute() else "hub model"
        raise ModelError(f"{who}.model: can't read the configuration of {where} {source.path}: {error}") from error
    _check_packing(config, source, who)
    return config.get_text_config()


def _check_packing(config: PreTrainedConfig, source: ModelSource, who: str) -> None:
    """Weights that were packed before they were saved can't be trained, nor packed in another way."""
    packed = getattr(config, "quantization_config", None)
    if packed is None or source.gguf_file is not None:
        return
    method = packed.get("quant_method") if isinstance(packed, dict) else getattr(packed, "quant_method", None)
    of = f" by {method}" if method else ""
    if who == "student":
        raise ModelError(
            f"student.model: the weights of {source.path} are quantised{of}, and such weights can't be trained. Name "
            "the model that they were made from."
        )
    if source.quantization != "none":
        raise ModelError(
            f"{who}.quantization: the weights of {source.path} are quantised{of} already. Set it to none, or name the "
            "model that they were made from."
        )


def _check_weights(source: ModelSource, who: str) -> None:
    """Pickled weights could run code of theirs; better told now than when a cold start has been trained for hours."""
    folder = Path(source.path)
    if not folder.is_absolute() or source.gguf_file is not None:
        return
    if folder.suffix == ".gguf":
        raise ModelError(f"{who}.model: {folder} is a GGUF file: name its folder, and the file in {who}.gguf_file.")
    if not folder.is_dir():
        raise ModelError(f"{who}.model: no such folder: {folder}. Paths are relative to the recipe that names them.")
    if not any(folder.glob("*.safetensors")):
        if files := sorted(file.name for file in folder.glob("*.gguf")):
            raise ModelError(
                f"{who}.model: {folder} has no .safetensors file, but {', '.join(files)}: name one in {who}.gguf_file. "
                "Where `model` was changed, the file of the old one is forgotten."
            )
        pickled = sorted(file.name for suffix in ("bin", "pt", "pth", "ckpt") for file in folder.glob(f"*.{suffix}"))
        found = f"{', '.join(pickled)} are pickled, which may run code" if pickled else "there are no weights"
        raise ModelError(
            f"{who}.model: {folder} has no .safetensors file: {found}. Save the model again with "
            "save_pretrained(…, safe_serialization=True), or name another."
        )


def context_of(config: PreTrainedConfig) -> int | None:
    """Longest input in tokens, where the configuration says it."""
    return getattr(config, "max_position_embeddings", None)
