"""A step without its optimizer: ours against the bare passes, and against TRL's on the same models and tokens.

    python -m benchmarks.step            three shapes, some thirty minutes; goes on where it was stopped
    python -m benchmarks.step --quick    tiny models, seconds

Ours is what training calls: `OwnSampler`, `Objective`, backward. TRL's is `GKDTrainer.compute_loss` on samples of the
same sampler, backward. The bare passes are what can't be avoided: transformers' `generate` with sampling, the student's
forward and backward with the head at response tokens only and a gradient that is there already, forward passes of
teacher and reference with their heads there; no loss, no mask, no log-probability. Models are random, in bf16 or, where
the processor does not multiply that, in fp32 (`--dtype`), batch 8, prompts of 32 tokens, responses of 64. "y kept":
what teacher (`teacher.cache: top_k`) and reference say about y is read from where it was kept. Nothing else is timed:
no data, no optimizer, no logging. Times are by turns in one process, medians; peaks are of fresh processes that do one
step, at some lengths of the responses, since what a process holds before it does anything is the same for all.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measure import DTYPES, Results, arguments, begin, by_turns, medians, peak_beyond, status, table
from dudi_kit.data.batches import Batch, join
from dudi_kit.models.cache.store import Store
from dudi_kit.models.generation import Stops
from dudi_kit.models.loading import with_contiguous_head
from dudi_kit.models.reference import frozen_copy
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.cache import TopKCache
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.recipe.schema.signals import Signals
from dudi_kit.train.heap import keep_heap
from dudi_kit.train.keeping import Keeping, ReferenceAnswers, TeacherAnswers
from dudi_kit.train.rollouts import OwnSampler
from dudi_kit.train.step import Models, Objective, Padding

SIGNALS: dict[str, dict[str, Any]] = {
    "all": {"off_policy": {"weight": 0.5}, "on_policy": {"weight": 0.5}},
    "gkd": {
        "sequence": {"weight": 0},
        "off_policy": {"weight": 0},
        "on_policy": {"weight": 1, "divergence": {"type": "jsd", "beta": 0.5}},
    },
}
"""`all`: the three of the paper, reverse KL. `gkd`: what TRL's step computes."""

SHAPES: dict[str, dict[str, Any]] = {
    "8 × 512, V = 151,936": {"layers": 8, "hidden": 512, "pieces": 151_936, "rounds": 5},
    "8 × 512, V = 32,000": {"layers": 8, "hidden": 512, "pieces": 32_000, "rounds": 5},
    "24 × 896, V = 151,936": {"layers": 24, "hidden": 896, "wide": 4864, "heads": 14, "pieces": 151_936, "rounds": 5},
}
"""Students; the teacher has 16 layers of 1,024."""

QUICK = {
    "tiny": {"layers": 2, "hidden": 64, "pieces": 500, "rounds": 1, "teacher": (2, 64), "batch": 2, "response": 16}
}
PAD, STOP = 0, 1


