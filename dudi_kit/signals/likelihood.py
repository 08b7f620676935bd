"""Signals on the reference response alone: plain and dynamic fine-tuning. They need no teacher."""

from torch import Tensor

from dudi_kit.signals.result import SignalResult


def sft_signal(logprob_BT: Tensor, mask_BT: Tensor) -> SignalResult:
    """−log π(y_t|x,y<t), summed over the valid tokens of each row; in nats, the count is their number."""
    return _summed(-logprob_BT, mask_BT)


def dft_signal(logprob_BT: Tensor, mask_BT: Tensor) -> SignalResult:
    """−sg(π(y_t))·log π(y_t), summed over the valid tokens of each row; sg stops the gradient.

    Its gradient is that of SFT times the token's probability, so that what the student finds very unlikely does not
    dominate. Source: dynamic fine-tuning (arXiv 2508.05629).
    """
    return _summed(-logprob_BT.detach().exp() * logprob_BT, mask_BT)


def _summed(loss_BT: Tensor, mask_BT: Tensor) -> SignalResult:
    mask_BT = mask_BT.bool()
    return SignalResult(total_B=loss_BT.masked_fill(~mask_BT, 0).sum(-1), count_B=mask_BT.sum(-1))
