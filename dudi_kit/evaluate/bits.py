"""Bits per byte of the held-out responses, by language.

Why bits per byte: a loss per token depends on how the tokenizer cuts (a larger vocabulary has fewer, harder tokens), so
it can't compare a teacher and a student of different families. The same nats over the bytes of the same text can.

The subtleties:
- It is conditional: log p(response | prompt), each model under its own chat template. The prompt's tokens don't count.
- The end of turn counts above the line and not below it: a model that doesn't know when to stop pays for it. So short
  responses cost more for each byte, and values are comparable on the same rows only.
- The text is scored in the one way in which its tokenizer cuts it. Other cuts of the same bytes would add probability,
  so the value is an upper bound, a little looser for tokenizers that cut finely.
- Summed over a language before dividing: a long response weighs more than a short one.
- Thai or Burmese letters take three bytes, so their values are lower: compare within a language, not across.
- A row too long for one tokenizer may fit another's. It is left out and counted; `BitsPerByte.bytes` tells whether two
  models saw the same text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from dudi_kit.data.batches import Batch, join
from dudi_kit.data.encode import Encoded, Encoder
from dudi_kit.data.example import Example
from dudi_kit.data.ledger import Ledger
from dudi_kit.evaluate.batching import of_like_length
from dudi_kit.evaluate.progress import Advance
from dudi_kit.evaluate.scores import BitsPerByte
from dudi_kit.models.reading import response_nats


def bits_per_byte(
    model: PreTrainedModel,
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    max_length: int,
    batch_size: int,
    ledger: Ledger,
    progress: Advance | None = None,
) -> dict[str, BitsPerByte]:
    """Language → negative log-likelihood of its responses, with their tokens and bytes.

    max_length: of prompt and response together, in tokens; longer rows are left out and counted in `ledger`.
    A language none of whose rows fits is absent.
    """
    rows: list[Encoded] = []
    for example in examples:
        encoded = encoder.encode(example, max_length=max_length, on_too_long="skip", ledger=ledger)
        if encoded is not None:
            rows.append(encoded)
    totals: dict[str, BitsPerByte] = {}
    with _evaluating(model):
        for places in of_like_length([len(row.prompt_ids) + len(row.response_ids) for row in rows], batch_size):
            some = [rows[i] for i in places]
            for row, nats in zip(
                some, response_nats(model, _batch(some, encoder.pad_id).to(model.device)), strict=True
            ):
                language = row.example.language
                totals[language] = _added(totals.get(language), row, nats)
            if progress is not None:
                progress(len(some))
    return totals


def _batch(rows: Sequence[Encoded], pad_id: int) -> Batch:
    return join([row.prompt_ids for row in rows], [row.response_ids for row in rows], pad_id=pad_id)


def _added(total: BitsPerByte | None, row: Encoded, nats: float) -> BitsPerByte:
    before = total or BitsPerByte(nats=0.0, tokens=0, bytes=0)
    return BitsPerByte(
        nats=before.nats + nats,
        tokens=before.tokens + len(row.response_ids),
        bytes=before.bytes + len(row.example.response.encode()),
    )


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout, and as it was afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
