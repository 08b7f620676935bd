"""log π(y_t | x, y<t): what the likelihood signals and the sequence signal are made of."""

from functools import partial

import torch
from torch import Tensor

from dudi_kit.signals.chunks import at_least_fp32, chunked


def token_logprobs(
    logits_BTV: Tensor,
    ids_BT: Tensor,
    mask_BT: Tensor | None = None,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Tensor:
    """log softmax(logits/τ)[id] = logit[id]/τ − logsumexp(logits/τ) → logprob_BT, in nats, fp32 or better.

    `logits_BTV[:, t]` predict `ids_BT[:, t]`: the caller has shifted. Positions outside the mask give 0, get no
    gradient and are not read (ids and logits may be anything there), so that `.sum(-1)` is log p of a whole response.
    No log-softmax of the whole batch is ever held: chunk by chunk, see `chunks`.
    """
    if mask_BT is None:
        mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    mask_BT = mask_BT.bool()
    valid_N = chunked(partial(_logprob, temperature), logits_BTV, ids_BT, chunk, mask=mask_BT)
    return valid_N.new_zeros(mask_BT.shape).masked_scatter(mask_BT, valid_N)


def _logprob(temperature: float, logits_NV: Tensor, ids_N: Tensor) -> Tensor:
    logits_NV = logits_NV.to(at_least_fp32(logits_NV.dtype))
    logits_NV = logits_NV if temperature == 1 else logits_NV / temperature
    return logits_NV.gather(-1, ids_N.unsqueeze(-1)).squeeze(-1) - logits_NV.logsumexp(-1)
