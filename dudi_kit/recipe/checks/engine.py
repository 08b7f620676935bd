"""Rules about `deepspeed`, and about the optimizer that it runs."""

from collections.abc import Iterator, Mapping
from typing import Any

from dudi_kit.recipe.checks.complaint import Complaint, Rule
from dudi_kit.recipe.deepspeed_keys import FREE, OURS, OWNERS, SECTIONS
from dudi_kit.recipe.diagnostics import Path, nearest
from dudi_kit.recipe.schema import Recipe

STAGE: Path = ("deepspeed", "stage")
OFFLOAD: Path = ("deepspeed", "offload")
EXTRA: Path = ("deepspeed", "extra")


def offloading_fits_the_stage(recipe: Recipe) -> Iterator[Complaint]:
    """DeepSpeed offloads what it shards, and swaps to a disk at stage 3 only; below, it would quietly not do it."""
    stage, offload = recipe.deepspeed.stage, recipe.deepspeed.offload
    needed = {
        "optimizer": {"none": 0, "cpu": 1, "nvme": 3}[offload.optimizer],
        "parameters": 0 if offload.parameters == "none" else 3,
    }
    for part, least in needed.items():
        if stage < least:
            place = getattr(offload, part)
            message = f"offloading the {part} to {place!r} needs ZeRO stage {least}, and deepspeed.stage is {stage}"
            hint = f"set deepspeed.stage to {least}{'' if least == 3 else ' or more'}, or remove it"
            yield Complaint((*OFFLOAD, part), "not-together", message, hint, (STAGE,))


def swapping_names_its_folder(recipe: Recipe) -> Iterator[Complaint]:
    """`nvme` and `nvme_path` need each other."""
    offload = recipe.deepspeed.offload
    parts = [part for part in ("optimizer", "parameters") if getattr(offload, part) == "nvme"]
    needs: tuple[Path, ...] = tuple((*OFFLOAD, key) for key in ("optimizer", "parameters", "nvme_path"))
    if parts and offload.nvme_path is None:
        message = "'nvme' needs the folder to write to"
        yield Complaint((*OFFLOAD, parts[0]), "needs-folder", message, "add 'nvme_path: /…' beside it", needs)
    elif offload.nvme_path is not None and not parts:
        message = "nothing is offloaded to 'nvme'"
        hint = "remove it, or set optimizer or parameters to nvme"
        yield Complaint((*OFFLOAD, "nvme_path"), "no-effect", message, hint, needs, at_key=True)


def optimizer_is_kept_where_it_can_run(recipe: Recipe) -> Iterator[Complaint]:
    """Offloading moves the update to the CPU, where bitsandbytes takes ten times as long as torch."""
    optimizer, place = recipe.training.optimizer, recipe.deepspeed.offload.optimizer
    if optimizer != "adamw" and place != "none":
        message = f"{optimizer!r} is updated on the GPU, and deepspeed.offload.optimizer is {place!r}"
        hint = "use 'adamw', or deepspeed.offload.optimizer: none"
        needs: tuple[Path, ...] = ((*OFFLOAD, "optimizer"),)
        yield Complaint(("training", "optimizer"), "not-together", message, hint, needs)


def extra_contradicts_nothing(recipe: Recipe) -> Iterator[Complaint]:
    """Each key has one owner."""
    yield from _contradictions(recipe.deepspeed.extra, ())
    for part, key in (("optimizer", "offload_optimizer"), ("parameters", "offload_param")):
        zero = recipe.deepspeed.extra.get("zero_optimization")
        if isinstance(zero, Mapping) and zero.get(key) and getattr(recipe.deepspeed.offload, part) == "none":
            path = (*EXTRA, "zero_optimization", key)
            message = f"it has no effect: deepspeed.offload.{part} is 'none'"
            yield Complaint(path, "no-effect", message, "remove it", ((*OFFLOAD, part),), at_key=True)


def _contradictions(section: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[Complaint]:
    for key, value in section.items():
        where = (*above, key)
        dotted, path = ".".join(where), (*EXTRA, *where)
        if "." in key:  # a dotted key is another one than the keys that its parts name
            yield _unknown(where, path)
        elif dotted in OWNERS:
            message = f"{OWNERS[dotted]} of the recipe says it"
            yield Complaint(path, "not-here", message, f"set {OWNERS[dotted]}, and remove it here", at_key=True)
        elif dotted in OURS:
            yield Complaint(path, "not-here", OURS[dotted], "remove it", at_key=True)
        elif dotted in SECTIONS and isinstance(value, Mapping):
            yield from _contradictions(value, where)
        elif dotted in SECTIONS:
            yield Complaint(path, "bad-value", "a mapping expected")
        elif dotted not in FREE:
            yield _unknown(where, path)


def _unknown(where: tuple[str, ...], path: Path) -> Complaint:
    *above, key = where
    siblings = [
        known.rpartition(".")[2] for known in (*OWNERS, *OURS, *FREE, *SECTIONS) if known.split(".")[:-1] == above
    ]
    near = nearest(key, siblings)
    hint = f"did you mean {near!r}?" if near else ""
    return Complaint(path, "unknown-engine-key", "DeepSpeed has no such key", hint, at_key=True)


RULES: tuple[Rule, ...] = (
    offloading_fits_the_stage,
    swapping_names_its_folder,
    optimizer_is_kept_where_it_can_run,
    extra_contradicts_nothing,
)
