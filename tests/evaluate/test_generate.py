import pytest
import torch

from dudi_kit.evaluate.generate import before, greedy, greedy_batches


@pytest.fixture
def prompts(encoder, examples):
    return [encoder.prompt_ids(example.prompt) for example in examples]


def by_hand(model, encoder, prompt, most):
    """Greedy decoding without padding, cache or generate: (ids before the stop, whether it was cut)."""
    ids = list(prompt)
    model.eval()
    for _ in range(most):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in encoder.stop_ids:
            return ids[len(prompt) : -1], False
    return ids[len(prompt) :], True


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_answers_equal_decoding_by_hand_at_any_batch_size(model, encoder, prompts, batch_size):
    said = greedy(model, encoder, prompts, max_new_tokens=6, batch_size=batch_size)
    expected = [by_hand(model, encoder, prompt, 6) for prompt in prompts]
    assert [(a.text, a.token_count, a.truncated) for a in said] == [
        (encoder.decode(i), len(i), cut) for i, cut in expected
    ]


def test_a_stop_token_at_once_is_an_empty_answer(model, encoder, prompts):
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.model.norm.weight.zero_()  # all logits equal: argmax is the first id
    assert 0 in encoder.stop_ids, "the first piece is the end of text"
    said = greedy(model, encoder, prompts, max_new_tokens=4, batch_size=4)
    assert {(a.text, a.token_count, a.truncated) for a in said} == {("", 0, False)}


def test_the_models_own_sampling_settings_change_and_warn_nothing(model, encoder, prompts, caplog, recwarn):
    plain = greedy(model, encoder, prompts, max_new_tokens=6, batch_size=4)
    own = model.generation_config
    own.update(do_sample=True, temperature=0.3, top_k=3, repetition_penalty=5.0, max_length=3)
    model.train()
    assert greedy(model, encoder, prompts, max_new_tokens=6, batch_size=4) == plain
    assert model.generation_config is own
    assert model.training
    assert not caplog.records
    assert not recwarn.list


def test_progress_counts_every_row(model, encoder, prompts):
    done = []
    greedy(model, encoder, prompts, max_new_tokens=1, batch_size=5, progress=done.append)
    assert sum(done) == len(prompts)


def test_no_prompts_no_answers(model, encoder):
    assert greedy(model, encoder, [], max_new_tokens=4, batch_size=4) == []


@pytest.mark.parametrize(
    ("text", "until", "expected"),
    [
        (" naik\n\nTeks: lain", "\n", " naik"),
        ("\n naik\nTeks: lain", "\n", "\n naik"),
        ("satu\ndua\n\ntiga", "\n\n", "satu\ndua"),
        ("naik", "\n", None),
        ("\n\n", "\n", None),
        ("", "\n", None),
    ],
)
def test_an_answer_ends_at_the_first_line_break_behind_a_text(text, until, expected):
    assert before(text, until) == expected


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_an_answer_that_ends_with_its_line_is_whole_and_stops_there(model, encoder, prompts, batch_size):
    """The text that ends an answer is taken from what the model says without it, so that some answers hold it."""
    free = greedy(model, encoder, prompts, max_new_tokens=12, batch_size=batch_size)
    until = next(answer.text.strip()[3:5] for answer in free if len(answer.text.strip()) > 8)
    batches = greedy_batches(model, encoder, prompts, max_new_tokens=12, batch_size=batch_size, until=until)
    ended = {i: answer for some in batches for i, answer in some.items()}
    held = [before(answer.text, until) for answer in free]
    assert any(text is not None for text in held)
    assert any(text is None for text in held)
    for i, (answer, text) in enumerate(zip(free, held, strict=True)):
        if text is None:
            assert ended[i] == answer
        else:
            assert (ended[i].text, ended[i].truncated) == (text, False)
            assert ended[i].token_count <= answer.token_count


def test_generation_ends_once_all_answers_have(model, encoder, prompts):
    """The line of each is over at once: a token for the line, and one for the end of turn."""
    forward, steps = model.forward, []
    model.forward = lambda *args, **kwargs: steps.append(1) or forward(*args, **kwargs)
    free = greedy(model, encoder, prompts[:1], max_new_tokens=12, batch_size=1)[0]
    assert len(steps) == 12, "the model does not stop by itself"
    steps.clear()
    until = free.text.strip()[1]
    (answer,) = next(
        iter(greedy_batches(model, encoder, prompts[:1], max_new_tokens=12, batch_size=1, until=until))
    ).values()
    assert len(steps) == answer.token_count + 1 < 12
