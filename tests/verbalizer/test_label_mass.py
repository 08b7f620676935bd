"""The moved mass: by hand, against whole responses one by one, and what it leaves alone."""

import itertools
import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from dudi_kit.verbalizer.label_words.mass import KEPT, move_label_mass
from dudi_kit.verbalizer.label_words.words import Moves

Response = tuple[int, ...]


def logits_of(*rows: Sequence[Sequence[float]]) -> Tensor:
    """Probabilities [B, R, V], as logits that are off by a constant."""
    return torch.tensor(rows, dtype=torch.float64).log() + 3.7


def moves(sources: Sequence[Sequence[int]], targets: Sequence[Response], own: Sequence[int] = ()) -> Moves:
    own = own or sorted({target[0] for target in targets})
    return Moves(tuple(map(tuple, sources)), tuple(targets), tuple(own))


# --- by hand


def test_mass_at_the_first_position_by_hand() -> None:
    logits = logits_of([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]])
    mass = move_label_mass(logits, [moves([[2, 3], []], [(0,), (1,)])], [[0, 3]])
    moved = 0.99 * 0.7
    torch.testing.assert_close(logits[0, 0].softmax(-1).tolist(), [0.1 + moved, 0.2, 0.003, 0.004])
    torch.testing.assert_close(logits[0, 1].softmax(-1).tolist(), [0.1, 0.2, 0.3, 0.4])
    assert mass.moved.tolist() == pytest.approx([moved])
    assert mass.at_home.tolist() == pytest.approx([0.3])
    assert mass.declared.tolist() == [1.0]


def test_moved_mass_goes_on_as_its_word_by_hand() -> None:
    # the targets are 0 1 and 0 2: where the response is 0 1, both are still open at the second position
    logits = logits_of([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]])
    move_label_mass(logits, [moves([[3], [2]], [(0, 1), (0, 2)])], [[0, 1, 3]])
    first, second = 0.99 * 0.4, 0.99 * 0.3
    torch.testing.assert_close(logits[0, 0].softmax(-1).tolist(), [0.1 + first + second, 0.2, 0.3 * KEPT, 0.4 * KEPT])
    whole = 0.1 + first + second
    expected = [0.025, 0.025 + first, 0.025 + second, 0.025]
    torch.testing.assert_close(logits[0, 1].softmax(-1).tolist(), [value / whole for value in expected])
    torch.testing.assert_close(logits[0, 2].softmax(-1).tolist(), [0.1, 0.2, 0.3, 0.4])  # the word is over


def test_a_teacher_that_speaks_the_language_already_is_left_alone() -> None:
    logits = torch.tensor([[[20.0, -30.0, -30.0], [1.0, 2.0, 3.0]]], dtype=torch.float64)
    before = logits.softmax(-1)
    mass = move_label_mass(logits, [moves([[1], []], [(0, 1), (2,)])], [[0, 1]])
    torch.testing.assert_close(logits.softmax(-1), before)
    assert mass.moved.item() == pytest.approx(0, abs=1e-20)
    assert mass.at_home.item() == pytest.approx(1)


# --- against all responses of a toy teacher

PIECES, LONGEST = 4, 3


class Toy:
    """A teacher that says exactly `LONGEST` pieces, each beginning with a distribution of its own."""

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        beginnings = [b for n in range(LONGEST) for b in itertools.product(range(PIECES), repeat=n)]
        self.next = {b: torch.randn(PIECES, generator=generator).double() * scale for b in beginnings}

    def logits(self, response: Response) -> Tensor:
        return torch.stack([self.next[response[:t]] for t in range(LONGEST)]).unsqueeze(0).clone()

    def joint(self, told: Mapping[Response, Tensor]) -> dict[Response, float]:
        """Probability of every response, from a distribution of the next piece after every beginning."""
        return {
            response: math.prod(float(told[response[:t]][response[t]]) for t in range(LONGEST))
            for response in itertools.product(range(PIECES), repeat=LONGEST)
        }


def moved_joint(toy: Toy, move: Moves) -> dict[Response, float]:
    """What the change means for whole responses, written down one by one.

    A response that begins with a source piece becomes one that begins with the target, and goes on after it as the
    teacher would there.
    """
    plain = {beginning: logits.softmax(-1) for beginning, logits in toy.next.items()}
    result = dict.fromkeys(itertools.product(range(PIECES), repeat=LONGEST), 0.0)
    label_of = {piece: i for i, sources in enumerate(move.sources) for piece in sources}
    for response, probability in toy.joint(plain).items():
        if response[0] not in label_of:
            result[response] += probability
            continue
        result[response] += KEPT * probability
        target = move.targets[label_of[response[0]]]
        for ending in itertools.product(range(PIECES), repeat=LONGEST - len(target)):
            whole = target + ending
            onward = math.prod(float(plain[whole[:t]][whole[t]]) for t in range(len(target), LONGEST))
            result[whole] += (1 - KEPT) * probability * onward
    return result


