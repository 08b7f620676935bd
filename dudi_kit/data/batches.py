"""The tensors that all models read: each row a prompt and its response without a gap, padded on the right.

Shapes: B rows, R response columns, L lines, T columns. A row has a line of its own, or shares one with others where
they are packed or share their prompt (below). What fills a line stands behind its rows, where causal attention never
looks: a model needs no mask, so that attention takes its quickest kernels and keeps no mask of B·T² for backward; and a
line is as long as the longest row, not as the longest prompt and the longest response together. The token in column t
is predicted at column t − 1.

Of rows that share a line, transformers is told by their positions, each of which begins at 0. Not every model heeds
them (`models.packing`).

Rows of one prompt, such as y and ỹ, may share it: it is read once, and behind it stand their responses, each of which
sees the prompt and itself (prefix sharing, arXiv 2410.20305). That takes a mask, so it is done where it is less work:

    prompt y         prompt y ỹ          columns of ỹ see those of the prompt, and not those of y;
    prompt ỹ                             its positions go on where the prompt's end
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dudi_kit.data.sending import sent

MULTIPLE = 16
"""Lengths are rounded up to it: a CPU makes new kernels for each new shape, which costs seconds."""

Block = list[int]
"""Rows, by number, that share a prompt; or one alone."""

Layout = Sequence[Sequence[Block]]
"""The blocks of each line."""


class Sharing(NamedTuple):
    """What there is to know of a model before rows share their prompt in a line that it reads."""

    hidden: int
    """Its width, for what a mask costs beside its layers."""

    window: int | None
    """Tokens that some layer sees at most; a row that is longer can share no prompt."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts with their responses. Ids and positions are int64, masks bool."""

    input_ids_LT: Tensor

    position_ids_LT: Tensor | None
    """Of rows that share lines, counted from the first token of each; what fills a line then counts as further rows,
    none longer than the longest. None where each row has its line: a model counts by itself."""

    segment_LT: Tensor | None
    """Where rows share prompts, the number of the prompt or response that a column belongs to; −1 what fills a line."""

    prompt_LT: Tensor | None
    """With it, that of its prompt."""

    response_ids_BR: Tensor

    response_mask_BR: Tensor
    """True on response tokens, the end-of-turn included; from lengths, so that pad may equal eos."""

    line_B: Tensor
    """Where the row lies among the lines."""

    asked_B: Tensor
    """Column of its last prompt token, which predicts its first response token."""

    said_B: Tensor
    """Column of its first response token, which predicts the second. It follows the prompt where that is not shared."""

    longest: int
    """Tokens of the longest row. Where each row has its line, columns from there on hold none."""

    @property
    def is_packed(self) -> bool:
        """Rows share lines."""
        return self.position_ids_LT is not None

    def predicted_at(self, row_N: Tensor, column_N: Tensor) -> tuple[Tensor, Tensor]:
        """Line and column at which response tokens are predicted, given by row and by column of the response."""
        follows_N = self.said_B[row_N] + column_N - 1
        return self.line_B[row_N], torch.where(column_N == 0, self.asked_B[row_N], follows_N)

    def sees(self) -> Tensor | None:
        """[L, T, T]: whether a column sees another. None where that follows from causality and positions alone."""
        if self.segment_LT is None or self.prompt_LT is None:
            return None
        seen_L1T = self.segment_LT.unsqueeze(1)
        own_LTT, prompt_LTT = seen_L1T == self.segment_LT.unsqueeze(2), seen_L1T == self.prompt_LT.unsqueeze(2)
        return (own_LTT | prompt_LTT).tril()

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        there: dict[str, Any] = {
            name: sent(value, device) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **there)


def join(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    multiple: int = MULTIPLE,
    sharing: Sharing | None = None,
) -> Batch:
    """Token ids → one batch, a line for each row, or for the rows of each prompt.

    prompts, responses: one for each row of the batch. A prompt has one token at least, since its last
    one predicts the first of the response; a response may be empty. T and R are rounded up to `multiple`, and R is
    never 0. sharing: None where the model can't read rows that share their prompt.
    """
    rows = _Rows(prompts, responses)
    layouts = [[[block] for block in blocks] for blocks in rows.blocks(sharing)]
    return _laid(rows, _least_work(rows, layouts, sharing, multiple), pad_id, multiple)


def pack(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    pad_id: int,
    multiple: int = MULTIPLE,
    sharing: Sharing | None = None,
) -> Batch:
    """The same rows with as little padding as first-fit decreasing leaves: lines as long as the longest row or block.

    The longest are placed first, each into the first line that has room for it.
    """
    rows = _Rows(prompts, responses)
    layouts = [_first_fit(rows, blocks, multiple) for blocks in rows.blocks(sharing)]
    return _laid(rows, _least_work(rows, layouts, sharing, multiple), pad_id, multiple)


def work(lines: int, columns: int, hidden: int, *, masked: bool) -> float:
    """Of a layer of width H that reads these lines, as a share of something that all layouts have in common.

    It has some 12·H² parameters, each multiplied once for a token. Its attention multiplies 2·T·H numbers for a token
    with a mask, and half as many without, where only what lies behind is looked at.
    """
    return lines * columns * (6 * hidden + (columns if masked else columns / 2))


