"""Chat templates: the tokenizer's own, one that ships, or a file that the recipe names."""

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from dudi_kit.data.tokenizers import TURN_END, TURN_START
from dudi_kit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHIPPED = ("chatml", "plain")
"""`chatml` is Qwen's; `plain` is for base models: the prompt, a line break, the answer, the end of the text."""


def resolve_template(tokenizer: "PreTrainedTokenizerBase", choice: str | None, *, who: str) -> None:
    """Set the tokenizer's chat template as the recipe says.

    choice: `chatml`, `plain`, the path of a Jinja file, or None for the tokenizer's own template. who: `student` or
    `teacher`, for messages. ModelError: there is no template, or the tokenizer lacks the special pieces that it needs.
    """
    if choice is None:
        if not tokenizer.chat_template:
            raise ModelError(
                f"{who}: its tokenizer has no chat template. Set {who}.chat_template to chatml, plain (for base "
                "models), or a Jinja file."
            )
        return
    _check_pieces(tokenizer, choice, who)
    tokenizer.chat_template = _opening(tokenizer) + _shipped(choice) if choice in SHIPPED else _file(choice, who)


def _check_pieces(tokenizer: "PreTrainedTokenizerBase", choice: str, who: str) -> None:
    if choice == "chatml":
        for piece in (TURN_START, TURN_END):
            if len(tokenizer(piece, add_special_tokens=False)["input_ids"]) != 1:
                raise ModelError(
                    f"{who}.chat_template: chatml needs {piece} as one piece, and the tokenizer has none. Set "
                    "plain, or a Jinja file with the special pieces that the model knows."
                )
    if choice == "plain" and tokenizer.eos_token is None:
        raise ModelError(
            f"{who}.chat_template: plain ends an answer with the tokenizer's end-of-sequence piece, and it has none. "
            "Set a Jinja file that ends answers in another way."
        )


def _shipped(name: str) -> str:
    # Files end with a line break, which would become part of every prompt.
    return resources.files("dudi_kit.data").joinpath("templates", f"{name}.jinja").read_text("utf-8").rstrip("\n")


def _opening(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The beginning-of-sequence piece, where the tokenizer puts one in front of every text by itself.

    Template text is tokenised without special pieces, so that a model's own template, which has it, gets it once.
    """
    bos = tokenizer.bos_token_id
    adds_one = bos is not None and tokenizer("a")["input_ids"][0] == bos
    return "{{- bos_token }}" if adds_one else ""


def _file(choice: str, who: str) -> str:
    path = Path(choice)
    if not os.path.isabs(choice) or not path.is_file():
        raise ModelError(
            f"{who}.chat_template: no such file: {choice}. Set chatml, plain, or the path of a Jinja file."
        )
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{who}.chat_template: {choice} can't be read as UTF-8 text: {error}") from error
