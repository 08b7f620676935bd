"""Rollouts: random by (seed, step, row) alone, distributed as the student's softmax, and cut or ended honestly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from dudi_kit.models.generation import Stops, continue_prompts
from dudi_kit.plan.rows import Row
from dudi_kit.recipe.schema.rollouts import Rollouts
from dudi_kit.train.drawing import BLOCK, Draw, Likeliest, Sayable, invert, keep_nucleus
from dudi_kit.train.rollouts import OwnSampler

PIECES = 24
EOS, END = 22, 23
STOPS = Stops((EOS, END), EOS)  # pad is eos
PROMPTS = [[1, 2, 3], [4] * 20, [5], [6, 7, 8, 9, 10, 11], [EOS, 3, EOS], [12, 13]]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=PIECES, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.4,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def rows(prompts: list[list[int]] = PROMPTS) -> list[Row]:
    return [Row(i, "id", "mine", prompt, [1, EOS], {}) for i, prompt in enumerate(prompts)]


def sampler(seed: int = 0, pieces: int = 10**6, **settings: Any) -> OwnSampler:
    return OwnSampler(
        Rollouts(**{"max_new_tokens": 12, **settings}),
        stops=STOPS,
        sayable_V=torch.ones(pieces, dtype=torch.bool),
        seed=seed,
    )


def next_distribution(model: Any, prompt: list[int], temperature: float = 1.0) -> Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return (logits.double() / temperature).softmax(-1)


def first_tokens(model: Any, take: OwnSampler, number: int = 4000) -> list[int]:
    """The first token of many rows with the same prompt."""
    same = [Row(i, "id", "mine", [1, 2, 3], [1], {}) for i in range(number)]
    return [rollout.ids[0] for rollout in take.sample(model, same, step=0)]


def assert_distributed(drawn: list[int], expected: Tensor) -> None:
    """Every frequency within four standard errors. The numbers are seeded, so this can't flake."""
    n = len(drawn)
    counts = torch.bincount(torch.tensor(drawn), minlength=len(expected)).double()
    error = (n * expected * (1 - expected)).sqrt()
    assert ((counts - n * expected).abs() <= 4 * error + 1e-9).all()


# --- what a sample depends on


def test_a_row_has_the_same_rollout_alone_in_any_batch_and_in_any_order(model):
    take, all_rows = sampler(), rows()
    together = take.sample(model, all_rows, step=3)
    assert [take.sample(model, [row], step=3)[0] for row in all_rows] == together
    assert take.sample(model, all_rows[::-1], step=3)[::-1] == together
    assert take.sample(model, all_rows[2:4], step=3) == together[2:4]


def test_a_greedy_rollout_is_the_same_alone_and_in_a_batch(model):
    take, all_rows = sampler(temperature=0), rows()
    assert [take.sample(model, [row], step=0)[0] for row in all_rows] == take.sample(model, all_rows, step=0)


@pytest.mark.parametrize("change", ["seed", "step", "row"])
def test_another_seed_step_or_row_is_another_sample(model, change):
    first = sampler(seed=1).sample(model, rows(), step=1)
    again = sampler(seed=1).sample(model, rows(), step=1)
    other_rows = [Row(row.index + 100, "id", "mine", row.prompt, row.response, {}) for row in rows()]
    others: dict[str, Callable[[], list[Any]]] = {
        "seed": lambda: sampler(seed=2).sample(model, rows(), step=1),
        "step": lambda: sampler(seed=1).sample(model, rows(), step=2),
        "row": lambda: sampler(seed=1).sample(model, other_rows, step=1),
    }
    assert first == again
    assert first != others[change]()


