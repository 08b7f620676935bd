"""The process in which the teacher answers: `python -m dudi_kit.pipeline RUN_DIR ANSWERS`.

A process of its own, so that all of the teacher's memory is free again before training begins. It adds each batch of
answers to the file at once: killed at any moment, it is called again and goes on with what lacks.
"""

import fcntl
import json
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from transformers import PreTrainedModel

from dudi_kit.console import err, fail, notice
from dudi_kit.data.asked import Answer, Request, answer_line, read_answers
from dudi_kit.data.encode import Encoder
from dudi_kit.errors import DudiError, EnvironmentLack, Exit
from dudi_kit.evaluate.progress import Advance, rich_track
from dudi_kit.models.generation import Choose, Stops, continue_prompts
from dudi_kit.pipeline.weights import loaded
from dudi_kit.plan.layout import RunDir
from dudi_kit.plan.models import context_of, encoder_of
from dudi_kit.plan.schema import read_plan
from dudi_kit.recipe.publish import recipe_from_resolved
from dudi_kit.train.drawing import Draw, Likeliest, Sayable


def ask(run: RunDir, file: Path) -> None:
    """Have the plan's teacher answer the run's requests, but for those whose answers are in the file."""
    requests = read_requests(run.requests)
    with _opened(file) as answers:
        known = read_answers([file])
        requests = [request for request in requests if request.key not in known]
        if not requests:
            return
        source = read_plan(run).teacher
        assert source is not None, "the recipe's checks refuse requests without a teacher"
        model = loaded(source, who="teacher.model")
        batch_size = recipe_from_resolved(run.resolved.read_text(encoding="utf-8")).evaluation.batch_size
        with rich_track(err)("asking the teacher", len(requests)) as advance:
            answer_all(
                model,
                encoder_of(source, who="teacher"),
                requests,
                batch_size=batch_size,
                keep=lambda batch: _append(answers, _lines(batch), file),
                progress=advance,
            )


def answer_all(
    model: PreTrainedModel,
    encoder: Encoder,
    requests: Sequence[Request],
    *,
    batch_size: int,
    keep: Callable[[list[tuple[Request, Answer]]], None],
    progress: Advance,
) -> None:
    """Answer requests in batches of like length, the longest first; `keep` gets each batch when it is done."""
    context = context_of(model.config.get_text_config())
    for group in _alike(requests):
        prompts = {request: encoder.prompt_ids(request.turns) for request in group}
        room = (context or 10**9) - group[0].max_new_tokens
        if too_long := [request for request in group if len(prompts[request]) > room]:
            keep([(request, Answer("", ended=False)) for request in too_long])
            progress(len(too_long))
        rest = sorted((r for r in group if len(prompts[r]) <= room), key=lambda r: -len(prompts[r]))
        for start in range(0, len(rest), batch_size):
            batch = rest[start : start + batch_size]
            said = continue_prompts(
                model,
                [prompts[request] for request in batch],
                Stops(encoder.stop_ids, encoder.pad_id),
                max_new_tokens=batch[0].max_new_tokens,
                choose=_choice(batch, Sayable(torch.ones(len(encoder.tokenizer), dtype=torch.bool))),
            )
            keep([(r, Answer(encoder.decode(c.ids), c.ended)) for r, c in zip(batch, said, strict=True)])
            progress(len(batch))


def _alike(requests: Sequence[Request]) -> list[list[Request]]:
    """Requests that are answered in the same way."""
    groups: dict[tuple[int, float], list[Request]] = {}
    for request in requests:
        groups.setdefault((request.max_new_tokens, request.temperature), []).append(request)
    return list(groups.values())


def _choice(batch: Sequence[Request], sayable: Sayable) -> Choose:
    """The likeliest piece for greedy answers; else each request draws numbers of its own, whatever batch it is in."""
    if batch[0].temperature == 0:
        return Likeliest(sayable)
    numbers = [
        np.random.default_rng((request.seed & 0xFFFFFFFF, int(request.key[:16], 16))).random(request.max_new_tokens)
        for request in batch
    ]
    return Draw(sayable, torch.from_numpy(np.stack(numbers)), temperature=batch[0].temperature)


def read_requests(file: Path) -> list[Request]:
    """The requests of a file, a line each."""
    lines = file.read_text(encoding="utf-8").split("\n")
    return [Request.from_json(json.loads(line)) for line in lines if line]


def _lines(batch: list[tuple[Request, Answer]]) -> bytes:
    return "".join(answer_line(request.key, answer) for request, answer in batch).encode()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file of answers, ours alone: recipes that share a teacher must not both ask it the same."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notice("waiting for another command that asks the same teacher")
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.read_bytes()[-1:] not in (b"", b"\n"):
            _append(file, b"\n", path)  # a kill tore the last line: it stays, and is no answer
        yield file


def _append(file: BinaryIO, content: bytes, path: Path) -> None:
    """Add to the file, on disk before we go on."""
    with _writing(path):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentLack(f"can't write {path}: {error.strerror or error}. Free some space.") from error


def main(arguments: list[str]) -> int:
    """Exit code of the process."""
    return alone(lambda: ask(RunDir(Path(arguments[0])), Path(arguments[1])))


def alone(job: Callable[[], None]) -> int:
    """Exit code of a process that does this; the reason of a failure is told on stderr."""
    try:
        job()
    except DudiError as error:
        fail(str(error))
        return error.exit_code
    except torch.OutOfMemoryError as error:
        fail(f"out of GPU memory while the teacher was asked: {error}. Lower evaluation.batch_size.")
        return Exit.ENVIRONMENT
    except KeyboardInterrupt:  # who started us says the rest
        return Exit.INTERRUPTED
    except Exception:  # whatever else escapes is our bug, and must not look like a fault of the recipe
        fail(f"this is a bug of dudi-kit, not yours; please report it:\n{traceback.format_exc()}")
        return Exit.BUG
    return Exit.OK
