"""Trains a small model under layouts of the engine, and saves and restores it: `python -m tests.train.layouts FOLDER`,
in one process or, by torchrun, in two.

For each ZeRO stage and precision: four steps with a save after the second, then, in two processes, a fresh engine that
restores it and goes on; in fp32 also from what one process and the other of stages 2 and 3 saved, where that is there.
Rank 0 writes what came of it to FOLDER/found.json.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from dudi_kit.plan.engine import NEVER
from dudi_kit.train.engine import _stand_alone_environment, backward
from dudi_kit.train.state import KINDS, gathered, restore_moments, restore_weights

ROWS, STEPS, SAVED = 4, 4, 2
CELLS = [
    (stage, precision) for stage in (0, 1, 2, 3) for precision in ("fp32", "bf16") if (stage, precision) != (0, "bf16")
]


def engine(stage: int, precision: str) -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    named = list(model.parameters())
    groups = [
        {"params": [p for p in named if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in named if p.dim() < 2], "weight_decay": 0.0},
    ]
    settings = {
        "train_batch_size": ROWS,
        "train_micro_batch_size_per_gpu": ROWS // dist.get_world_size(),
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 20},
        "bf16": {"enabled": precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": NEVER,
    }
    made, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(groups, lr=1e-2), config=settings)
    return made


def train(made: Any, first: int, last: int) -> list[float]:
    """The loss of each step, over all processes."""
    losses = []
    for step in range(first, last):
        ids = torch.randint(50, (ROWS, 12), generator=torch.Generator().manual_seed(step))
        mine = ids.chunk(dist.get_world_size())[dist.get_rank()]
        loss = made(input_ids=mine, labels=mine).loss
        backward(made, loss, last=True)
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(float(mean) / dist.get_world_size())
    return losses


def state(made: Any) -> dict[str, Tensor]:
    return {f"{kind}/{name}": t.clone() for kind in KINDS for name, t in gathered(made, kind, keep=True).items()}


class End(NamedTuple):
    losses: list[float]
    state: dict[str, Tensor]

    def compared(self, other: "End") -> dict[str, Any]:
        """Whether all bits are equal, and the largest relative difference of a loss."""
        equal = all(torch.equal(tensor, other.state[name]) for name, tensor in self.state.items())
        losses = [abs(one / two - 1) for one, two in zip(self.losses, other.losses, strict=True)]
        return {"equal": equal and self.losses == other.losses, "loss": max(losses)}


def went_on(stage: int, precision: str, saved: Path) -> End:
    tensors = load_file(saved)
    made = engine(stage, precision)
    restore_weights(made, lambda kind, name: tensors[f"{kind}/{name}"])
    restore_moments(made, lambda kind, name: tensors[f"{kind}/{name}"], SAVED)
    return End(train(made, SAVED, STEPS), state(made))


def results(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """One process only saves. A stage-3 engine changes how the whole process multiplies, so each comparison is made
    before the next stage."""
    world = dist.get_world_size()
    for stage, precision in CELLS:
        made = engine(stage, precision)
        train(made, 0, SAVED)
        saved, here = state(made), folder / f"{stage}-{precision}-of-{world}"
        if dist.get_rank() == 0:
            save_file(saved, here)
        dist.barrier()
        if world == 1:
            continue
        end = End(train(made, SAVED, STEPS), state(made))
        origins = [here]
        if precision == "fp32":
            origins.append(folder / f"{stage}-fp32-of-1")
            origins += [folder / f"{other}-fp32-of-{n}" for other in {2: [3], 3: [2]}.get(stage, []) for n in (1, 2)]
        for origin in origins:
            if origin.exists():
                yield f"{origin.name} -> {here.name}", end.compared(went_on(stage, precision, origin))


def main(folder: Path) -> None:
    _stand_alone_environment()
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo")
    found = dict(results(folder))
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found, indent=1))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
