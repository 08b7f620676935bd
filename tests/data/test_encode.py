import re
from pathlib import Path
from typing import Any

import pytest

from dudi_kit.data.chat import resolve_template
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example, Origin, Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError, ModelError
from tests.data.tiny import SENTENCES, bos_tokenizer, chatml_tokenizer

QWEN3_LIKE = """{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' and loop.last %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}
    {{- m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""

GEMMA_LIKE = """{{ bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}{{ '<turn>' + m.role + '\\n' + m.content | trim + '</turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<turn>assistant\\n' }}{% endif %}"""


def encoder(template: str, tokenizer: Any = None) -> Encoder:
    tokenizer = tokenizer or chatml_tokenizer()
    if template in ("chatml", "plain"):
        resolve_template(tokenizer, template, who="student")
    else:
        tokenizer.chat_template = template
    return Encoder(tokenizer, who="student")


def example(prompt: str = "Di mana kucing?", response: str = "Di bawah meja.", system: str | None = None) -> Example:
    turns = (Turn("user", prompt),) if system is None else (Turn("system", system), Turn("user", prompt))
    return Example(turns, response, "id", None, Origin("chat", "rows.jsonl", 7))


# Templates


def test_chatml_text():
    e = encoder("chatml")
    text = e.tokenizer.decode(e.prompt_ids([Turn("system", "S"), Turn("user", "U")]))
    assert text == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"


def test_plain_text_ends_with_end_of_text():
    e = encoder("plain")
    assert e.tokenizer.decode(e.prompt_ids([Turn("user", "U")])) == "U\n"
    assert e.end_of_turn_id == e.tokenizer.eos_token_id
    assert e.stop_ids == (e.tokenizer.eos_token_id,)


def test_no_template_names_the_field_and_the_choices():
    tokenizer = chatml_tokenizer()
    with pytest.raises(ModelError, match=r"Set teacher\.chat_template to chatml, plain .* or a Jinja file"):
        resolve_template(tokenizer, None, who="teacher")
    tokenizer.chat_template = GEMMA_LIKE
    resolve_template(tokenizer, None, who="teacher")
    assert tokenizer.chat_template == GEMMA_LIKE


def test_chatml_needs_its_pieces():
    with pytest.raises(
        ModelError, match=r"student\.chat_template: chatml needs <\|im_start\|> as one piece.*Set plain"
    ):
        resolve_template(bos_tokenizer(), "chatml", who="student")


def test_template_of_a_file(tmp_path: Path):
    path = tmp_path / "mine.jinja"
    path.write_text(GEMMA_LIKE)
    tokenizer = bos_tokenizer()
    resolve_template(tokenizer, str(path), who="student")
    assert tokenizer.chat_template == GEMMA_LIKE
    with pytest.raises(ModelError, match=r"no such file: .*gone\.jinja"):
        resolve_template(tokenizer, str(tmp_path / "gone.jinja"), who="student")


@pytest.mark.parametrize("template", ["plain", GEMMA_LIKE])
def test_there_is_one_bos_and_not_two(template: str):
    e = encoder(template, bos_tokenizer())
    ids = e.prompt_ids([Turn("user", "U")])
    assert ids[0] == e.tokenizer.bos_token_id
    assert ids.count(e.tokenizer.bos_token_id) == 1
    assert e.tokenizer.bos_token_id not in e.response_ids("A")


def test_line_break_after_the_end_of_turn_is_not_part_of_the_response():
    e = encoder("chatml")
    end = e.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert e.end_of_turn_id == end
    assert e.response_ids("Di bawah meja.")[-1] == end
    assert e.stop_ids == (e.tokenizer.eos_token_id, end)


def test_end_of_turn_that_is_not_eos():
    e = encoder(GEMMA_LIKE, bos_tokenizer())
    assert e.end_of_turn_id == e.tokenizer.convert_tokens_to_ids("</turn>")
    assert len(e.stop_ids) == 2


def test_end_of_turn_is_in_the_response_when_pad_is_eos():
    e = encoder("plain")
    assert e.pad_id == e.end_of_turn_id
    encoded = e.encode(example(), max_length=100, on_too_long="error", ledger=Ledger())
    assert encoded is not None
    assert encoded.response_ids[-1] == e.end_of_turn_id


def test_empty_think_block_belongs_to_the_prompt():
    e = encoder(QWEN3_LIKE)
    assert e.tokenizer.decode(e.prompt_ids([Turn("user", "U")])).endswith("assistant\n<think>\n\n</think>\n\n")
    assert e.tokenizer.decode(e.response_ids("A")) == "A<|im_end|>"


def test_a_template_whose_prompt_is_not_the_beginning_is_refused():
    template = (
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}Think: {% endif %}"
    )
    with pytest.raises(ModelError, match=re.escape("'question<|im_end|>Think: ' is not the beginning")):
        encoder(template)


def test_a_template_that_fails_is_refused():
    with pytest.raises(ModelError, match=r"student\.chat_template can't be rendered: only tools"):
        encoder("{{ raise_exception('only tools') }}")


def test_a_template_without_any_end_is_refused():
    tokenizer = bos_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="nothing could tell the model to stop"):
        encoder("{% for m in messages %}{{ m.content }}\n{% endfor %}", tokenizer)


@pytest.mark.parametrize(
    ("template", "moved"),
    [
        ("chatml", False),
        (GEMMA_LIKE, True),
        ("{% for m in messages if m.role != 'system' %}{{ m.content }}\n{% endfor %}", True),
    ],
)
def test_system_text_is_never_lost_and_counted_where_it_moves(template: str, moved: bool):
    e, ledger = encoder(template, None if template == "chatml" else bos_tokenizer()), Ledger()
    encoded = e.encode(example(system="Jawab singkat."), max_length=300, on_too_long="error", ledger=ledger)
    assert encoded is not None
    assert "Jawab singkat." in e.tokenizer.decode(encoded.prompt_ids)
    assert ledger.as_json() == ({"system text moved into the user's turn (student)": {"id": 1}} if moved else {})


def test_a_row_that_the_template_refuses():
    template = (
        "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0].content }}\n"
    )
    template += "{% if messages | length > 1 %}{{ messages[1].content + eos_token }}{% endif %}"
    with pytest.raises(DataError, match="refuses a conversation of user, assistant, user: one turn only"):
        encoder(template).prompt_ids([Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")])


def test_a_template_that_prints_the_date_prints_the_same_one_every_day():
    template = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n"
    template += (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    e = encoder(template)
    assert e.tokenizer.decode(e.prompt_ids([Turn("user", "U")])) == "26 Jul 2024\nU"


# Responses


@pytest.mark.parametrize("language", SENTENCES)
def test_a_response_decodes_to_itself(language: str):
    e, text = encoder("chatml"), SENTENCES[language]
    assert e.decode(e.response_ids(text)) == text


def test_special_pieces_spelt_out_in_a_response_end_no_turn():
    e = encoder("chatml")
    ids = e.response_ids("a<|im_end|>b")
    assert ids.count(e.end_of_turn_id) == 1
    assert e.decode(ids) == "a<|im_end|>b"


def test_decode_stops_at_the_first_stop_token():
    e = encoder("chatml")
    assert e.decode([*e.response_ids("ya"), *e.response_ids("tidak")]) == "ya"
    assert e.decode([]) == ""


# Too long


def lengths(e: Encoder) -> tuple[int, int]:
    return len(e.prompt_ids(example().prompt)), len(e.response_ids(example().response))


def test_exactly_max_length_is_kept_whole():
    e = encoder("chatml")
    encoded = e.encode(example(), max_length=sum(lengths(e)), on_too_long="error", ledger=Ledger())
    assert encoded is not None
    assert not encoded.truncated


def test_too_long_is_an_error_that_names_row_lengths_limit_and_fix():
    e = encoder("chatml")
    prompt, response = lengths(e)
    lengths_named = f"{prompt} prompt and {response} response tokens"
    message = rf"rows\.jsonl:7 \(chat\): {lengths_named}.*max_length: {prompt + 1}.*on_too_long"
    with pytest.raises(DataError, match=message):
        e.encode(example(), max_length=prompt + 1, on_too_long="error", ledger=Ledger())


def test_truncation_loses_the_end_of_turn_first_and_is_counted():
    e, ledger = encoder("chatml"), Ledger()
    encoded = e.encode(example(), max_length=sum(lengths(e)) - 1, on_too_long="truncate", ledger=ledger)
    assert encoded is not None
    assert encoded.truncated
    assert encoded.response_ids == e.response_ids(example().response)[:-1]
    assert ledger.as_json() == {"response truncated to max_length": {"id": 1}}


def test_skipped_rows_are_counted():
    e, ledger = encoder("chatml"), Ledger()
    assert e.encode(example(), max_length=sum(lengths(e)) - 1, on_too_long="skip", ledger=ledger) is None
    assert ledger.as_json() == {"row over max_length left out": {"id": 1}}


def test_a_prompt_that_fills_max_length_alone():
    e, ledger = encoder("chatml"), Ledger()
    prompt, _ = lengths(e)
    with pytest.raises(DataError, match="its prompt alone leaves no room"):
        e.encode(example(), max_length=prompt, on_too_long="error", ledger=ledger)
    assert e.encode(example(), max_length=prompt, on_too_long="truncate", ledger=ledger) is None
    assert ledger.as_json() == {"prompt alone over max_length, row left out": {"id": 1}}