CASES = {
    "one piece each": moves([[2], [3]], [(0,), (1,)]),
    "two pieces": moves([[2], [3]], [(0, 3), (1, 0)]),
    "the same first piece": moves([[2], [3]], [(0, 1), (0, 2)], own=(0, 1)),
    "a word that begins another": moves([[2], [3]], [(0,), (0, 2)], own=(0, 1)),
    "longer and longer": moves([[1], [2], [3]], [(0,), (0, 1), (0, 1, 2)]),
    "three pieces, nothing to move for one label": moves([[], [2, 3]], [(0, 0, 1), (1, 1, 1)]),
    "the same target twice": moves([[2], [3]], [(0, 1), (0, 1)]),
}


@pytest.mark.parametrize("move", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("seed", range(3))
def test_every_response_has_the_probability_that_the_rule_says(move: Moves, seed: int) -> None:
    toy = Toy(seed, scale=2.0)
    told: dict[Response, Tensor] = {}
    for response in itertools.product(range(PIECES), repeat=LONGEST):
        logits = toy.logits(response)
        move_label_mass(logits, [move], [response])
        for t in range(LONGEST):
            after = logits[0, t].softmax(-1)
            torch.testing.assert_close(told.setdefault(response[:t], after), after)  # whatever comes later
    ours, expected = toy.joint(told), moved_joint(toy, move)
    assert sum(ours.values()) == pytest.approx(1)
    assert ours == pytest.approx(expected, abs=1e-12)


# --- properties


def random_moves(generator: torch.Generator, pieces: int) -> Moves:
    order = torch.randperm(pieces, generator=generator).tolist()
    targets = [tuple(order[i : i + 1] + torch.randint(pieces, (i,), generator=generator).tolist()) for i in range(3)]
    return moves([order[3:5], order[5:6], order[6:9]], targets, own=order[:3])


@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    [
        (torch.float64, 30, 1e-10),
        (torch.float32, 30, 1e-5),
        (torch.bfloat16, 2, 0.01),
    ],  # 30: some are all but impossible
)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_and_no_logit_stops_being_a_number(
    seed: int, dtype: torch.dtype, scale: float, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(6, 5, 30, generator=generator) * scale).to(dtype)
    rows = [random_moves(generator, 30) for _ in range(6)]
    responses = [[*row.targets[b % 3], 29] for b, row in enumerate(rows)]
    before = logits[:, 0].double().softmax(-1)
    mass = move_label_mass(logits, rows, responses)
    assert logits.isfinite().all()
    after = logits[:, 0].double().softmax(-1)
    for b, row in enumerate(rows):
        for sources, target in zip(row.sources, row.targets, strict=True):
            moved = (1 - KEPT) * before[b, list(sources)].sum()
            assert float(after[b, target[0]]) == pytest.approx(float(before[b, target[0]] + moved), abs=tolerance)
        others = [p for p in range(30) if p not in {t[0] for t in row.targets} | {p for s in row.sources for p in s}]
        torch.testing.assert_close(after[b, others], before[b, others], atol=tolerance, rtol=0)
    assert ((mass.moved >= 0) & (mass.moved <= 1)).all()


def test_rows_that_declare_nothing_are_not_read_and_not_changed() -> None:
    logits = torch.randn(3, 2, 9, generator=torch.Generator().manual_seed(0)).double()
    logits[0] = float("nan")
    before = logits.clone()
    mass = move_label_mass(logits, [None, moves([[2]], [(0,)]), None], [[0, 1], [0], [0]])
    assert torch.equal(logits[2], before[2])
    assert logits[0].isnan().all()
    assert not torch.equal(logits[1], before[1])
    assert mass.declared.tolist() == [0, 1, 0]
    assert mass.moved[[0, 2]].tolist() == [0, 0]


def test_rows_do_not_change_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 5, 30, generator=generator).double()
    rows = [random_moves(generator, 30) for _ in range(4)]
    responses = [[*row.targets[2], 29] for row in rows]
    whole = logits.clone()
    mass = move_label_mass(whole, rows, responses)
    for b in range(4):
        alone = logits[b : b + 1].clone()
        part = move_label_mass(alone, rows[b : b + 1], responses[b : b + 1])
        torch.testing.assert_close(alone, whole[b : b + 1])
        torch.testing.assert_close(part.moved, mass.moved[b : b + 1])


def test_no_row_at_all_is_no_trouble() -> None:
    mass = move_label_mass(torch.zeros(0, 0, 5), [], [])
    assert mass.moved.shape == (0,)


def test_padding_beyond_the_response_is_never_touched() -> None:
    logits = torch.zeros(1, 4, 5).double()
    logits[0, 2:] = float("nan")
    move_label_mass(logits, [moves([[3]], [(0, 1, 2)])], [[0, 1]])  # cut before its word is over
    assert logits[0, :2].isfinite().all()
    assert logits[0, 2:].isnan().all()
