"""What a checkpoint of a run holds: written by all processes, published by the first, loaded to go on.

    step-N/  config.json  generation_config.json  model.safetensors  tokenizer…    a transformers folder as it is
             state/weights.safetensors     fp32 weights, unless model.safetensors holds just these
             state/exp_avg.safetensors  state/exp_avg_sq.safetensors                Adam's moments, by parameter
             state/optimizer-R.safetensors  instead of them, where an 8-bit optimizer packs those of process R
             state/reference.safetensors   π_ref, where it is refreshed
             state/random-R.safetensors    random states of process R
             manifest.json                 step, lock, processes, and size and sha256 of every file

Rows, languages, learning rate and rollouts are functions of the step: nothing of theirs has to be kept.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dudi_kit.data.tokenizers import load_tokenizer
from dudi_kit.errors import RunDirectoryError
from dudi_kit.models.adapters import save_model
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.signals import RefreshedReference
from dudi_kit.train import checkpoints
from dudi_kit.train.checkpoints import Checkpoint
from dudi_kit.train.during import Watch, told_best
from dudi_kit.train.engine import whole
from dudi_kit.train.rng import random_states, seed_anew, set_random_states
from dudi_kit.train.state import (
    KINDS,
    MOMENTS,
    Kind,
    Read,
    gathered,
    own_pieces,
    packs_moments,
    restore_moments,
    restore_pieces,
    restore_weights,
    trained,
)
from dudi_kit.train.step import Models

MODEL = "model.safetensors"
REFERENCE = "state/reference.safetensors"


@dataclass(frozen=True)
class Saving:
    """Saves and resumes the state of one run."""

    run: RunDir
    recipe: Recipe
    plan: Plan
    accelerator: Accelerator

    def save(self, step: int, models: Models, watch: Watch | None = None) -> None:
        """Write a checkpoint after `step` optimizer steps; every process must call it. watch: knows the best step."""
        main = self.accelerator.is_main_process
        partial = self.run.checkpoints / f".step-{step}.partial"
        if main:
            checkpoints.partial_folder(self.run, step)
        self.accelerator.wait_for_everyone()
        with checkpoints.writing(partial):
            self._write(partial, models)
        self.accelerator.wait_for_everyone()
        if main:
            packed = packs_moments(models.student)
            facts = {"lock": self.plan.lock, "processes": self.plan.processes, "packed": packed}
            facts |= {"evaluation": watch.state} if watch else {}
            best = watch.best.step if watch and watch.best else None
            checkpoints.publish(self.run, partial, step, facts, self.recipe.training.keep_checkpoints, best)
            if watch:
                told_best(self.run, watch)
        self.accelerator.wait_for_everyone()

    def find(self) -> Checkpoint | None:
        """The newest complete checkpoint of this very run. Says what it passed over. Needs no model yet.

        The first process reads and checks all files, and tells the others which it is.
        """
        found = torch.zeros(1, dtype=torch.int64, device=self.accelerator.device)
        if self.accelerator.is_main_process:
            found += self._newest()
        if dist.is_initialized():
            dist.broadcast(found, 0)
        step = int(found)
        if not step:
            return None
        newest = Checkpoint(self.run.checkpoints / f"step-{step}", step)
        facts = checkpoints.facts(newest)
        if facts["lock"] != self.plan.lock:
            raise RunDirectoryError(f"{newest.path} is of another recipe or other data; start again with --overwrite.")
        if facts["packed"] and facts["processes"] != self.plan.processes:
            raise RunDirectoryError(
                f"{newest.path} was saved by {facts['processes']} processes, and an 8-bit optimizer's state fits no "
                f"other number than that; resume with --processes {facts['processes']}."
            )
        return newest

    def require_none(self) -> None:
        """Refuse a run that has checkpoints and is not to go on from them: its logs would be cut to nothing."""
        if any(self.run.checkpoints.glob("step-*")):
            raise RunDirectoryError(
                f"{self.run.path} holds an unfinished run: go on with --resume, or remove {self.run.checkpoints}."
            )

    def load(self, checkpoint: Checkpoint, models: Models) -> int:
        """Give the models what a checkpoint holds; the step to go on from. Every process must call it."""
        try:
            self._restore(checkpoint, models.student)
            if models.reference is not None and refreshed_reference(self.recipe) is not None:
                _refill(models.reference, load_file(checkpoint.path / REFERENCE))
            self._go_on_drawing(checkpoint)
        except (OSError, KeyError, SafetensorError) as error:
            raise RunDirectoryError(
                f"{checkpoint.path} does not hold the state of this run: {error}. Remove it and --resume from the one "
                "before it, or start again with --overwrite."
            ) from error
        if self.accelerator.is_main_process:
            checkpoints.forget_after(self.run, checkpoint.step)
        self.accelerator.print(f"resuming after step {checkpoint.step} from {checkpoint.path}")
        return checkpoint.step

    def _restore(self, checkpoint: Checkpoint, engine: Any) -> None:
        with _reader(checkpoint.path) as read:
            restore_weights(engine, read)
            if checkpoints.facts(checkpoint)["packed"]:
                restore_pieces(engine, load_file(self._own_file(checkpoint.path, "optimizer")))
            else:
                restore_moments(engine, read, checkpoint.step)

    def _newest(self) -> int:
        """Its step; 0 where there is none."""
        found, skipped = checkpoints.latest(self.run)
        for reason in skipped:
            self.accelerator.print(f"checkpoint passed over: {reason}")
        if found is None:
            self.accelerator.print("no complete checkpoint: starting from the first step")
        return found.step if found else 0

    def _write(self, folder: Path, models: Models) -> None:
        """Gathered by all processes, one kind after the other: the first one keeps no more than one of them."""
        main = self.accelerator.is_main_process
        weights = gathered(models.student, "weights", keep=main)
        write_student(folder, self.run, models.student, weights, main=main)
        if main and not _holds(folder / MODEL, weights):
            save_file(weights, _file_of(folder, "weights"))
        weights.clear()
        if packs_moments(models.student):
            save_file(own_pieces(models.student), self._own_file(folder, "optimizer"))
        else:
            for kind in MOMENTS:
                moments = gathered(models.student, kind, keep=main)
                if main:
                    save_file(moments, _file_of(folder, kind))
        if main and models.reference is not None and refreshed_reference(self.recipe) is not None:
            save_file(
                {name: p.detach().contiguous() for name, p in models.reference.named_parameters()}, folder / REFERENCE
            )
        save_file(random_states(), self._own_file(folder, "random"))

    def _own_file(self, folder: Path, what: str) -> Path:
        return folder / "state" / f"{what}-{self.accelerator.process_index}.safetensors"

    def _go_on_drawing(self, checkpoint: Checkpoint) -> None:
        before = checkpoints.facts(checkpoint)["processes"]
        if before == self.plan.processes:
            set_random_states(load_file(self._own_file(checkpoint.path, "random")))
            return
        seed_anew(self.recipe.training.seed, checkpoint.step, self.accelerator.process_index)
        self.accelerator.print(
            f"saved by {before} processes and resumed by {self.plan.processes}: equal up to rounding; dropout, where "
            "the student has any, is drawn anew"
        )


def write_student(folder: Path, run: RunDir, engine: Any, weights: Mapping[str, Tensor], *, main: bool) -> None:
    """Write the student as a transformers folder with its tokenizer, an adapter merged and beside it. Every process
    must call it; only the main one writes.

    weights: whole, in fp32, by name, of all parameters that learn; they are saved as training computes with them.
    """
    student = engine.module
    with whole([parameter for parameter in student.parameters() if not parameter.requires_grad]):
        if not main:
            return
        buffers = {name for name, _ in student.named_buffers()}
        tensors = {name: tensor for name, tensor in student.state_dict().items() if name in buffers}
        tensors |= {name: weights[name].to(parameter.dtype) for name, parameter in trained(engine)}
        save_model(student, folder, tensors)
    load_tokenizer(str(run.tokenizer)).save_pretrained(folder)


def refreshed_reference(recipe: Recipe) -> RefreshedReference | None:
    """How often π_ref becomes the student; None where it is frozen."""
    reference = recipe.signals.sequence.reference
    return reference if isinstance(reference, RefreshedReference) else None


@contextmanager
def _reader(folder: Path) -> Iterator[Read]:
    """Reads one tensor at a time, so that no process holds the whole state twice."""
    with ExitStack() as opened:
        files = {}
        for kind, file in {kind: _file_of(folder, kind) for kind in KINDS}.items():
            if kind == "weights" and not file.exists():
                file = folder / MODEL
            if file.exists():
                files[kind] = opened.enter_context(safe_open(file, framework="pt"))
        yield lambda kind, name: files[kind].get_tensor(name)


def _file_of(folder: Path, kind: Kind) -> Path:
    return folder / "state" / f"{kind}.safetensors"


def _holds(file: Path, weights: Mapping[str, Tensor]) -> bool:
    """A file of the model has these very tensors, so that they need not be saved twice."""
    if not file.exists():
        return False
    with safe_open(file, framework="pt") as saved:
        names = set(saved.keys())
        return all(name in names and saved.get_slice(name).get_dtype() == "F32" for name in weights)


@torch.no_grad()
def _refill(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(saved[name])
