"""Memory of the loss: what the models predict, and the one pass over it. Arithmetic on `train.onepass`, in bytes."""

from typing import NamedTuple

from dudi_kit.data.batches import rounded
from dudi_kit.models.reading import FEW
from dudi_kit.plan.job import BYTES, FP32, Inputs, Job
from dudi_kit.plan.shape import ModelShape
from dudi_kit.signals.chunks import STRIP_ELEMENTS, chunk_bytes

TEMPORARIES = 10
"""fp32 tensors of a strip's size while a divergence is worked out: both sides' logits, distributions and their
logarithms, a mixture, the pull and the gradient."""


def student_predictions(job: Job, inputs: Inputs) -> int:
    """The student's at response tokens."""
    whole = student_is_whole(job, inputs)
    return predicted(job.student, tokens(job, inputs, job.sides), job.size, whole=whole)


def teacher_predictions(job: Job, inputs: Inputs) -> int:
    """The teacher's, from its pass to the end of the loss."""
    if job.teacher is None or not job.teacher_terms:
        return 0
    theirs, size = tokens(job, inputs, job.teacher_terms), BYTES[job.teacher_dtype]
    return predicted(job.teacher, theirs, size, whole=teacher_is_whole(job, inputs))


def loss_bytes(job: Job, inputs: Inputs) -> int:
    """Beside the frozen models and the activations, while the loss is made or where backward begins, whichever is more.

    In the pass: predictions, their gradient, a chunk of logits of both, a strip's temporaries, and the gradient of the
    head in fp32. Then, in half precision, that gradient is there twice.
    """
    mine = student_predictions(job, inputs)
    passing = 2 * mine + teacher_predictions(job, inputs) + chunks(job, inputs) + strip_bytes(job, inputs)
    if student_is_whole(job, inputs):
        return max(passing, 3 * mine + matrix(job, job.size))
    return max(
        passing + matrix(job, FP32), 2 * mine + matrix(job, FP32) + (matrix(job, job.size) if job.size < FP32 else 0)
    )


def strip_bytes(job: Job, inputs: Inputs) -> int:
    """The temporaries of a strip."""
    return TEMPORARIES * FP32 * min(STRIP_ELEMENTS, tokens(job, inputs, job.sides) * widest(job))


def chunks(job: Job, inputs: Inputs) -> int:
    """Logits of a chunk, of each model that is read by its hidden states. It has as many positions for both."""
    mine = tokens(job, inputs, job.sides)
    positions = min(mine, chunk_bytes(job.size, grouped=job.has_groups) // (widest(job) * job.size) or 1)
    found = 0 if student_is_whole(job, inputs) else positions * job.student.vocabulary * job.size
    theirs = tokens(job, inputs, job.teacher_terms)
    if job.teacher is None or not theirs:
        return found
    each = _told_bytes(job, whole=teacher_is_whole(job, inputs))
    if job.spans:  # the log-probabilities of its own tokens come first, in chunks of its own size
        own = BYTES[job.teacher_dtype]
        positions = max(positions, chunk_bytes(own) // (job.teacher.vocabulary * own))
    return found + min(positions, theirs) * job.teacher.vocabulary * each


def _told_bytes(job: Job, *, whole: bool) -> int:
    """Of one of the teacher's logits while a chunk is judged. whole: what it says live is there anyway.

    What was sketched of it comes in fp32. What is kept is put together with a copy of what is live.
    """
    own = BYTES[job.teacher_dtype]
    if job.cache == "none":
        return 0 if whole else own
    kept = {"hidden": own, "top_k": FP32}[job.cache]
    return kept if job.teacher_terms == 1 else kept + own + max(kept, own)


def widest(job: Job) -> int:
    """Pieces of the larger of the vocabularies that are compared."""
    return max(job.student.vocabulary, job.teacher.vocabulary if job.teacher and job.teacher_terms else 0)


def predicted(shape: ModelShape, positions: int, size: int, *, whole: bool) -> int:
    """Logits where they are few, else hidden states."""
    return positions * (shape.vocabulary if whole else shape.hidden) * size


def student_is_whole(job: Job, inputs: Inputs) -> bool:
    """It is asked for its own logits."""
    return job.stage < 3 and tokens(job, inputs, job.sides) * job.student.vocabulary <= FEW


def teacher_is_whole(job: Job, inputs: Inputs) -> bool:
    """The same of the teacher."""
    assert job.teacher is not None, "asked for a teacher that there is"
    few = tokens(job, inputs, job.teacher_terms) * job.teacher.vocabulary <= FEW
    return few and job.placement != "sharded"


def matrix(job: Job, size: int) -> int:
    """The gradient of the head's weights; none under an adapter."""
    return job.student.vocabulary * job.student.hidden * size if job.adapter is None else 0


def tokens(job: Job, inputs: Inputs, sides: int) -> int:
    """Response tokens of a micro-batch at most."""
    return inputs.rows * sides * response_columns(job, inputs)


def response_columns(job: Job, inputs: Inputs) -> int:
    """Columns of the longer of y and ỹ."""
    sides = {"corpus": inputs.response, "rollout": rounded(job.new_tokens)}
    return max(sides[side] for side in job.reads())


class Lines(NamedTuple):
    """What a model reads at once."""

    lines: int
    columns: int


def student_lines(job: Job, inputs: Inputs) -> Lines:
    """Of the student: a prompt with its y, its ỹ, or both."""
    sides = {"corpus": inputs.row, "rollout": rounded(inputs.prompt + min(job.new_tokens, inputs.apart))}
    apart = Lines(inputs.rows * job.sides, max(sides[side] for side in job.reads()))
    return _most(job, apart, Lines(inputs.rows, rounded(inputs.row + job.new_tokens)), inputs.apart)


def teacher_lines(job: Job, inputs: Inputs) -> Lines:
    """Of the teacher."""
    rollout = rounded(inputs.teacher_prompt + min(job.new_tokens, inputs.teacher_apart))
    sides = {"off_policy": inputs.teacher_row, "on_policy": rollout}
    apart = Lines(inputs.rows * job.teacher_terms, max(sides[term] for term in sides if term in job.signals))
    return _most(job, apart, Lines(inputs.rows, rounded(inputs.teacher_row + job.new_tokens)), inputs.teacher_apart)


def _most(job: Job, apart: Lines, shared: Lines, longest_apart: int) -> Lines:
    """The larger of both ways in which a pair may lie, as long as its rollout comes out."""
    if longest_apart >= job.new_tokens:
        return apart
    return shared if longest_apart == 0 else max(apart, shared, key=lambda made: made.lines * made.columns)
