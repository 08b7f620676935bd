"""In which order training rows are seen: a function of seed and step, not of what was seen before.

Any process can compute the rows of any step, so that neither the number of processes, nor micro-batches, nor a resumed
run change what is trained on.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dudi_kit.errors import DataError

Group = tuple[str, str]
"""(language, dataset)"""

PICKS, ORDER = 0, 1
"""Two uses of the seed that must not share their random numbers."""


class Mixture:
    """The endless sequence of training rows, an epoch after the other.

    groups: (language, dataset) of each training row. weights: how often the rows of a dataset are drawn in an epoch,
    by its name, 1 where it has none; 0 leaves it out. temperature: τ, a language with n = Σ weight·rows gets a share in
    proportion to n^(1/τ). seed: of all shuffles.

    An epoch has Σ weight·rows rows, rounded. With τ = 1 and all weights 1 it is a permutation of the rows. Otherwise
    each group has a quota of it, and walks through permutations of its own rows that go on from epoch to epoch, so that
    two rows of a group never differ by more than one in how often they were seen.

    DataError: nothing to draw, or a dataset whose weight is so small that its quota in a language is 0.
    """

    def __init__(
        self, groups: Sequence[Group], weights: Mapping[str, float], temperature: float = 1.0, seed: int = 0
    ) -> None:
        members: dict[Group, list[int]] = {}
        for row, group in enumerate(groups):
            members.setdefault(group, []).append(row)
        self._members = {group: np.array(members[group]) for group in sorted(members) if weights.get(group[1], 1.0) > 0}
        masses = {group: weights.get(group[1], 1.0) * len(rows) for group, rows in self._members.items()}
        self.rows_per_epoch = round(sum(masses.values()))
        """Rows of one epoch."""
        if self.rows_per_epoch == 0:
            raise DataError(
                f"{len(groups):,} training rows with their weights make no epoch. Raise a dataset's weight."
            )
        self.quotas = _quotas(masses, temperature, self.rows_per_epoch)
        """(language, dataset) → its rows in each epoch."""
        for (language, dataset), quota in self.quotas.items():
            if quota == 0:
                raise DataError(
                    f"dataset {dataset}: no row of {language!r} fits in an epoch of {self.rows_per_epoch:,} rows. "
                    "Raise its weight or data.language_temperature, or set the weight to 0 to leave the dataset out."
                )
        self._seed = seed
        self._epochs: dict[int, list[int]] = {}

    def order(self, epoch: int) -> list[int]:
        """The rows of an epoch (counted from 0) in the order in which they are seen."""
        if epoch not in self._epochs:
            picks = [self._picks(i, group, epoch) for i, group in enumerate(self._members)]
            order: list[int] = self._random(ORDER, epoch).permutation(np.concatenate(picks)).tolist()
            # Two epochs are enough: a step and the next one, which is looked at ahead, seldom touch a third.
            self._epochs = {**dict(list(self._epochs.items())[-1:]), epoch: order}
        return self._epochs[epoch]

    def rows(self, step: int, batch_size: int) -> list[int]:
        """The `batch_size` rows of an optimizer step (counted from 0); batches run on over an epoch's end."""
        start, stop = step * batch_size, (step + 1) * batch_size
        rows: list[int] = []
        while start < stop:
            epoch, offset = divmod(start, self.rows_per_epoch)
            rows += self.order(epoch)[offset : offset + stop - start]
            start = step * batch_size + len(rows)
        return rows

    def _picks(self, index: int, group: Group, epoch: int) -> NDArray[np.int64]:
        """The group's rows in an epoch: a stretch of the endless sequence of its permutations."""
        members, quota = self._members[group], self.quotas[group]
        start, stop = epoch * quota, (epoch + 1) * quota
        passes = range(start // len(members), math.ceil(stop / len(members)))
        walk = np.concatenate([self._random(PICKS, index, k).permutation(members) for k in passes])
        offset = passes.start * len(members)
        return walk[start - offset : stop - offset]

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self._seed, *key]))


def _quotas(masses: Mapping[Group, float], temperature: float, total: int) -> dict[Group, int]:
    """Whole rows of an epoch for each group, by the largest remainder; they sum to `total`."""
    languages: dict[str, float] = {}
    for (language, _), mass in masses.items():
        languages[language] = languages.get(language, 0.0) + mass
    # Over the largest, so that a small τ can't overflow.
    largest = max(languages.values())
    heats = {language: (mass / largest) ** (1 / temperature) for language, mass in languages.items()}
    scale = total / sum(heats.values())
    shares = {group: scale * heats[group[0]] * mass / languages[group[0]] for group, mass in masses.items()}
    quotas = {group: math.floor(share) for group, share in shares.items()}
    by_remainder = sorted(shares, key=lambda group: (quotas[group] - shares[group], group))
    for group in by_remainder[: total - sum(quotas.values())]:
        quotas[group] += 1
    return quotas
