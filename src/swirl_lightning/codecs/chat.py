"""Chat templates: a wording as the conversation that an instruction-tuned model expects, its slots left as they are.

A template is a program: it may drop, repeat or shout what it is given, or look at the clock. So it is never given a slot:
it renders stand-ins for them, twice, and what stands between the stand-ins must be the same both times.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

_FAILURES = (TemplateError, TypeError, AttributeError, KeyError)  # what a template's own code may raise
_ARGUMENTS = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters.keys()
_RESERVED = (_ARGUMENTS - {"documents", "kwargs"}) | {"messages", "strftime_now"}


class _ChangedError(ValueError):
    """What a template did to the text that it was given."""


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template with what it is told.

    Attributes:
        tokenizer: With a chat template.
        kwargs: Variables of the template, e.g. ``{enable_thinking: false}``.
    """

    tokenizer: PreTrainedTokenizerBase
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered.

        Raises:
            ValueError: if the tokenizer has no template, or a variable has the name of an argument of the call that renders it.
        """
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"prompts.chat is on, but tokenizer {self.tokenizer.name_or_path!r} has no chat template: "
                "turn chat off or choose an instruction-tuned model"
            )
        if taken := sorted(_RESERVED & self.kwargs.keys()):
            raise ValueError(f"prompts.chat_template_kwargs: {taken[0]!r} is set by the program, it is no template variable")

    def around(self, literals: Sequence[str], slots: Sequence[str], system: str = "") -> list[str]:
        """The fixed texts of a prompt whose wording is the user's message.

        Args:
            literals: fixed texts of the wording, S + 1.
            slots: names of the S slots between them.
            system: system message; empty for none.

        Returns:
            S + 1 texts around the slots, chat markers included.

        Raises:
            ValueError: if the template fails, refuses or loses the system message, loses, repeats or changes a slot, or
                renders differently from one time to the next.
        """
        try:
            return self._either_way(lambda parts: self._steady(literals, slots, system, parts))
        except _ChangedError as error:
            raise ValueError(f"{self._name} {error}") from error
        except _FAILURES as error:
            if system:
                self.around(literals, slots)  # raises what is wrong where it is not the system message
                raise ValueError(
                    f"{self._name} takes no system message ({error}): leave prompts.system empty and say it in the wordings"
                ) from error
            raise ValueError(f"{self._name} cannot be rendered: {error}; turn prompts.chat off") from error

    def end_of_turn(self) -> int | None:
        """Id of the special token that ends an answer, or None where the template has none."""
        answer = _stand_in(0, 0)

        def after(parts: bool) -> str:
            text = self._render([("user", "q"), ("assistant", answer)], 0, parts, ask=False)
            if answer not in text:
                raise _ChangedError
            return text[text.rindex(answer) + len(answer) :]

        try:
            ids = self.tokenizer(self._either_way(after).lstrip(), add_special_tokens=False)["input_ids"]
        except (_ChangedError, *_FAILURES):
            return None
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        return int(ids[0]) if len(ids) and ids[0] in special else None

    @property
    def _name(self) -> str:
        return f"prompts.chat: the chat template of tokenizer {self.tokenizer.name_or_path!r}"

    def _either_way(self, use: Callable[[bool], T]) -> T:
        """With contents as texts or, where that fails, as lists of parts: some templates print nothing of a text."""
        try:
            return use(False)
        except (_ChangedError, *_FAILURES) as error:
            try:
                return use(True)
            except (_ChangedError, *_FAILURES):
                raise error from None

    def _steady(self, literals: Sequence[str], slots: Sequence[str], system: str, parts: bool) -> list[str]:
        first, second = (self._between(literals, slots, system, parts, turn) for turn in range(2))
        if first != second:
            raise _ChangedError(
                "renders differently from one time to the next (it reads the clock, draws, or looks into the slots): fix what "
                "it reads in prompts.chat_template_kwargs, e.g. date_string, or turn prompts.chat off"
            )
        return first

    def _between(self, literals: Sequence[str], slots: Sequence[str], system: str, parts: bool, turn: int) -> list[str]:
        stand_ins = [_stand_in(number, turn) for number in range(len(slots))]
        wording = "".join(a + b for a, b in zip(literals, [*stand_ins, ""], strict=True))
        messages = [("system", system)] if system else []
        text = self._render([*messages, ("user", wording)], turn, parts)
        if system.strip() not in text:
            raise _ChangedError("loses or changes prompts.system: leave it empty and say it in the wordings")
        pieces: list[str] = []
        for slot, stand_in in zip(slots, stand_ins, strict=True):
            if (count := text.count(stand_in)) != 1:
                what = "repeats" if count else "loses or changes"
                raise _ChangedError(f"{what} the slot {{{slot}}}: turn prompts.chat off, or give it another template")
            before, _, text = text.partition(stand_in)
            pieces.append(before)
        return [*pieces, text]

    def _render(self, messages: Sequence[tuple[str, str]], turn: int, parts: bool, ask: bool = True) -> str:
        """The text of a conversation; the clock that the template sees stands still at ``turn``."""
        turns: list[dict[str, Any]] = [
            {"role": role, "content": [{"type": "text", "text": t}] if parts else t} for role, t in messages
        ]
        clock = f"{{% macro strftime_now(format) %}}moment {turn}{{% endmacro %}}"
        program = clock + str(self.tokenizer.get_chat_template())
        return str(
            self.tokenizer.apply_chat_template(
                turns, chat_template=program, tokenize=False, add_generation_prompt=ask, **self.kwargs
            )
        )


def _stand_in(number: int, turn: int) -> str:
    """A text that no template should change: cases, quotes, markup, spaces, a line break; another one each turn."""
    return f"Slot{number}-{turn}  \"'&<É>\\\n{{Öq}}\t{'longer ' * turn}End{number}"