@dataclass
class World:
    """Models, rows and what is read of them."""

    shape: Mapping[str, Any]
    models: Models = field(init=False)
    rows: list[Row] = field(init=False)
    folder: tempfile.TemporaryDirectory[str] = field(init=False)
    """For answers that are kept."""

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        shape = self.shape
        dtype = DTYPES[shape["dtype"]]
        widths = shape.get("wide"), shape.get("heads")
        student = model_of(shape["layers"], shape["hidden"], shape["pieces"], *widths, dtype=dtype)
        self.response: int = shape.get("response", 64)
        teacher = model_of(*shape.get("teacher", (16, 1024)), shape["pieces"], dtype=dtype).requires_grad_(False).eval()
        self.models = Models(student, teacher, frozen_copy(student, dtype))
        prompt: int = shape.get("prompt", 32)

        def ids(length: int) -> list[int]:
            return torch.randint(2, shape["pieces"], (length,)).tolist()

        self.rows = []
        for i in range(shape.get("batch", 8)):
            asked, said = ids(prompt), ids(self.response)
            self.rows.append(Row(i, "th", "rows", asked, said, {"off_policy": asked, "on_policy": asked}))
        sayable_V = torch.ones(shape["pieces"], dtype=torch.bool)
        sayable_V[:2] = False  # no sample ends before its time
        settings, stops = Rollouts(max_new_tokens=self.response), Stops((STOP,), PAD)
        self.sampler = OwnSampler(settings, stops=stops, sayable_V=sayable_V, seed=0)
        self.folder = tempfile.TemporaryDirectory()
        self.samples = [row.response for row in self.rows]
        self.gradients = {n: torch.randn(n * self.response, shape["pieces"], dtype=dtype) for n in self.sides}

    @cached_property
    def keeping(self) -> Keeping:
        """What training keeps of these rows; the first step asks and writes, the others read."""
        teacher, reference = (Store(Path(self.folder.name) / who, {}) for who in ("teacher", "reference"))
        answers = TeacherAnswers(teacher, TopKCache(type="top_k"), PAD, torch.device("cpu"))
        assert self.models.teacher is not None, "every world has one"
        answers.begin(self.models.teacher, self.rows)
        return Keeping(answers, ReferenceAnswers(reference), self.rows, range(len(self.rows)), leaves=False)

    @property
    def sides(self) -> tuple[int, int]:
        """Rows of a batch of ỹ, and of one of y and ỹ."""
        return len(self.rows), 2 * len(self.rows)

    def batch(self, rows: int) -> Batch:
        prompts, responses = [row.prompt for row in self.rows], [row.response for row in self.rows]
        times = rows // len(self.rows)
        return join(prompts * times, responses * times, pad_id=PAD)

    def weights_and_gradients(self) -> int:
        """Bytes of all models and of the student's gradients."""
        held = [p.numel() * p.itemsize for model in self.models if model is not None for p in model.parameters()]
        return sum(held) + sum(p.numel() * p.itemsize for p in self.models.student.parameters())


