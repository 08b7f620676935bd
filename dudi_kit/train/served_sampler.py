"""ỹ from a server: the first process hands it the student's weights, each process asks for its own rows.

The seed of a sample is a function of (seed, step, row), but what a server makes of it depends on what it computes at
the same time: a resumed run goes on with other samples of the same distribution. Whether the server really holds the
weights that it was handed is not believed but asked: each process keeps the log-probabilities that the student gave to
a row at the last refresh, and has the server tell its own before every sampling.
"""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from dudi_kit.errors import EnvironmentLack
from dudi_kit.models.adapters import save_model
from dudi_kit.models.generation import Continuation, Stops
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.rollouts import Rollouts, VllmEngine
from dudi_kit.train.served import Draw, VllmServer

GAP = 0.1
"""Mean distance of log-probabilities in nats beyond which the server holds other weights. In bf16 two ways to compute
the same model differ by some hundredths."""

ATTEMPTS = 100
"""Redraws of one sample after pieces that must not be said."""

RETURNS = 3
"""Times that a share is sampled anew because the server had been away."""


class Probe(NamedTuple):
    """A row, and what the student made of it when its weights were handed over."""

    ids: list[int]
    logprobs: list[float]
    """In nats, of each token but the first."""


class ServedSampler:
    """Samples through a vLLM server."""

    may_be_left = False
    """While weights are handed over the processes wait for each other."""

    def __init__(
        self,
        settings: Rollouts,
        server: VllmServer,
        accelerator: Accelerator,
        folder: Path,
        *,
        stops: Stops,
        sayable_V: Tensor,
        seed: int,
    ) -> None:
        """folder: that the server reads weights from. sayable_V: as for `OwnSampler`."""
        assert isinstance(settings.engine, VllmEngine), "the recipe names a server"
        self.settings, self.engine, self.server = settings, settings.engine, server
        self.accelerator, self.folder = accelerator, folder
        self.stops, self.sayable, self.seed = stops, sayable_V.tolist(), seed
        self.facts: Mapping[str, Sequence[float]] = {}
        self._refreshed: int | None = None
        self._probe = Probe([], [])

    def sample(self, model: PreTrainedModel, rows: Sequence[Row], step: int) -> list[Continuation]:
        """One continuation of each row's prompt, in the rows' order."""
        self.server.step = step
        if self._refreshed is None or step - self._refreshed >= self.engine.refresh_every:
            self._refresh(model, rows[0])
            self._refreshed = step
        said, gap = self._sampled(self._draw_of(model), rows, step)
        self.facts = {
            "weights_age": [float(step - self._refreshed)] * len(rows),
            "server_gap": [gap] * len(rows),
            "redraws": [float(redraws) for _, redraws in said],
        }
        return [continuation for continuation, _ in said]

    def _sampled(self, draw: Draw, rows: Sequence[Row], step: int) -> tuple[list[tuple[Continuation, int]], float]:
        """Samples with their redraws, all of them by the weights that were handed over; and the gap to those."""
        for _ in range(RETURNS):
            self.server.troubled = False
            gap = self._require_weights()
            with ThreadPoolExecutor(self.engine.concurrency) as pool:
                said = list(pool.map(lambda row: self._one(draw, row, step), rows))
            if not self.server.troubled:
                return said, gap
        raise self._lost(f"was away {RETURNS} times in a row")

    def _one(self, draw: Draw, row: Row, step: int) -> tuple[Continuation, int]:
        """A sample and its redraws. A piece that must not be said is drawn anew, given what was said before it."""
        ids: list[int] = []
        for attempt in range(ATTEMPTS if draw.temperature else 1):
            said = self.server.complete(
                [*row.prompt, *ids],
                draw,
                most=self.settings.max_new_tokens - len(ids),
                seed=_seed(self.seed, step, row.index, attempt),
            )
            fit = list(takewhile(self._is_sayable, said.ids))
            ids += fit
            if len(fit) == len(said.ids):
                return Continuation(ids, ended=said.stopped), attempt
        raise self._lost(f"says pieces again and again that it was told not to say ({said.ids[len(fit)]} for one)")

    def _draw_of(self, model: PreTrainedModel) -> Draw:
        rows = model.get_input_embeddings().num_embeddings
        never = [token for token in range(rows) if not self._is_sayable(token)]
        return Draw(self.settings.temperature, self.settings.top_p, self.stops.stop_ids, never)

    def _is_sayable(self, token: int) -> bool:
        return token < len(self.sayable) and self.sayable[token]

    def _refresh(self, model: PreTrainedModel, row: Row) -> None:
        """Hand over the weights; every process takes part, and remembers what they make of a row of its own."""
        ids = [*row.prompt, *row.response]
        self._probe = Probe(ids, _logprobs(model, ids))
        self.accelerator.wait_for_everyone()  # nobody samples any more
        if self.accelerator.is_main_process:
            write_weights(model, self.folder)
            self.server.load(self.folder)
        self.accelerator.wait_for_everyone()

    def _require_weights(self) -> float:
        """Mean distance in nats of the server's log-probabilities from the student's at the last refresh."""
        gap = self._gap()
        if gap > GAP:  # it was started anew, perhaps
            self.server.load(self.folder)
            gap = self._gap()
        if gap > GAP:
            raise self._lost(
                f"computes another model than the student: log-probabilities are {gap:.2f} nats apart, although it has "
                f"read {self.folder}"
            )
        return gap

    def _gap(self) -> float:
        told = self.server.logprobs(self._probe.ids)
        return float(np.mean(np.abs(np.subtract(told, self._probe.logprobs))))

    def _lost(self, what: str) -> EnvironmentLack:
        assert self.server.step is not None, "it was asked for samples"
        return EnvironmentLack(
            f"the rollout server at {self.server.url} {what} (step {self.server.step + 1}). Start it for this run "
            f"alone ({self.server.command}) and go on with --resume."
        )


def write_weights(model: PreTrainedModel, folder: Path) -> None:
    """The model's weights as safetensors in a folder. A file that a server may have mapped is replaced, not written
    over."""
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        save_model(model, partial)
        for file in (*partial.glob("*.safetensors"), *partial.glob("*.safetensors.index.json")):
            file.replace(folder / file.name)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise EnvironmentLack(f"can't write {folder}: {reason}. Free some space and --resume.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@torch.no_grad()
def _logprobs(model: PreTrainedModel, ids: Sequence[int]) -> list[float]:
    """Log-probability in nats of each token but the first."""
    was_training = model.training
    model.eval()
    ids_1T = torch.tensor([list(ids)], device=model.device)
    logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0, :-1].float()
    model.train(was_training)
    told_T = logits_TV.log_softmax(-1).gather(1, ids_1T[0, 1:, None]).squeeze(1)
    return [float(value) for value in told_T.tolist()]


def _seed(*parts: int) -> int:
    """A seed of 63 bits, as far apart for neighbouring steps and rows as for others."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