def rounded(tokens: int, multiple: int = MULTIPLE) -> int:
    """Columns for so many tokens."""
    return -(-tokens // multiple) * multiple


class _Rows:
    """Prompts and responses, by the numbers of their rows."""

    def __init__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> None:
        assert len(prompts) == len(responses) > 0, "one of each for every row"
        assert all(prompts), "the last token of a prompt predicts the first of the response"
        self.prompts, self.responses = prompts, responses
        self.longest = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))

    def blocks(self, sharing: Sharing | None) -> list[list[Block]]:
        """Each row alone; then those of one prompt together, if the model reads that and a prompt comes twice."""
        alone = [[row] for row in range(len(self.prompts))]
        if sharing is None or self.longest > (sharing.window or self.longest):
            return [alone]
        together: dict[tuple[int, ...], Block] = {}
        for row, prompt in enumerate(self.prompts):
            together.setdefault(tuple(prompt), []).append(row)
        return [alone, list(together.values())] if len(together) < len(alone) else [alone]

    def length(self, block: Block) -> int:
        """Tokens of its prompt and its responses."""
        return len(self.prompts[block[0]]) + sum(len(self.responses[row]) for row in block)

    def columns(self, lines: Layout, multiple: int) -> int:
        """Of the longest line."""
        return rounded(max(sum(map(self.length, blocks)) for blocks in lines), multiple)


def _least_work(rows: _Rows, layouts: Sequence[Layout], sharing: Sharing | None, multiple: int) -> Layout:
    """The first of equals."""
    if sharing is None:
        return layouts[0]

    def of(lines: Layout) -> float:
        masked = len(lines) < len(rows.prompts)
        return work(len(lines), rows.columns(lines, multiple), sharing.hidden, masked=masked)

    return min(layouts, key=of)


class _Segment(NamedTuple):
    """A prompt or a response in its line."""

    line: int
    start: int
    ids: Sequence[int]
    position: int
    """Of its first token."""

    prompt: int
    """Number of its prompt among the segments; its own where it is one."""

    row: int | None
    """None of a prompt."""


def _segments(rows: _Rows, lines: Layout) -> Iterator[_Segment]:
    number = 0
    for line, blocks in enumerate(lines):
        start = 0
        for block in blocks:
            prompt, ids = number, rows.prompts[block[0]]
            yield _Segment(line, start, ids, 0, prompt, None)
            start += len(ids)
            for row in block:
                yield _Segment(line, start, rows.responses[row], len(ids), prompt, row)
                start += len(rows.responses[row])
            number += 1 + len(block)


def _laid(rows: _Rows, lines: Layout, pad_id: int, multiple: int) -> Batch:
    columns = rows.columns(lines, multiple)
    ids_LT = torch.full((len(lines), columns), pad_id, dtype=torch.long)
    position_LT = _filler_positions(rows, lines, columns)
    segment_LT, prompt_LT = torch.full_like(ids_LT, -1), torch.full_like(ids_LT, -1)
    line_of, asked, said = ([0] * len(rows.prompts) for _ in range(3))
    before = 0
    for number, segment in enumerate(_segments(rows, lines)):
        end = segment.start + len(segment.ids)
        there = segment.line, slice(segment.start, end)
        ids_LT[there] = torch.tensor(segment.ids, dtype=torch.long)
        position_LT[there] = torch.arange(len(segment.ids)) + segment.position
        segment_LT[there], prompt_LT[there] = number, segment.prompt
        if segment.row is None:
            before = end - 1
        else:
            line_of[segment.row], asked[segment.row], said[segment.row] = segment.line, before, segment.start
    ids_BR, mask_BR = pad(rows.responses, pad_id, side="right", multiple=multiple)
    shares_prompts = any(len(block) > 1 for blocks in lines for block in blocks)
    return Batch(
        input_ids_LT=ids_LT,
        position_ids_LT=position_LT if len(lines) < len(rows.prompts) else None,
        segment_LT=segment_LT if shares_prompts else None,
        prompt_LT=prompt_LT if shares_prompts else None,
        response_ids_BR=ids_BR,
        response_mask_BR=mask_BR,
        line_B=torch.tensor(line_of),
        asked_B=torch.tensor(asked),
        said_B=torch.tensor(said),
        longest=rows.longest,
    )


def _filler_positions(rows: _Rows, lines: Layout, columns: int) -> Tensor:
    """[L, T] of what fills the lines, behind their rows."""
    position_LT = torch.zeros((len(lines), columns), dtype=torch.long)
    for line, blocks in enumerate(lines):
        used = sum(map(rows.length, blocks))
        position_LT[line, used:] = torch.arange(columns - used) % rows.longest
    return position_LT


def _first_fit(rows: _Rows, blocks: Sequence[Block], multiple: int) -> Layout:
    """Lines as long as the longest block; the longest are placed first, each into the first line with room for it."""
    room = rounded(max(map(rows.length, blocks)), multiple)
    lines: list[list[Block]] = []
    left: list[int] = []
    for block in sorted(blocks, key=rows.length, reverse=True):
        length = rows.length(block)
        number = next((i for i, free in enumerate(left) if free >= length), len(lines))
        if number == len(lines):
            lines.append([])
            left.append(room)
        lines[number].append(block)
        left[number] -= length
    return lines


def pad(
    sequences: Sequence[Sequence[int]], pad_id: int, *, side: str, multiple: int = MULTIPLE
) -> tuple[Tensor, Tensor]:
    """Ids [B, C] padded on the `left` or `right`, and the mask of what is real; C is rounded up to `multiple`."""
    longest = max(1, *(len(ids) for ids in sequences)) if sequences else 1
    columns = rounded(longest, multiple)
    ids_BC = torch.full((len(sequences), columns), pad_id, dtype=torch.long)
    mask_BC = torch.zeros((len(sequences), columns), dtype=torch.bool)
    for row, ids in enumerate(sequences):
        place = slice(columns - len(ids), columns) if side == "left" else slice(0, len(ids))
        ids_BC[row, place] = torch.tensor(ids, dtype=torch.long)
        mask_BC[row, place] = True
    return ids_BC, mask_BC