def model_of(
    layers: int, hidden: int, pieces: int, wide: int | None = None, heads: int | None = None, *, dtype: torch.dtype
) -> Any:
    heads = heads or max(hidden // 64, 1)
    config = LlamaConfig(
        vocab_size=pieces, hidden_size=hidden, intermediate_size=wide or 3 * hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=max(heads // 2, 1) if heads % 2 == 0 else 1,
        max_position_embeddings=4096, tie_word_embeddings=True, pad_token_id=PAD, eos_token_id=STOP,
    )  # fmt: skip
    return with_contiguous_head(LlamaForCausalLM(config).to(dtype))  # as `load_model` does


# --- our step, and TRL's


def ours(world: World, which: str, *, kept: bool = False) -> None:
    """As `Loop._step` has it. kept: of y the frozen models are not asked."""
    objective = objective_of(which, world.shape["pieces"], world.keeping if kept else None)
    rollouts = world.sampler.sample(world.models.student, world.rows, 0)
    pairs = [objective.pair(*item) for item in zip(world.rows, rollouts, strict=True)]
    loss, _ = objective(world.models, pairs, objective.counts(pairs))
    loss.backward()
    world.models.student.zero_grad()
    if objective.keeping is not None:
        objective.keeping.write()  # only what is new


def objective_of(which: str, pieces: int, keeping: Keeping | None) -> Objective:
    signals = Signals.model_validate(SIGNALS[which])
    return Objective(signals, padding=Padding(PAD, PAD), pieces=pieces, keeping=keeping)


def trl(world: World) -> None:
    """GKD on samples: the same sampler, then TRL's own loss."""
    from trl.experimental.gkd import GKDTrainer

    rollouts = world.sampler.sample(world.models.student, world.rows, 0)
    prompts = [row.prompt for row in world.rows]
    batch = join(prompts, [rollout.ids for rollout in rollouts], pad_id=PAD)
    labels_BT = batch.input_ids_LT.clone()  # all prompts are of one length, and all responses
    labels_BT[:, : len(prompts[0])] = -100
    trainer = SimpleNamespace(
        teacher_model=world.models.teacher, beta=0.5, generalized_jsd_loss=GKDTrainer.generalized_jsd_loss
    )
    mask_BT = torch.ones_like(labels_BT)
    inputs = {"input_ids": batch.input_ids_LT, "attention_mask": mask_BT, "labels": labels_BT}
    GKDTrainer.compute_loss(trainer, world.models.student, inputs).backward()
    world.models.student.zero_grad()


# --- the bare passes


@torch.no_grad()
def generation(world: World) -> None:
    """transformers' own."""
    student = world.models.student.eval()
    ids_BP = torch.tensor([row.prompt for row in world.rows])
    student.generate(
        input_ids=ids_BP, attention_mask=torch.ones_like(ids_BP), min_new_tokens=world.response,
        max_new_tokens=world.response, do_sample=True, top_k=0,
    )  # fmt: skip
    student.train()


def our_generation(world: World) -> None:
    world.sampler.sample(world.models.student, world.rows, 0)


@torch.no_grad()
def generation_forwards(world: World) -> None:
    """Its forward passes with the cache, and no sampling."""
    student = world.models.student.eval()
    read = student(input_ids=torch.tensor([row.prompt for row in world.rows]), use_cache=True, logits_to_keep=1)
    token_B1 = torch.full((len(world.rows), 1), 7)
    for _ in range(world.response - 1):
        read = student(input_ids=token_B1, past_key_values=read.past_key_values, use_cache=True, logits_to_keep=1)
    student.train()


def response_logits(model: nn.Module, batch: Batch) -> Tensor:
    """[B·R, V]; the head reads contiguous rows, which a slice of columns is not, and is up to nine times as fast."""
    hidden_BTH = model.model(input_ids=batch.input_ids_LT, use_cache=False).last_hidden_state
    first = int(batch.asked_B[0])  # all rows are equally long
    hidden_NH = hidden_BTH[:, first : batch.longest - 1].reshape(-1, hidden_BTH.shape[-1])
    logits_NV: Tensor = model.lm_head(hidden_NH)
    return logits_NV


def student(world: World, rows: int) -> None:
    response_logits(world.models.student, world.batch(rows)).backward(world.gradients[rows])
    world.models.student.zero_grad()


@torch.no_grad()
def frozen(world: World, who: str, rows: int) -> None:
    response_logits(getattr(world.models, who), world.batch(rows))


def parts(world: World) -> dict[str, Callable[[], None]]:
    """ỹ alone, and y and ỹ, of each model."""
    one, two = world.sides
    found: dict[str, Callable[[], None]] = {
        "generate": partial(generation, world),
        "our sampling": partial(our_generation, world),
        "forward passes of generation": partial(generation_forwards, world),
    }
    for rows, said in ((one, "ỹ"), (two, "y, ỹ")):
        found[f"student, {said}"] = partial(student, world, rows)
        found[f"teacher, {said}"] = partial(frozen, world, "teacher", rows)
        found[f"reference, {said}"] = partial(frozen, world, "reference", rows)
    return found


BARE = {
    "gkd": ("generate", "student, ỹ", "teacher, ỹ"),
    "all": ("generate", "student, y, ỹ", "teacher, y, ỹ", "reference, y, ỹ"),
    "all, y of the frozen known": ("generate", "student, y, ỹ", "teacher, ỹ", "reference, ỹ"),
}
"""The last is what can't be avoided where answers about y are kept."""


def steps(world: World) -> dict[str, Callable[[], None]]:
    return {
        "ours, JSD ½": partial(ours, world, "gkd"),
        "TRL, JSD ½": partial(trl, world),
        "ours, all three": partial(ours, world, "all"),
        "ours, all three, y kept": partial(ours, world, "all", kept=True),
    }


def bare(world: World, which: str) -> None:
    """All of them, one after the other."""
    for name in BARE[which]:
        parts(world)[name]()


def measured(cell: Mapping[str, Any]) -> dict[str, Any]:
    """In a process of its own: times of all, or the peak of one step."""
    keep_heap()  # as training does; TRL's step and the bare passes gain by it too
    world = World(cell["shape"])
    ways = steps(world)
    if cell["of"] == "time":
        seconds = by_turns(ways | parts(world), world.shape["rounds"])
        return {"seconds": medians(seconds), "rounds": seconds}
    ways |= {"bare, JSD ½": partial(bare, world, "gkd"), "bare, all three": partial(bare, world, "all")}
    if not cell["way"].startswith("bare"):
        world.gradients.clear()
    beyond = peak_beyond(ways[cell["way"]])
    own = sum(p.numel() * p.itemsize for p in world.models.student.parameters())
    return {"bytes": status("VmHWM"), "beyond_bytes": beyond - own}


MEMORY = ("ours, JSD ½", "TRL, JSD ½", "ours, all three", "bare, all three")
RESPONSES = (32, 64, 128)
"""Tokens at which the peaks are taken too, of the first shape."""


def memory_along_responses(results: Results, shape: Mapping[str, Any], lengths: Sequence[int]) -> None:
    """Ours against TRL's, on the same signal."""
    rows = []
    for response in lengths:
        ours, theirs = (
            results.cell(
                f"memory of {response} tokens, {shape['dtype']}: {way}",
                {"of": "memory", "shape": dict(shape) | {"response": response}, "way": way},
            )
            for way in ("ours, JSD ½", "TRL, JSD ½")
        )
        whole, beyond = (ours[what] / theirs[what] for what in ("bytes", "beyond_bytes"))
        peaks = [f"{peak[what] / 1e6:,.0f}" for what in ("bytes", "beyond_bytes") for peak in (ours, theirs)]
        rows.append([response, *peaks[:2], f"{whole:.2f}", *peaks[2:], f"{beyond:.2f}"])
    print("\n## Peaks along responses, MB: of the process, and beyond weights and the student's gradients\n")
    print(table(["tokens", "ours", "TRL", "ratio", "ours, beyond", "TRL, beyond", "ratio"], rows), flush=True)


def show(name: str, times: Mapping[str, float], peaks: Mapping[str, Mapping[str, int]]) -> None:
    """The tables of a shape."""
    bare_of = {which: sum(times[part] for part in names) for which, names in BARE.items()}
    print(f"\n## {name}\n")
    print(table(["part", "seconds"], [[part, f"{seconds:.3f}"] for part, seconds in times.items()]))
    gkd, rival, all_three = (times[step] for step in ("ours, JSD ½", "TRL, JSD ½", "ours, all three"))
    ratios = {
        "our step, JSD ½ / its bare passes": gkd / bare_of["gkd"],
        "our step, all three / its bare passes": all_three / bare_of["all"],
        "our step, all three, y kept / its bare passes": times["ours, all three, y kept"]
        / bare_of["all, y of the frozen known"],
        "our step, all three: y kept / live": times["ours, all three, y kept"] / all_three,
        "TRL's step / our step, JSD ½": rival / gkd,
        "our step, all three / TRL's step": all_three / rival,
        "bare passes of all three / TRL's step": bare_of["all"] / rival,
        "TRL's step / its bare passes": rival / bare_of["gkd"],
        "our step, all three / bare passes with our sampling": all_three
        / (bare_of["all"] - times["generate"] + times["our sampling"]),
        "our sampling / its forward passes": times["our sampling"] / times["forward passes of generation"],
        "transformers' generate / its forward passes": times["generate"] / times["forward passes of generation"],
        "our sampling / our step, all three": times["our sampling"] / all_three,
    }
    print(table(["ratio", ""], [[what, f"{value:.2f}"] for what, value in ratios.items()]))
    rows = [[way, f"{peak['bytes'] / 1e6:,.0f}", f"{peak['beyond_bytes'] / 1e6:,.0f}"] for way, peak in peaks.items()]
    print(
        table(["step", "peak of the process, MB", "beyond weights and the student's gradients, MB"], rows), flush=True
    )


def main(options: argparse.Namespace) -> None:
    results = Results("step", options, measured)
    shapes = {
        f"{name}, {options.dtype}": shape | {"dtype": options.dtype}
        for name, shape in (QUICK if options.quick else SHAPES).items()
    }
    for name, shape in shapes.items():
        times = results.cell(f"time: {name}", {"of": "time", "shape": shape})["seconds"]
        peaks = {
            way: results.cell(f"memory: {name}, {way}", {"of": "memory", "shape": shape, "way": way}) for way in MEMORY
        }
        show(name, times, peaks)
    memory_along_responses(results, next(iter(shapes.values())), (16,) if options.quick else RESPONSES)
    print(results.heading())


if __name__ == "__main__":
    begin(arguments(__doc__).parse_args(), main, measured)
