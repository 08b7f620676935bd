"""Numbers that mean that training has failed: said with the step, the signal and the language."""

import math
from typing import Any, NoReturn

from dudi_kit.errors import TrainingFailed


def require_finite(line: dict[str, Any]) -> None:
    """Refuse a line of metrics whose loss is NaN or infinite."""
    if math.isfinite(line["loss"]):
        return
    broken = {name: signal for name, signal in line["signals"].items() if not math.isfinite(signal["loss"])}
    culprits = [f"{name} ({', '.join(_not_finite(signal['by_language']))})" for name, signal in broken.items()]
    raise TrainingFailed(
        f"the loss is {line['loss']} at step {line['step']}, from {'; '.join(culprits)}. Lower "
        "training.learning_rate or training.max_grad_norm, or use training.precision: fp32; then start again."
    )


def refuse_gradient(norm: float, line: dict[str, Any]) -> NoReturn:
    """Stop for a gradient that is NaN or infinite. line: the metrics up to this step."""
    require_finite(line)
    raise TrainingFailed(
        f"the gradient norm is {norm} at step {line['step']}, although the loss is {line['loss']:.4g}. Lower "
        "training.learning_rate, or use training.precision: fp32; then start again."
    )


def _not_finite(by_language: dict[str, float]) -> list[str]:
    return [code for code, loss in by_language.items() if not math.isfinite(loss)]
