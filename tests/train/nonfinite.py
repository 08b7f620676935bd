"""A process: under each stage and precision, a gradient that is no number; prints what the engine made of it.

Started by test_watch, since DeepSpeed needs a process group.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import deepspeed
import torch
from torch import nn

from dudi_kit.plan.arithmetic import Arithmetic
from dudi_kit.plan.engine import ds_config
from dudi_kit.recipe.schema.engine import DeepSpeed
from dudi_kit.recipe.schema.training import Training
from dudi_kit.train.engine import _stand_alone_environment, _use_plain_gloo, backward

CASES = [(0, False), (1, False), (2, False), (3, False), (1, True), (2, True), (3, True)]


def outcome(stage: int, *, bf16: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    module = nn.Linear(4, 4)
    recipe: Any = SimpleNamespace(
        training=Training(precision="bf16" if bf16 else "fp32"), deepspeed=DeepSpeed(stage=stage)
    )
    batches = Arithmetic(batch_size=2, micro_batch_size=2, accumulation=1, rows_per_epoch=2, steps=3, processes=1)
    config = ds_config(recipe, batches, parameters=20)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    inputs = torch.ones(2, 4, dtype=torch.bfloat16 if bf16 else torch.float32)
    norms, weights = [], [whole(module)]
    for factor in (1.0, float("nan"), float("inf")):
        norms.append(str(backward(engine, engine(inputs).float().sum() * factor, last=True)))
        weights.append(whole(module))
    start, good, *bad = weights
    return {
        "stage": stage,
        "bf16": bf16,
        "norms": norms,
        "a good step moves": start != good,
        "bad steps move": any(each != good for each in bad),
    }


def whole(module: nn.Module) -> list[float]:
    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        return [value for p in module.parameters() for value in p.detach().float().flatten().tolist()]


if __name__ == "__main__":
    _stand_alone_environment()
    _use_plain_gloo()
    deepspeed.init_distributed("gloo", verbose=False)
    sys.stdout.write(json.dumps([outcome(stage, bf16=bf16) for stage, bf16 in CASES]) + "\n")
    torch.distributed.destroy_process_group()
