"""Two processes with a student under ZeRO-3: what each sees of it, written to a file for `test_sharded.py`.

torchrun --nproc-per-node=2 -m tests.train.sharded RUN_DIRECTORY FACTS
"""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from dudi_kit.models.generation import Stops, continue_prompts
from dudi_kit.models.loading import freeze, load_model
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.schema import read_plan
from dudi_kit.recipe.publish import recipe_from_resolved
from dudi_kit.train.engine import (
    leave_process_group,
    make_optimizer,
    partitioned_at_load,
    prepare,
    shard_frozen,
    start_accelerator,
)
from dudi_kit.train.state import gathered as gathered_state

PROMPTS = [[5, 6, 7], [8, 9]]


def held(model: nn.Module) -> int:
    """Elements of weights in this process."""
    return sum(
        getattr(p, "ds_tensor", p).numel() + (p.numel() if hasattr(p, "ds_id") else 0) for p in model.parameters()
    )


class Gathers:
    """Counts the collectives that bring weights together."""

    def __init__(self) -> None:
        self.count = 0
        for name in ("all_gather_into_tensor", "all_gather"):
            setattr(dist, name, self._counted(getattr(dist, name)))

    def _counted(self, call: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return call(*arguments, **options)

        return counted


def main(run: RunDir, out: Path) -> None:
    gathers, linear = Gathers(), functional.linear
    plan, recipe = read_plan(run), recipe_from_resolved(run.resolved.read_text(encoding="utf-8"))
    accelerator = start_accelerator(plan, patience=timedelta(minutes=5))
    assert plan.teacher is not None
    assert plan.start is not None
    teacher = freeze(load_model(plan.teacher.path, who="teacher", dtype="fp32"))
    with partitioned_at_load(plan):
        student = load_model(plan.start.path, who="student", dtype="fp32")
    plain = load_model(plan.start.path, who="student", dtype="fp32")
    facts: dict[str, Any] = {
        "whole": sum(p.numel() for p in plain.parameters()),
        "at load": held(student),
        "others are whole": not any(hasattr(p, "ds_id") for model in (teacher, plain) for p in model.parameters()),
    }
    prepared = prepare(accelerator, student, make_optimizer(student, recipe, print))
    facts["before"] = held(prepared.engine.module)
    stops = Stops((1,), 0)
    with prepared.whole() as model:
        facts["gathers to have it whole"] = gathers.count
        facts["whole is plain"] = all(
            torch.equal(w, model.state_dict()[name]) for name, w in plain.state_dict().items()
        )
        said = continue_prompts(model, PROMPTS[dist.get_rank() :], stops, max_new_tokens=4 + 4 * dist.get_rank())
        facts["gathers while it samples"] = gathers.count - facts["gathers to have it whole"]
    facts["after"] = held(prepared.engine.module)
    expected = continue_prompts(plain, PROMPTS[dist.get_rank() :], stops, max_new_tokens=4 + 4 * dist.get_rank())
    facts["says the same"] = said == expected
    state = gathered_state(prepared.engine, "weights", keep=dist.get_rank() == 0)
    facts["full state"] = len(state) == len(dict(plain.named_parameters())) if dist.get_rank() == 0 else not state
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        before = teacher(input_ids=ids).logits
        sharded = shard_frozen(teacher, plan)
        after = sharded(input_ids=ids).logits
    facts |= {
        "teacher": sum(p.ds_numel for p in sharded.module.parameters()),
        "teacher held": held(sharded.module),
        "teacher says the same": bool((before - after).abs().max() < 1e-6),
        "teacher learns": sharded.module.training or any(p.requires_grad for p in sharded.module.parameters()),
        "linear layers are torch's": functional.linear is linear,
    }
    Path(f"{out}.{dist.get_rank()}").write_text(json.dumps(facts))
    leave_process_group()


if __name__ == "__main__":
    main(RunDir(Path(sys.argv[1])), Path(sys.argv[2]))
