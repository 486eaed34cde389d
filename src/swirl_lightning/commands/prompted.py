"""Prompts and answers as the models see them: examples to read, and how long they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from swirl_lightning.codecs import TextCodec
from swirl_lightning.types import Role, State, Transition, UnlabelledPair
from swirl_lightning.world_model.prompts import SLOT, EncodedPrompt, PromptBuilder, PromptTemplates

PERCENTILES = (50, 90, 99, 100)
_WHOLE = 1 << 24  # tokens: nothing is cut
Row = Transition | UnlabelledPair


@dataclass
class Example:
    """What a role is asked about one transition, and what it should answer.

    Attributes:
        role: ``fwm`` or ``idm``.
        episode: Episode of the transition.
        step: Step of the transition.
        prompt: As the model reads it; where its middle is cut, it says so.
        answer: None where the data do not say.
        cut: Tokens that the prompt lost.
        answer_cut: Tokens of the answer beyond ``max_new_tokens``.
        prompt_tokens: Each token's text; None without a tokenizer.
        answer_tokens: Likewise, the end token included.
    """

    role: str
    episode: str
    step: int
    prompt: str
    answer: str | None
    cut: int = 0
    answer_cut: int = 0
    prompt_tokens: list[str] | None = None
    answer_tokens: list[str] | None = None


@dataclass
class Prompted:
    """Asks as the models will be asked; counts tokens where a tokenizer is known, characters otherwise.

    Attributes:
        codec: Codec of the model; None counts characters.
        templates: The wordings.
        max_prompt_tokens: Prompts are cut to this length.
        max_new_tokens: Most new tokens of each role's answers.
    """

    codec: TextCodec | None
    templates: PromptTemplates
    max_prompt_tokens: int
    max_new_tokens: Mapping[Role, int]
    _cut: PromptBuilder | None = field(default=None, init=False)
    _whole: PromptBuilder | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Make the builders."""
        if self.codec is not None:
            self._cut = PromptBuilder(self.codec, self.templates, self.max_prompt_tokens)
            self._whole = PromptBuilder(self.codec, self.templates, _WHOLE)

    @property
    def unit(self) -> str:
        """What lengths count."""
        return "characters" if self.codec is None else "tokens"

    def example(self, role: Role, row: Row) -> Example | None:
        """One transition as a role sees it; None where the role cannot be asked, since there is no action."""
        if role is Role.FWM and not isinstance(row, Transition):
            return None
        if self._cut is None or self._whole is None:
            return Example(role.value, row.episode, row.step, self._text(role, row), _shown(_answer(role, row)))
        kept, whole = _ask(self._cut, role, row), _ask(self._whole, role, row)
        made = Example(role.value, row.episode, row.step, self._with_cut(kept, whole.ids), None, kept.cut)
        made.prompt_tokens = [self._token(i) for i in kept.ids]
        if (answer := self._answer_ids(role, row)) is not None:
            made.answer, made.answer_tokens = self._decoded(answer), [self._token(i) for i in answer]
            made.answer_cut = max(0, len(answer) - self.max_new_tokens[role])
        return made

    def lengths(self, rows: Iterable[Row]) -> dict[str, dict[str, list[int]]]:
        """Lengths of whole prompts and answers, by role and by ``prompt`` and ``answer``."""
        found: dict[str, dict[str, list[int]]] = {role.value: {"prompt": [], "answer": []} for role in Role}
        for row in rows:
            for role in Role:
                if role is Role.FWM and not isinstance(row, Transition):
                    continue
                prompt = self._text(role, row) if self._whole is None else _ask(self._whole, role, row).ids
                answer: Sized | None = _answer(role, row) if self._whole is None else self._answer_ids(role, row)
                found[role.value]["prompt"].append(len(prompt))
                if answer is not None:
                    found[role.value]["answer"].append(len(answer))
        return found

    def _answer_ids(self, role: Role, row: Row) -> Sequence[int] | None:
        assert self._whole is not None
        if role is Role.FWM:
            return self._whole.state_completion(row.next_state)
        return self._whole.action_completion(row.action) if isinstance(row, Transition) else None

    def _text(self, role: Role, row: Row) -> str:
        return SLOT.sub(lambda slot: _shown(getattr(row, slot.group(1))) or "", self.templates.of(role)[0])

    # ------------------------------------------------------------------ tokens as text

    def _decoded(self, ids: Sequence[int]) -> str:
        """Text of tokens; codes of an image are counted, not shown."""
        assert self.codec is not None
        known = len(self.codec.tokenizer)
        runs = [(is_code, list(run)) for is_code, run in groupby(ids, lambda i: i >= known)]
        decode = self.codec.tokenizer.decode
        return "".join(f"<{len(run)} image tokens>" if is_code else str(decode(run)) for is_code, run in runs)

    def _token(self, token: int) -> str:
        assert self.codec is not None
        known = len(self.codec.tokenizer)
        return str(self.codec.tokenizer.decode([token])) if token < known else f"<code {token - known}>"

    def _with_cut(self, kept: EncodedPrompt, whole: Sequence[int]) -> str:
        """The prompt's text, with a mark where tokens were taken out: up to two places are found."""
        ids = kept.ids
        if not kept.cut:
            return self._decoded(ids)
        head = next((i for i, (a, b) in enumerate(zip(ids, whole, strict=False)) if a != b), len(ids))
        rest = list(zip(reversed(ids[head:]), reversed(whole), strict=False))
        tail = next((i for i, (a, b) in enumerate(rest) if a != b), len(rest))
        parts = [ids[:head], ids[head : len(ids) - tail], ids[len(ids) - tail :]]
        return " [... cut ...] ".join(self._decoded(part) for part in parts if len(part))


def _ask(prompts: PromptBuilder, role: Role, row: Row) -> EncodedPrompt:
    if role is Role.IDM:
        return prompts.idm_prompt(row)
    assert isinstance(row, Transition)
    return prompts.fwm_prompt(row, row.action)


def _answer(role: Role, row: Row) -> State | None:
    return row.next_state if role is Role.FWM else row.action if isinstance(row, Transition) else None


def _shown(value: State | None) -> str | None:
    return f"<image of {len(value):,} bytes>" if isinstance(value, bytes) else value


def percentiles(lengths: Sequence[int]) -> dict[str, int] | None:
    """Lengths that half, 90 %, 99 % and all of them do not exceed; None where there are none."""
    if not lengths:
        return None
    values = np.percentile(lengths, PERCENTILES, method="higher")
    return {f"p{at}" if at < 100 else "max": int(value) for at, value in zip(PERCENTILES, values, strict=True)}


def fitting(found: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """The limits that cut nothing of what was measured, by their names in a configuration."""
    prompts = [value for role in found.values() for value in role["prompt"]]
    limits = {"max_prompt_tokens": max(prompts)} if prompts else {}
    answers = {role: max(of["answer"]) for role, of in found.items() if of["answer"]}
    return limits | {f"{role}.sampling.max_new_tokens": longest for role, longest in answers.items()}
