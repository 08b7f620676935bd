"""Examples → token ids: prompt and response apart, with the token that ends a turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError, TemplateRuntimeError

from dudi_kit.data.example import Example, Turn
from dudi_kit.data.ledger import Ledger
from dudi_kit.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)

OnTooLong = Literal["error", "skip", "truncate"]

QUESTION, ANSWER = Turn("user", "question"), "answer"

FIXED: dict[str, Any] = {"date_string": "26 Jul 2024"}
"""Llama 3's templates print today's date unless they are given one: a resumed run would see other prompts."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids."""

    prompt_ids: list[int]
    """x in the chat template, up to where the model begins to answer."""

    response_ids: list[int]
    """y with its end-of-turn token, which a truncated response lacks."""

    truncated: bool
    example: Example


class Encoder:
    """How one model's tokenizer and chat template write prompts and responses.

    Prompt and response are tokenised separately and joined as ids. The model generates ỹ from the last token of the
    prompt, so y must begin at the same boundary: tokenised as one text, a piece could span prompt and response, and y
    and ỹ would be continuations of different prompts.

    tokenizer: has a chat template (see `chat.resolve_template`). who: `student` or `teacher`, for messages. ModelError:
    the template can't be rendered, its generation prompt is not the beginning of a whole conversation, or there is
    no token that ends a turn.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, who: str) -> None:
        self.tokenizer, self.who = tokenizer, who
        self.options, ending = self._probe()
        self.end_of_turn_id = self._end_of_turn(ending)
        """Ends every response, and is inside the loss: the model has to learn to stop."""
        eos = tokenizer.eos_token_id
        self.stop_ids: tuple[int, ...] = tuple(sorted({self.end_of_turn_id} | ({eos} if eos is not None else set())))
        """Tokens at which generation ends: end of turn and end of sequence."""
        self.takes_system = self._takes_system()
        """Whether the template writes a system turn; where it does not, its text opens the first user turn."""

    @property
    def pad_id(self) -> int:
        """Fills batches. It may equal a stop id: masks are made from lengths, never from ids."""
        pad, eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        found = pad if pad is not None else eos
        return int(found) if found is not None else self.end_of_turn_id

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of a conversation up to where the assistant begins to answer."""
        try:
            text = self._render(self._fitting(turns), add_generation_prompt=True, **self.options)
        except TemplateError as error:
            roles = ", ".join(turn.role for turn in turns)
            raise DataError(f"{self.who}.chat_template refuses a conversation of {roles}: {error}") from error
        return self._tokenise(text)

    def response_ids(self, text: str) -> list[int]:
        """Token ids of a response and its end-of-turn token.

        A special piece that is spelt out in the text is written in ordinary pieces, so that no text ends its own turn.
        """
        return [*self.text_ids(text), self.end_of_turn_id]

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text inside a response."""
        return self._tokenise(text, split_special_tokens=True)

    def completion_ids(self, text: str) -> list[int]:
        """Token ids of a text that a model is to complete, without a template; with the beginning-of-sequence token
        that its tokenizer puts before a text, if it does."""
        bos = self.tokenizer.bos_token_id
        begins = bos is not None and list(self.tokenizer("x", verbose=False)["input_ids"])[:1] == [bos]
        return [*([int(bos)] if begins else []), *self.text_ids(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a response, up to its first stop token."""
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), len(ids))
        text = self.tokenizer.decode(list(ids[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def encode(self, example: Example, *, max_length: int, on_too_long: OnTooLong, ledger: Ledger) -> Encoded | None:
        """The example as token ids, or None where it was left out and counted.

        max_length: of prompt and response together, in tokens. `truncate` cuts the end of the response, its
        end-of-turn first: a cut must never be rewarded with an end. A prompt that fills max_length alone has no room
        for any response, and is left out under `truncate` too. DataError under `error`.
        """
        prompt, response = self.prompt_ids(example.prompt), self.response_ids(example.response)
        if example.prompt[0].role == "system" and not self.takes_system:
            ledger.count(f"system text moved into the user's turn ({self.who})", example.language)
        room = max_length - len(prompt)
        if len(response) <= room:
            return Encoded(prompt, response, truncated=False, example=example)
        if on_too_long == "error":
            raise DataError(self._too_long(example, len(prompt), len(response), max_length))
        if on_too_long == "truncate" and room > 0:
            ledger.count("response truncated to max_length", example.language, str(example.origin))
            return Encoded(prompt, response[:room], truncated=True, example=example)
        event = "row over max_length left out" if room > 0 else "prompt alone over max_length, row left out"
        ledger.count(event, example.language, str(example.origin))
        return None

    def _too_long(self, example: Example, prompt: int, response: int, max_length: int) -> str:
        least = "its prompt alone leaves no room for a response" if prompt >= max_length else "together too long"
        return (
            f"{example.origin}: {prompt:,} prompt and {response:,} response tokens of the {self.who}, {least} for "
            f"data.max_length: {max_length:,}. Set it to {prompt + response:,} or more, if the model's context allows, "
            "or set data.on_too_long to skip or truncate."
        )

    # The template

    def _probe(self) -> tuple[dict[str, Any], str]:
        """(options under which the prompt is the beginning of the whole conversation, text after the answer)."""
        # Qwen 3 and its kin write an empty think block in front of past answers, and in the prompt if told so.
        for options in ({}, {"enable_thinking": False}):
            try:
                prompt = self._render([QUESTION], add_generation_prompt=True, **options)
                whole = self._render([QUESTION, Turn("assistant", ANSWER)], add_generation_prompt=False, **options)
            except TemplateError as error:
                raise ModelError(f"{self.who}.chat_template can't be rendered: {error}") from error
            if whole.startswith(prompt + ANSWER):
                return options, whole[len(prompt + ANSWER) :]
        raise ModelError(
            f"{self.who}.chat_template: its generation prompt {prompt!r} is not the beginning of a conversation with "
            f"an answer, {whole!r}, so that training and generation would differ. Set chatml, plain, or a Jinja file."
        )

    def _end_of_turn(self, ending: str) -> int:
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        special |= set(self.tokenizer.all_special_ids)
        # What comes after it, as ChatML's line break, is written by the template when the next turn begins.
        found = next((token for token in self._tokenise(ending) if token in special), self.tokenizer.eos_token_id)
        if found is None:
            raise ModelError(
                f"{self.who}.chat_template ends an answer with {ending!r}, which holds no special piece, and there is "
                "no end-of-sequence piece: nothing could tell the model to stop. Set another chat_template."
            )
        return int(found)

    def _takes_system(self) -> bool:
        try:
            return "instruction" in self._render(
                [Turn("system", "instruction"), QUESTION], add_generation_prompt=True, **self.options
            )
        except TemplateError:
            return False

    def _fitting(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        if turns[0].role != "system" or self.takes_system or len(turns) == 1:
            return turns
        system, first, *others = turns
        return [Turn(first.role, f"{system.content}\n\n{first.content}"), *others]

    def _render(self, turns: Sequence[Turn], **options: Any) -> str:
        messages = [turn._asdict() for turn in turns]
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **FIXED, **options))
        except FAULTS as error:
            # A template is a stranger's program: whatever it stumbles over is its fault, and not a bug of ours.
            raise TemplateRuntimeError(f"{type(error).__name__}: {str(error)[:500]}") from error

    def _tokenise(self, text: str, **options: Any) -> list[int]:
        # The template wrote every special piece, a BOS included: the tokenizer must not add a second one.
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"])