def test_the_global_random_state_neither_matters_nor_moves(model):
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state()
    first = sampler().sample(model, rows(), step=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert sampler().sample(model, rows(), step=0) == first


# --- how it is distributed


def test_draws_follow_the_softmax():
    scores = torch.tensor([2.0, -1.0, 0.5, -torch.inf, 0.0, 3.0])
    numbers = torch.from_numpy(np.random.default_rng(0).random(20_000))
    drawn = invert(scores.softmax(-1).expand(20_000, -1), numbers)
    assert_distributed(drawn.tolist(), scores.double().softmax(-1))
    assert 3 not in drawn


def test_a_draw_inverts_the_cumulated_distribution_by_hand():
    # masses ¼, ½, 0, ¼: a number just below a border takes the piece before it, the border itself the next one
    mass = torch.tensor([0.25, 0.5, 0.0, 0.25]).expand(6, -1)
    numbers = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert invert(mass, numbers).tolist() == [0, 0, 1, 1, 3, 3]


@pytest.mark.parametrize("pieces", [3, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 7])
def test_a_draw_in_two_levels_is_one_over_the_whole_distribution(pieces):
    generator = torch.Generator().manual_seed(pieces)
    mass = (torch.randn(400, pieces, generator=generator) * 3).softmax(-1)
    numbers = torch.rand(400, generator=generator, dtype=torch.float64)
    cumulated = mass.cumsum(-1, dtype=torch.float64)
    drawn = invert(mass, numbers)
    end = cumulated.gather(1, drawn[:, None]).squeeze(1)
    begin = end - mass.gather(1, drawn[:, None]).squeeze(1)
    wanted = numbers * cumulated[:, -1]
    assert (begin - 1e-6 <= wanted).all()  # sums of blocks are rounded to fp32
    assert (wanted <= end + 1e-6).all()
    exactly = torch.searchsorted(cumulated, wanted[:, None], right=True).squeeze(1)
    assert (drawn == exactly).double().mean() >= 0.995


@pytest.mark.parametrize("end", [4, BLOCK, 2 * BLOCK, 2 * BLOCK + 4])
def test_no_piece_without_mass_is_drawn_at_either_end(end):
    mass = torch.zeros(2, end)
    mass[:, 1 : end - 1] = 1 / 3
    numbers = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert invert(mass, numbers).tolist() == [1, end - 2]
    mass[:, end // 2 :] = 0
    assert invert(mass, numbers).tolist() == [1, end // 2 - 1]


def test_each_new_token_has_a_number_of_its_own_and_a_row_keeps_its_own_when_others_leave():
    numbers = torch.tensor([[0.1, 0.9, 0.1], [0.6, 0.1, 0.6]], dtype=torch.float64)
    draw = Draw(Sayable(torch.ones(2, dtype=torch.bool)), numbers, temperature=1.0)
    both = torch.tensor([0, 1])
    assert draw(torch.zeros(2, 2), both, 0).tolist() == [0, 1]
    assert draw(torch.zeros(2, 2), both, 1).tolist() == [1, 0]
    assert draw(torch.zeros(1, 2), both[1:], 2).tolist() == [1]


def test_a_nucleus_keeps_the_smallest_set_of_that_mass_and_what_is_as_likely_as_its_last():
    mass = torch.tensor([[0.1, 0.4, 0.2, 0.2, 0.1], [0.6, 0.1, 0.1, 0.1, 0.1]])
    keep_nucleus(mass, 0.5)
    assert (mass > 0).tolist() == [[False, True, True, True, False], [True, False, False, False, False]]


def test_a_nucleus_is_the_same_whether_few_or_all_pieces_have_to_be_sorted():
    generator = torch.Generator().manual_seed(0)
    sharp, flat = ((torch.randn(1, 4000, generator=generator) * scale).softmax(-1) for scale in (4, 0.3))
    together = torch.cat([sharp, flat])  # the flat one has the sharp one sorted too
    keep_nucleus(together, 0.9)
    keep_nucleus(sharp, 0.9)
    assert 1 < (sharp > 0).sum() < 1024 < (together[1] > 0).sum() < 4000
    assert torch.equal(together[0], sharp[0])
    kept = flat[0].sort(descending=True).values
    assert (together[1] > 0).sum() == (kept.double().cumsum(0) - kept < 0.9).sum()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_first_tokens_follow_the_students_softmax_at_the_temperature(model, temperature):
    drawn = first_tokens(model, sampler(max_new_tokens=1, temperature=temperature))
    assert_distributed(drawn, next_distribution(model, [1, 2, 3], temperature))


def test_second_tokens_follow_the_softmax_after_the_first(model):
    same = [Row(i, "id", "mine", [1, 2, 3], [1], {}) for i in range(4000)]
    drawn = [rollout.ids for rollout in sampler(max_new_tokens=2).sample(model, same, step=0)]
    first = max(set(range(EOS)), key=[ids[0] for ids in drawn].count)
    after = [ids[1] for ids in drawn if ids[0] == first]
    assert len(after) > 200
    assert_distributed(after, next_distribution(model, [1, 2, 3, first]))


def test_top_p_keeps_the_smallest_set_of_that_mass_and_its_proportions(model):
    mass = next_distribution(model, [1, 2, 3])
    order = mass.argsort(descending=True)
    kept = order[: int((mass[order].cumsum(0) < 0.6).sum()) + 1]
    drawn = first_tokens(model, sampler(max_new_tokens=1, top_p=0.6))
    assert set(drawn) <= set(kept.tolist())
    expected = torch.zeros_like(mass)
    expected[kept] = mass[kept] / mass[kept].sum()
    assert_distributed(drawn, expected)


def test_temperature_0_takes_the_likeliest_piece_every_time(model):
    for row, rollout in zip(rows(), sampler(temperature=0).sample(model, rows(), step=0), strict=True):
        ids = list(row.prompt)
        for token in rollout.ids:
            assert token == next_distribution(model, ids).argmax()
            ids.append(token)


@pytest.mark.parametrize("temperature", [0, 1.0, 3.0])
def test_pieces_beyond_the_shared_vocabulary_are_never_sampled(model, temperature):
    with torch.no_grad():
        model.lm_head.weight[10:] *= 5  # what must not be said is what it would like to say
    unrestricted = sampler(temperature=temperature).sample(model, rows(), step=0)
    assert any(token >= 10 for rollout in unrestricted for token in rollout.ids)
    for step in range(5):
        restricted = sampler(temperature=temperature, pieces=10).sample(model, rows(), step)
        assert all(token < 10 for rollout in restricted for token in rollout.ids)
    if temperature:
        mass = next_distribution(model, [1, 2, 3], temperature)
        mass[10:] = 0
        assert_distributed(
            first_tokens(model, sampler(1, 10, max_new_tokens=1, temperature=temperature)), mass / mass.sum()
        )


def test_unsayable_pieces_amid_the_others_are_never_drawn_and_leave_the_rest_its_proportions():
    sayable = torch.tensor([True, False, True, True, False])
    scores = torch.tensor([0.0, 9.0, 1.0, -1.0, 9.0, 9.0]).bfloat16()  # the last one is a padded row
    numbers = torch.from_numpy(np.random.default_rng(1).random((4000, 1)))
    rows = torch.arange(4000)
    drawn = Draw(Sayable(sayable), numbers, temperature=1.0)(scores.expand(4000, -1), rows, 0)
    mass = scores.double().index_fill(0, torch.tensor([1, 4, 5]), -torch.inf).softmax(-1)
    assert_distributed(drawn.tolist(), mass)
    assert set(Likeliest(Sayable(sayable))(scores.expand(2, -1), rows[:2], 0).tolist()) == {2}


# --- where it ends


def test_a_sample_ends_with_its_first_stop_token_and_says_so(model):
    rollouts = [rollout for step in range(20) for rollout in sampler().sample(model, rows(), step)]
    ended = [rollout for rollout in rollouts if rollout.ended]
    cut = [rollout for rollout in rollouts if not rollout.ended]
    assert ended
    assert cut
    assert all(rollout.ids[-1] in (EOS, END) for rollout in ended)
    assert {rollout.ids[-1] for rollout in ended} == {EOS, END}
    assert not any(token in (EOS, END) for rollout in ended for token in rollout.ids[:-1])
    assert all(len(rollout.ids) == 12 and not {EOS, END} & set(rollout.ids) for rollout in cut)


def test_an_end_at_the_very_limit_counts_as_an_end(model):
    short = [rollout for step in range(20) for rollout in sampler(max_new_tokens=4).sample(model, rows(), step)]
    at_the_limit = [rollout for rollout in short if len(rollout.ids) == 4 and rollout.ids[-1] in (EOS, END)]
    assert at_the_limit
    assert all(rollout.ended for rollout in at_the_limit)


def test_a_short_limit_cuts_the_same_sample_earlier(model):
    whole = sampler(max_new_tokens=12).sample(model, rows(), step=0)
    short = sampler(max_new_tokens=3).sample(model, rows(), step=0)
    assert [rollout.ids for rollout in short] == [rollout.ids[:3] for rollout in whole]


# --- the model's own affairs


def test_the_models_own_generation_settings_do_not_leak_in(model):
    plain, plain_greedy = (sampler(**how).sample(model, rows(), 0) for how in ({}, {"temperature": 0}))
    own = model.generation_config
    own.repetition_penalty, own.top_k, own.top_p, own.temperature, own.do_sample = 1.5, 5, 0.5, 0.3, True
    own.max_new_tokens, own.eos_token_id, own.no_repeat_ngram_size = 2, 1, 2
    assert sampler().sample(model, rows(), 0) == plain
    assert sampler(temperature=0).sample(model, rows(), 0) == plain_greedy
    assert model.generation_config is own
    assert (own.repetition_penalty, own.top_k, own.do_sample) == (1.5, 5, True)


def test_settings_come_back_even_when_generation_fails(model, monkeypatch):
    own = model.generation_config

    def fail(**_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(model, "generate", fail)
    model.train()
    with pytest.raises(RuntimeError, match="no memory"):
        continue_prompts(model, PROMPTS, STOPS, max_new_tokens=2)
    assert model.generation_config is own


@pytest.mark.parametrize("training", [True, False])
def test_sampling_leaves_training_mode_and_gradients_as_they_were(model, training):
    model.train(training)
    sampler().sample(model, rows(), step=0)
    assert model.training is training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_dropout_is_off_while_sampling(model):
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    model.train()
    noisy = sampler().sample(model, rows(), step=0)
    model.eval()
    assert sampler().sample(model, rows(), step=0) == noisy


# --- in slices, and with models that see only a window


@pytest.mark.parametrize("size", [1, 2, 4, 100])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_slices_change_no_sample(model, size, temperature):
    whole = sampler(temperature=temperature).sample(model, rows(), step=1)
    assert sampler(temperature=temperature, prompts_at_once=size).sample(model, rows(), step=1) == whole


def test_the_longest_prompts_are_continued_first_and_each_slice_pads_to_its_own(model, monkeypatch):
    seen = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **how: seen.append(how["input_ids"].shape) or generate(**how))
    lengths = [3, 70, 2, 33, 1]
    sampler(prompts_at_once=2).sample(model, rows([[5] * n for n in lengths]), step=0)
    assert seen == [(2, 80), (2, 16), (1, 16)]


@pytest.fixture
def windowed() -> Any:
    """Gemma 3: layers that see four tokens, between ones that see all."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=PIECES, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, sliding_window=4, max_position_embeddings=128, initializer_range=0.4,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"], query_pre_attn_scalar=8,
    )  # fmt: skip
    return Gemma3ForCausalLM(config).eval()


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_sliding_window_sees_the_same_alone_and_behind_padding(windowed, temperature):
    take = sampler(temperature=temperature)
    together = take.sample(windowed, rows(), step=0)
    assert [take.sample(windowed, [row], step=0)[0] for row in rows()] == together
    assert len({tuple(rollout.ids) for rollout in together}) > 1


def test_a_sliding_windows_greedy_sample_is_what_whole_passes_would_say(windowed):
    for row, rollout in zip(rows(), sampler(temperature=0).sample(windowed, rows(), step=0), strict=True):
        ids = list(row.prompt)
        for token in rollout.ids:
            assert token == next_distribution(windowed, ids).argmax()
            ids.append(token)


def test_a_row_that_is_no_number_gets_a_piece_that_there_is():
    mass = torch.full((2, 700), float("nan"))
    mass[1] = 1 / 700
    drawn = invert(mass, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert 0 <= drawn[0] < 700
    assert abs(int(drawn[1]) - 350) <= 1
