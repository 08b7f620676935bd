"""Pydantic's errors in our own sentences, one for each mistake.

Pydantic reports consequences too: a misspelt key is unknown, and the key that it should have been is missing; a
forgotten `type` makes every key of the right variant unknown. Here only the cause is told.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dudi_kit.recipe.anatomy import EXTENDS, Telling, Trace, choices, homes, keys, telling, trace
from dudi_kit.recipe.diagnostics import Path, Problem, listed, nearest, shown
from dudi_kit.recipe.schema import Recipe

EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
}

SYNONYMS = {
    "lr": "learning_rate",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "sequence_len": "max_length",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "train_batch_size": "batch_size",
    "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "gradient_clipping": "max_grad_norm",
    "save_steps": "checkpoint_every",
    "logging_steps": "log_every",
    "zero_stage": "stage",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "vocab_size": "vocabulary_size",
}
"""What other tools call our keys."""

TRUE_WORDS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}

MOST_KEYS_LISTED = 15


class Mistake(NamedTuple):
    """An error of Pydantic with the place in the schema that it concerns."""

    error: ErrorDetails
    trace: Trace
    root: type[BaseModel] = Recipe

    @property
    def kind(self) -> str:
        """Pydantic's name of the error."""
        return self.error["type"]

    @property
    def owner(self) -> Path:
        """Path of the mapping that the key is in."""
        return self.trace.path[:-1]

    @property
    def key(self) -> str:
        """The last part of the path."""
        return str(self.trace.path[-1]) if self.trace.path else ""


def problems(error: ValidationError, values: Any, root: type[BaseModel] = Recipe) -> list[Problem]:
    """One problem for each mistake in the values. root: the model that they were to be."""
    details = error.errors(include_url=False)
    mistakes = [Mistake(each, trace(each["loc"], root), root) for each in details]
    return [_sentence(mistake, values) for mistake in _causes(mistakes, values)]


def respelt(error: ValidationError, values: Any) -> tuple[Any, dict[Path, Path]] | None:
    """The values with misspelt keys that tell a variant put right, and right path → path as written; None without any.

    Such a key decides what all its neighbours mean, so their own mistakes show only once it is right.
    """
    mistakes = [Mistake(details, trace(details["loc"])) for details in error.errors(include_url=False)]
    wrong = [mistake for mistake in mistakes if _decides_variant(mistake, values) == MISSPELT]
    values, renamed = copy.deepcopy(values), {}
    for mistake in wrong:
        right, mapping = _nearest_key(mistake), _value_at(values, mistake.owner)
        if right is not None and mistake.key in mapping:
            mapping[right] = mapping.pop(mistake.key)
            renamed[*mistake.owner, right] = (*mistake.owner, mistake.key)
    return (values, renamed) if renamed else None


# --- causes and consequences ------------------------------------------------------------------------------------------


def _causes(mistakes: Sequence[Mistake], values: Any) -> list[Mistake]:
    meant = {(m.owner, _nearest_key(m)) for m in mistakes if m.kind == "extra_forbidden"}
    kept = [m for m in mistakes if m.kind != "missing" or (m.owner, m.key) not in meant]
    decisive: dict[Path, Mistake] = {}
    for mistake in kept:
        rank = _decides_variant(mistake, values)
        if rank and (mistake.owner not in decisive or rank > _decides_variant(decisive[mistake.owner], values)):
            decisive[mistake.owner] = mistake
    return [m for m in kept if all(m is cause or not _is_in(m, owner) for owner, cause in decisive.items())]


def _is_in(mistake: Mistake, owner: Path) -> bool:
    return len(mistake.trace.path) > len(owner) and mistake.trace.path[: len(owner)] == owner


MISSPELT = 2


def _decides_variant(mistake: Mistake, values: Any) -> int:
    """MISSPELT: of the key that tells the variant; 1: a key of another variant, where none was told; else 0."""
    if mistake.kind != "extra_forbidden" or not mistake.trace.variants:
        return 0
    marks = [mark for variant in mistake.trace.variants if (mark := telling(variant))]
    mapping = _value_at(values, mistake.owner)
    if not isinstance(mapping, dict) or any(mark.key in mapping for mark in marks):
        return 0
    if _nearest_key(mistake) in {mark.key for mark in marks}:
        return MISSPELT
    return 1 if _other_variant(mistake) else 0


