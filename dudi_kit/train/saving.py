"""What a checkpoint of a run holds: written by all processes, published by the first, loaded to go on."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from dudi_kit.errors import RunDirectoryError
from dudi_kit.models.reference import refresh
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import Plan
from dudi_kit.recipe.schema import Recipe
from dudi_kit.recipe.schema.signals import RefreshedReference
from dudi_kit.train import checkpoints


@dataclass(frozen=True)
class Saving:
    """Saves and resumes the state of one run."""

    run: RunDir
    recipe: Recipe
    plan: Plan
    accelerator: Accelerator

    def save(self, step: int, reference: nn.Module | None) -> None:
        """Write a checkpoint after `step` optimizer steps; every process must call it."""
        main = self.accelerator.is_main_process
        partial = self.run.checkpoints / f".step-{step}.partial"
        if main:
            checkpoints.partial_folder(self.run, step)
        self.accelerator.wait_for_everyone()
        with checkpoints.writing(partial):
            self.accelerator.save_state(str(partial / "state"))
            if main and reference is not None and refreshed_reference(self.recipe) is not None:
                torch.save(reference.state_dict(), partial / "reference.pt")
        self.accelerator.wait_for_everyone()
        if main:
            facts = {"lock": self.plan.lock, "processes": self.plan.processes}
            checkpoints.publish(self.run, partial, step, facts, self.recipe.training.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def resume(self, reference: nn.Module | None) -> int:
        """Load the newest complete checkpoint; the step to go on from. Says what it passed over."""
        checkpoint, skipped = checkpoints.latest(self.run)
        for reason in skipped:
            self.accelerator.print(f"checkpoint passed over: {reason}")
        if checkpoint is None:
            self.accelerator.print("no complete checkpoint: starting from the first step")
            return 0
        self._require_same_run(checkpoint)
        checkpoints.require_harmless(checkpoint)
        self.accelerator.load_state(str(checkpoint.path / "state"))
        if reference is not None and refreshed_reference(self.recipe) is not None:
            weights = torch.load(
                checkpoint.path / "reference.pt", weights_only=True, map_location=self.accelerator.device
            )
            refresh(reference, weights)
        if self.accelerator.is_main_process:
            checkpoints.forget_after(self.run, checkpoint.step)
        self.accelerator.print(f"resuming after step {checkpoint.step} from {checkpoint.path}")
        return checkpoint.step

    def _require_same_run(self, checkpoint: checkpoints.Checkpoint) -> None:
        facts = checkpoints.facts(checkpoint)
        if facts["lock"] != self.plan.lock:
            raise RunDirectoryError(
                f"{checkpoint.path} is of another recipe or other data; start again with --overwrite."
            )
        if facts["processes"] != self.plan.processes:
            raise RunDirectoryError(
                f"{checkpoint.path} was written by {facts['processes']} processes and {self.plan.processes} "
                f"are running; resume with --processes {facts['processes']}."
            )


def refreshed_reference(recipe: Recipe) -> RefreshedReference | None:
    """How often π_ref becomes the student; None where it is frozen."""
    reference = recipe.signals.sequence.reference
    return reference if isinstance(reference, RefreshedReference) else None
