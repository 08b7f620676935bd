"""Heads computed beside their models: the same logits and gradients, whatever stands between hidden state and logit."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, CohereConfig, Gemma3TextConfig, GPT2Config, GraniteConfig, PhiConfig

from dudi_kit.models.head import Head, Place, Predictions
from dudi_kit.models.head_form import head_form, hidden_states, open_head
from dudi_kit.train.onepass import loss_in_one_pass

SHAPE: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.4,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "soft cap": Gemma3TextConfig(**SHAPE, final_logit_softcapping=2.0),
    "logit scale": CohereConfig(**SHAPE, logit_scale=0.3),
    "scaled down": GraniteConfig(**SHAPE, logits_scaling=3.0),
    "bias": PhiConfig(**{name: value for name, value in SHAPE.items() if name != "head_dim"}),
    "tied": GPT2Config(vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2),
}
IDS = torch.arange(12).reshape(2, 6)
PULLS = torch.randn(12, 61, generator=torch.Generator().manual_seed(1)).double()


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).double().eval()
    if name == "bias":
        torch.nn.init.normal_(model.lm_head.bias)
    return model


class Squares:
    """L = Σ pull·z²/2, so that ∂L/∂z = pull·z depends on the logits themselves."""

    def __init__(self, head: Any) -> None:
        self.head, self.total, self.heard = head, torch.zeros((), dtype=torch.float64), 0
        self.listens = True

    def hear(self, logits_nV: Tensor, place: slice) -> None:
        self.heard += len(logits_nV)

    def weigh(self, group: slice) -> None:
        assert self.heard == group.stop

    def judge(self, logits_nV: Tensor, place: slice, out_nV: Tensor | None) -> None:
        self.total += (PULLS[place] * logits_nV.square()).sum() / 2
        if out_nV is not None:
            logits_nV = logits_nV.clone()
            out_nV[:] = self.head.slope_(PULLS[place] * logits_nV, logits_nV)

    def loss(self) -> Tensor:
        return self.total


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("chunk", [2, 5, 100])
def test_logits_and_gradients_are_those_of_the_model(name: str, chunk: int) -> None:
    model = model_of(name)
    own = model(input_ids=IDS).logits.flatten(0, 1)
    expected = (PULLS * own.square()).sum() / 2
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(expected, parameters)
    form = head_form(model)
    assert form is not None
    with hidden_states(model) as seen:
        model(input_ids=IDS)
    with open_head(model, form) as head:
        said = Predictions(seen[0].flatten(0, 1), head)
        torch.testing.assert_close(said.logits(slice(0, 12)), own.detach())
        loss = 3 * loss_in_one_pass(said, [slice(0, 5), slice(5, 12)], Squares(head), chunk)
    torch.testing.assert_close(loss, 3 * expected)
    for found, gradient in zip(torch.autograd.grad(loss, parameters), gradients, strict=True):
        # transformers' norms go through fp32, whatever the dtype
        torch.testing.assert_close(found, 3 * gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("length", "computed"), [(4, 1), (6, 1), (7, 4), (12, 4)])
def test_logits_of_a_group_that_fits_into_a_chunk_are_computed_once(length: int, computed: int) -> None:
    """A chunk has six positions here. Those of a longer group are heard first."""
    head, asked = Head(torch.randn(61, 16, dtype=torch.float64)), list[Place]()

    class Counting(Predictions):
        def logits(self, place: Place) -> Tensor:
            asked.append(place)
            return super().logits(place)

    said = Counting(torch.randn(length, 16, dtype=torch.float64), head)
    judge = Squares(head)
    assert judge.listens
    loss_in_one_pass(said, [slice(0, length)], judge, 6)
    assert len(asked) == computed


def test_a_head_that_does_something_else_is_not_taken_for_known() -> None:
    model = model_of("tied")
    own = type(model).forward

    class Other(type(model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            said = own(self, *args, **kwargs)
            said.logits = said.logits + said.logits.square().clamp(max=50)
            return said

    model.__class__ = Other
    assert head_form(model) is None


def test_the_sum_of_a_bf16_head_s_gradient_is_kept_in_fp32() -> None:
    model = model_of("tied").bfloat16()
    form = head_form(model)
    assert form is not None
    hidden = torch.ones(12, 16, dtype=torch.bfloat16)
    with open_head(model, form) as head:

        class Even(Squares):
            def judge(self, logits_nV: Tensor, place: slice, out_nV: Tensor | None) -> None:
                assert out_nV is not None
                out_nV[:] = 1.0 if place.start == 0 else 2.0**-9  # lost one by one in bf16, beside 1

        loss = loss_in_one_pass(Predictions(hidden, head), [slice(0, 12)], Even(head), 1)
        (gradient,) = torch.autograd.grad(loss, head.weight_VH)
    assert gradient.dtype is torch.bfloat16
    assert (gradient == torch.tensor(1 + 11 * 2.0**-9, dtype=torch.bfloat16)).all()