def _value_at(values: Any, path: Path) -> Any:
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _known_keys(mistake: Mistake) -> list[str]:
    owner = list(keys(mistake.trace.owner)) if mistake.trace.owner else []
    owner += [EXTENDS] if mistake.trace.owner is Recipe else []
    marks = [mark.key for variant in mistake.trace.variants if (mark := telling(variant))]
    return list(dict.fromkeys([*owner, *marks]))


def _nearest_key(mistake: Mistake) -> str | None:
    known = _known_keys(mistake)
    synonym = SYNONYMS.get(mistake.key)
    return synonym if synonym in known else nearest(mistake.key, known)


def _other_variant(mistake: Mistake) -> Telling | None:
    """What marks the variant that the unknown key belongs to."""
    owners = [v for v in mistake.trace.variants if v.model and mistake.key in keys(v.model)]
    return next((mark for variant in owners if (mark := telling(variant))), None)


# --- sentences --------------------------------------------------------------------------------------------------------


def _sentence(mistake: Mistake, values: Any) -> Problem:
    kind = mistake.kind
    if kind in EXPECTED:
        return _wrong_type(mistake)
    if kind == "missing":
        return _missing(mistake, values)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _no_variant(mistake)
    return SENTENCES.get(kind, _other)(mistake)


def _unknown_key(mistake: Mistake) -> Problem:
    def problem(hint: str, message: str = "no such key") -> Problem:
        return Problem(mistake.trace.path, "unknown-key", message, hint, at_key=True)

    other, near = _other_variant(mistake), _nearest_key(mistake)
    if other and other.value is None and other.key == mistake.key:
        named = [mark.key for variant in mistake.trace.variants if (mark := telling(variant)) and not mark.value]
        return problem("remove all but one", f"{listed(named)}: only one of them can be given")
    if other:
        return problem(f"it needs '{other}' beside it", "no key of this variant")
    if near:
        return problem(f"did you mean {near!r}?")
    meant = SYNONYMS.get(mistake.key, mistake.key)
    places = [place for place in homes(meant, mistake.root) if place != ".".join(map(str, mistake.owner))]
    if places:
        return problem(f"did you mean '{places[0]}.{meant}'?" if places[0] else "it stands at the top: indent it less")
    known = _known_keys(mistake)
    more = ", …" if len(known) > MOST_KEYS_LISTED else ""
    return problem(f"allowed here: {', '.join(known[:MOST_KEYS_LISTED])}{more}")


def _missing(mistake: Mistake, values: Any) -> Problem:
    path = mistake.trace.path
    if path and isinstance(path[-1], int):
        wanted = len(get_args(trace(path[:-1], mistake.root).here[0].type))
        return Problem(path[:-1], "wrong-length", f"{wanted} values expected, got {path[-1]}")
    marks = [mark for variant in mistake.trace.variants if (mark := telling(variant)) and mark.value is None]
    mapping = _value_at(values, mistake.owner)
    if mistake.key in {mark.key for mark in marks} and len(marks) > 1 and isinstance(mapping, dict):
        named = [mark.key for mark in marks]
        return Problem(mistake.owner, "missing-key", f"one of the keys {listed(named)} is needed", f"add '{marks[0]}'")
    field = keys(mistake.trace.owner).get(mistake.key) if mistake.trace.owner else None
    meaning = f" {field.description}" if field and field.description else ""
    return Problem(path, "missing-key", "this key is needed", f"add '{mistake.key}: …'{_first_sentence(meaning)}")


def _first_sentence(text: str) -> str:
    words = " ".join(text.split())
    return f" ({words.split('. ')[0].rstrip('.')})" if words else ""


def _wrong_type(mistake: Mistake) -> Problem:
    value, expected = mistake.error["input"], EXPECTED[mistake.kind]
    message = f"{expected} expected, got {shown(value)}"
    return Problem(mistake.trace.path, "wrong-type", message, _type_hint(value, expected))


def _type_hint(value: Any, expected: str) -> str:
    if isinstance(value, str):
        return _hint_for_text(value, expected)
    if value is None:
        return "write a value, or remove the key"
    if expected == "text" and not isinstance(value, dict | list):
        return f'put it in quotes: "{shown(value).removeprefix("number ")}"'
    if expected == "a whole number" and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if expected == "a list" and not isinstance(value, dict):
        return f"write [{value}]"
    return ""


def _hint_for_text(value: str, expected: str) -> str:
    if expected == "true or false":
        return f"write {TRUE_WORDS[value.lower()]}" if value.lower() in TRUE_WORDS else ""
    if expected == "a list":
        return f"write [{value}]" if len(value) < 40 else ""
    if "number" in expected:
        try:
            float(value)
        except ValueError:
            return ""
        return "write it without quotes"
    return ""


