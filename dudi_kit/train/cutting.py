"""The student that is cut from a bigger model, made once in the run directory before it is loaded."""

from pathlib import Path

from dudi_kit.data.sources import hub_error
from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import ModelError
from dudi_kit.models.loading import load_model
from dudi_kit.models.prune import Lazy, cut_config, cut_weights, made_by, write_folder
from dudi_kit.plan.fingerprint import digest
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.models import config_of, given
from dudi_kit.plan.pruning import read_pruning
from dudi_kit.plan.schema import ModelSource, Plan
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.models import PrunedStudent


def cut_student(run: RunDir, recipe: Recipe, plan: Plan) -> None:
    """Write `pruned/`, unless the run starts from another model, or it is there already."""
    student = recipe.student
    if not isinstance(student, PrunedStudent) or student.cold_start is not None:
        return
    pruning = read_pruning(run)
    key = digest({"lock": plan.lock, "layers": pruning.layers, "rows": pruning.rows})
    if made_by(run.pruned) == key:
        return
    source = given(student, "fp32")
    config = config_of(source, who="student")
    tensors = cut_weights(
        config,
        pruning.cut,
        Lazy(_folder(source)) if source.gguf_file is None else {},
        lambda: load_model(
            source.path, who="student.model", dtype="fp32", revision=source.revision, gguf_file=source.gguf_file
        ),
    )
    write_folder(run.pruned, cut_config(config, pruning.cut), tensors, load_tokenizer(str(run.tokenizer)), key)


def _folder(source: ModelSource) -> Path:
    """Where the weights lie on this machine."""
    from huggingface_hub import snapshot_download

    if Path(source.path).is_absolute():
        return Path(source.path)
    try:
        return Path(snapshot_download(source.path, revision=source.revision, allow_patterns=["*.safetensors"]))
    except Exception as error:
        raise hub_error(f"weights of {source.path!r}", error, ModelError) from error
