"""What every section of a recipe shares: strictness, and the small types that name their unit."""

from typing import Annotated, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from dudi_kit.recipe.languages import ALIASES, LANGUAGES


class Strict(BaseModel):
    """Base of every section: an unknown key is an error, and a recipe can't change after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def known_language(code: str) -> str:
    """The code itself, or a ValueError that lists the known ones."""
    if code in LANGUAGES:
        return code
    hint = f"; {code!r} is written {ALIASES[code]!r} here" if code in ALIASES else ""
    raise ValueError(f"unknown language code{hint}; known: {' '.join(LANGUAGES)}")


def version_specifier(text: str) -> str:
    """The text itself, or a ValueError if it says nothing about versions."""
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise ValueError("versions of dudi-kit expected; such as '>=0.1,<0.3'") from None
    return text


LanguageCode = Annotated[
    str, AfterValidator(known_language), WithJsonSchema({"type": "string", "enum": list(LANGUAGES)})
]
"""A code of `dudi_kit.recipe.languages`."""

Text = Annotated[str, StringConstraints(min_length=1)]
Requirement = Annotated[Text, AfterValidator(version_specifier)]
"""A version specifier as pip reads it."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""Letters, digits, dot, dash and underscore: it becomes a folder's name."""

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=1, le=10**9)]


def tag_by_shape(value: Any) -> str:
    """Tell a mapping from a plain value, so that a mistake in one is not reported for both."""
    return "mapping" if isinstance(value, dict | BaseModel) else "plain"


def tag_by(field: str, default: str) -> Any:
    """Tell the variants of a union apart by `field`, which may be left out for the `default` variant."""

    def tag(value: Any) -> Any:
        return value.get(field, default) if isinstance(value, dict) else getattr(value, field, None)

    return tag


def tag_by_key(keys: dict[str, str], default: str) -> Any:
    """Tell the variants of a union apart by which telling key is present."""

    def tag(value: Any) -> Any:
        if not isinstance(value, dict):
            return getattr(type(value), "VARIANT", None)
        return next((variant for key, variant in keys.items() if key in value), default)

    return tag