def _no_variant(mistake: Mistake) -> Problem:
    """The union's telling key has an unknown value, or there is no mapping to look for it in."""
    value, variants = mistake.error["input"], mistake.trace.here
    marks = [mark for variant in variants if (mark := telling(variant))]
    if isinstance(value, dict):
        key = next((mark.key for mark in marks if mark.value and mark.key in value), marks[0].key)
        return _bad_choice(
            (*mistake.trace.path, key), value.get(key), [mark.value for mark in marks if mark.key == key]
        )
    hint = f"write {{{marks[0]}}}"
    if isinstance(value, str):
        named = next((mark for mark in marks if mark.value and mark.value == nearest(value, [mark.value])), None)
        hint = f"write {{{named or f'{marks[0].key}: {value[:60]}'}}}"
    return Problem(mistake.trace.path, "wrong-type", f"a mapping expected, got {shown(value)}", hint)


def _bad_choice(path: Path, value: Any, allowed: Iterable[Any]) -> Problem:
    known = list(allowed)
    message = f"{listed(map(_written, known))} expected, got {shown(value)}"
    near = nearest(value, [word for word in known if isinstance(word, str)]) if isinstance(value, str) else None
    return Problem(path, "bad-choice", message, f"did you mean {near!r}?" if near else "")


def _written(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def _literal(mistake: Mistake) -> Problem:
    return _bad_choice(mistake.trace.path, mistake.error["input"], choices(mistake.trace.here))


def _range(words: str, bound: str) -> Callable[[Mistake], Problem]:
    def sentence(mistake: Mistake) -> Problem:
        limit = mistake.error["ctx"][bound]
        limit = int(limit) if float(limit).is_integer() else limit
        text = f"{limit:,}" if isinstance(limit, int) else f"{limit}"
        message = f"must be {words} {text}, got {shown(mistake.error['input']).removeprefix('number ')}"
        return Problem(mistake.trace.path, "out-of-range", message)

    return sentence


def _empty(mistake: Mistake) -> Problem:
    path, at_key = mistake.trace.path, mistake.trace.at_key
    return Problem(
        path, "empty", "must not be empty", "" if at_key else "write something, or remove the key", at_key=at_key
    )


def _too_short(mistake: Mistake) -> Problem:
    least, got = mistake.error["ctx"]["min_length"], mistake.error["ctx"]["actual_length"]
    if got == 0:
        return Problem(mistake.trace.path, "empty", "must not be empty", "name at least one", at_key=True)
    return Problem(mistake.trace.path, "wrong-length", f"at least {least} values expected, got {got}")


def _too_long(mistake: Mistake) -> Problem:
    most, got = mistake.error["ctx"]["max_length"], mistake.error["ctx"]["actual_length"]
    return Problem(mistake.trace.path, "wrong-length", f"{most} values expected, got {got}")


def _bad_name(mistake: Mistake) -> Problem:
    value = str(mistake.error["input"])
    message = f"{shown(value)} can't name a folder"
    hint = "1 to 100 letters, digits, '.', '-' and '_', a letter or digit first"
    return Problem(mistake.trace.path, "bad-name", message, hint, at_key=mistake.trace.at_key)


def _own_rule(mistake: Mistake) -> Problem:
    """A ValueError of our own validators: its text is the sentence."""
    text = str(mistake.error["ctx"]["error"])
    message, _, hint = text.partition("; ")
    value = mistake.error["input"]
    return Problem(mistake.trace.path, "bad-value", f"{message}, got {shown(value)}", hint, at_key=mistake.trace.at_key)


def _not_finite(mistake: Mistake) -> Problem:
    return Problem(mistake.trace.path, "out-of-range", "the number must be finite")


def _other(mistake: Mistake) -> Problem:
    return Problem(mistake.trace.path, "bad-value", f"{shown(mistake.error['input'])} is not allowed here")


SENTENCES: dict[str, Callable[[Mistake], Problem]] = {
    "extra_forbidden": _unknown_key,
    "literal_error": _literal,
    "greater_than": _range("greater than", "gt"),
    "greater_than_equal": _range("at least", "ge"),
    "less_than": _range("less than", "lt"),
    "less_than_equal": _range("at most", "le"),
    "string_too_short": _empty,
    "too_short": _too_short,
    "too_long": _too_long,
    "string_pattern_mismatch": _bad_name,
    "value_error": _own_rule,
    "finite_number": _not_finite,
}
"""Pydantic's name of an error → our sentence; the fuzz test sees that no other one comes up."""
