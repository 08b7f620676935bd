import math

import pytest
import torch

from dudi_kit.data.ledger import Ledger
from dudi_kit.evaluate.bits import bits_per_byte


def measure(model, encoder, examples, batch_size=4, max_length=200):
    ledger = Ledger()
    return bits_per_byte(model, encoder, examples, max_length=max_length, batch_size=batch_size, ledger=ledger), ledger


def test_a_uniform_model_by_hand(model, encoder, examples):
    with torch.no_grad():
        model.lm_head.weight.zero_()
    bits, _ = measure(model, encoder, examples)
    assert sorted(bits) == ["id", "th", "vi"]
    for language, result in bits.items():
        texts = [example.response for example in examples if example.language == language]
        tokens = sum(len(encoder.response_ids(text)) for text in texts)  # the end of turn is one of them
        size = sum(len(text.encode()) for text in texts)
        assert (result.tokens, result.bytes) == (tokens, size)
        assert result.value == pytest.approx(math.log2(len(encoder.tokenizer)) * tokens / size, rel=1e-6)


def test_nats_equal_one_row_at_a_time_without_padding(model, encoder, examples):
    bits, _ = measure(model, encoder, examples)
    nats = 0.0
    for example in examples:
        if example.language == "th":
            prompt, response = encoder.prompt_ids(example.prompt), encoder.response_ids(example.response)
            with torch.no_grad():
                logp = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
            nats -= sum(float(logp[len(prompt) - 1 + t, token]) for t, token in enumerate(response))
    assert bits["th"].nats == pytest.approx(nats, rel=1e-5)


def test_the_batch_size_changes_nothing_but_the_last_digits(model, encoder, examples):
    one, all_at_once = measure(model, encoder, examples, 1)[0], measure(model, encoder, examples, 100)[0]
    for language in one:
        assert one[language].nats == pytest.approx(all_at_once[language].nats, rel=1e-5)


def test_rows_too_long_are_counted_by_language(model, encoder, examples):
    longest = {e.origin: len(encoder.prompt_ids(e.prompt)) + len(encoder.response_ids(e.response)) for e in examples}
    limit = sorted(longest.values())[len(examples) // 2]
    bits, ledger = measure(model, encoder, examples, max_length=limit)
    left_out = sum(length > limit for length in longest.values())
    assert left_out
    assert sum(ledger.counts.values()) == left_out
    kept = [e.response for e in examples if longest[e.origin] <= limit]
    assert sum(result.bytes for result in bits.values()) == sum(len(text.encode()) for text in kept)


def test_dropout_is_off_and_training_mode_comes_back(model, encoder, examples):
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    assert measure(model, encoder, examples)[0] == measure(model, encoder, examples)[0]
    assert model.training
