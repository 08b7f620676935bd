"""`teacher.cache`: what is kept of a frozen teacher's answers."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from dudi_kit.recipe.schema.base import Strict, tag_by


class NoCache(Strict):
    """The teacher is asked for every row in every epoch."""

    type: Literal["none"] = "none"


class TopKCache(Strict):
    """Of each position the likeliest pieces, the mass of all others, and a sketch of how it is shared out among them:
    some 100 bytes a token with `k` 32 and `rank` 64. How far that is from the teacher is measured when it is written,
    and told by `dudi-kit cache`."""

    type: Literal["top_k"]
    k: Annotated[int, Field(ge=10, le=250)] = 32
    """Pieces kept of each position at most; of those below a probability of 10⁻⁴ only the first ten. The piece of the
    response is kept always."""

    rank: Annotated[int, Field(ge=1, le=512)] = 64
    """Directions of the sketch: the numbers from which the logits of all other pieces are estimated."""


class HiddenCache(Strict):
    """The teacher's last hidden states in its own dtype: exact, and 2 to 16 KB a token. Its output head stays in
    memory."""

    type: Literal["hidden"]


TeacherCache = Annotated[
    Annotated[NoCache, Tag("none")] | Annotated[TopKCache, Tag("top_k")] | Annotated[HiddenCache, Tag("hidden")],
    Discriminator(tag_by("type", default="none")),
]
