"""What a signal returns: sums and counts for each row, so that any grouping (batch, rank, language) can be averaged.

Shape suffixes: B rows, T response positions, V vocabulary. All values are in nats unless said otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Sums:
    """A quantity that was added up row by row: its mean over any set of rows is Σ total / Σ count."""

    total_B: Tensor
    """Sum of the quantity over each row's valid items."""

    count_B: Tensor
    """Number of valid items of each row (tokens, or 1 for a pair)."""


@dataclass(frozen=True)
class SignalResult(Sums):
    """One signal over one micro-batch. `total_B` carries the gradient; the caller divides by the *global* count."""

    metrics: Mapping[str, Sums] = field(default_factory=dict)
    """Detached quantities to log, by name."""
