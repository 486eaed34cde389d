"""Prompts of both roles: templates with slots, chat or plain, encoded segment by segment.

Every slot is encoded on its own and the pieces are concatenated. So the members of a group share their prefix token by
token, a truncation can never cut the action or the answer, and image states need no text form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from swirl_lightning.codecs.base import Codec
from swirl_lightning.codecs.chat import ChatTemplate
from swirl_lightning.types import Role, ScoredRow, State, Transition, UnlabelledPair

SLOT = re.compile(r"\{(context|state|action|next_state)\}")
_REQUIRED = {Role.FWM: {"state", "action"}, Role.IDM: {"state", "next_state"}}
_FORBIDDEN = {Role.FWM: {"next_state"}, Role.IDM: {"action"}}
_LONGEST = 64  # characters of a token, at most, where only the ends of a huge text are encoded


@dataclass(frozen=True)
class PromptTemplates:
    """Wordings of both roles, with the slots ``{context} {state} {action} {next_state}``.

    Put ``{state}`` before what varies within a group: the longer the shared prefix, the less is computed.

    Attributes:
        fwm: Wordings that ask for the next state; need ``{state}`` and ``{action}``.
        idm: Wordings that ask for the action; need ``{state}`` and ``{next_state}``.
        unknown_action: What stands for the action of a pair whose action is not known, where the FWM learns from states alone.
        system: System message; used with ``chat`` only.
        chat: Wrap the wording with the tokenizer's chat template.
        chat_template_kwargs: Variables of that template, e.g. ``{enable_thinking: false}`` or ``{date_string: "1 Jan 2026"}``.
    """

    fwm: Sequence[str] = ("State:\n{state}\nAction: {action}\nNext state:\n",)
    idm: Sequence[str] = ("State:\n{state}\nNext state:\n{next_state}\nAction: ",)
    unknown_action: str = "?"
    system: str = ""
    chat: bool = False
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the slots of every wording.

        Raises:
            ValueError: naming the role, the wording and the slot that is missing or that would give the answer away; or what
                would do nothing without ``chat``.
        """
        if self.chat_template_kwargs and not self.chat:
            raise ValueError("prompts.chat_template_kwargs does nothing without prompts.chat; turn chat on, or leave it out")
        for role in Role:
            wordings = self.of(role)
            if isinstance(wordings, str) or not wordings:
                raise ValueError(f"prompts.{role.value}: give a non-empty list of wordings, got {wordings!r}")
            for wording in wordings:
                slots = set(SLOT.findall(wording))
                if missing := _REQUIRED[role] - slots:
                    raise ValueError(f"prompts.{role.value}: slot {{{sorted(missing)[0]}}} is missing in {wording!r}")
                if leaks := _FORBIDDEN[role] & slots:
                    raise ValueError(f"prompts.{role.value}: slot {{{sorted(leaks)[0]}}} gives the answer away in {wording!r}")

    def of(self, role: Role) -> Sequence[str]:
        """The wordings of a role."""
        return self.fwm if role is Role.FWM else self.idm

    @property
    def codec_options(self) -> dict[str, Any]:
        """What a codec must know of them: with which token an answer ends."""
        return {"chat": self.chat, "chat_template_kwargs": self.chat_template_kwargs}


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as token ids, and how many tokens of its states and context had to be cut to fit (of huge ones, about)."""

    ids: tuple[int, ...]
    cut: int = 0


@dataclass
class PromptBuilder:
    """Encodes prompts and scored rows of both roles.

    Attributes:
        codec: Turns slots into token ids.
        templates: The wordings.
        max_prompt_tokens: Prompts are cut to this length; states and context lose their middle, actions never.
    """

    codec: Codec
    templates: PromptTemplates = field(default_factory=PromptTemplates)
    max_prompt_tokens: int = 4096
    _segments: dict[tuple[Role, int], list[str | list[int]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse wordings that leave no room for a state.

        Raises:
            ValueError: if the literal text of a wording alone fills ``max_prompt_tokens``.
        """
        for role in Role:
            for wording in range(len(self.templates.of(role))):
                literal = sum(len(piece) for piece in self._pieces(role, wording) if isinstance(piece, list))
                if literal >= self.max_prompt_tokens:
                    raise ValueError(
                        f"prompts.{role.value}: wording {wording} has {literal} tokens of fixed text, but "
                        f"max_prompt_tokens is {self.max_prompt_tokens}: nothing is left for the state"
                    )

    def wording_of(self, pair: UnlabelledPair | Transition, role: Role, epoch: int = 0) -> int:
        """One wording for a whole group: a function of the pair and the epoch only."""
        count = len(self.templates.of(role))
        if count == 1:
            return 0
        key = f"{pair.episode}/{pair.step}/{epoch}".encode()
        return int(sum(byte * 31**i for i, byte in enumerate(key)) % count)

    def fwm_prompt(self, pair: UnlabelledPair | Transition, action: str, wording: int = 0) -> EncodedPrompt:
        """Prompt that asks the FWM for the state after ``action``."""
        return self._build(Role.FWM, wording, {"context": pair.context, "state": pair.state, "action": action})

    def idm_prompt(self, pair: UnlabelledPair | Transition, next_state: State | None = None, wording: int = 0) -> EncodedPrompt:
        """Prompt that asks the IDM which action led from the pair's state to ``next_state`` (default: the observed one)."""
        observed = pair.next_state if next_state is None else next_state
        return self._build(Role.IDM, wording, {"context": pair.context, "state": pair.state, "next_state": observed})

    def state_completion(self, state: State) -> list[int]:
        """What the FWM should answer: the state and the end token."""
        return [*self.codec.encode_state(state), self.codec.eos_id]

    def action_completion(self, action: str) -> list[int]:
        """What the IDM should answer: the action and the end token."""
        return [*self.codec.encode_action(action), self.codec.eos_id]

    def fwm_row(self, pair: UnlabelledPair | Transition, action: str, next_state: State, wording: int = 0) -> ScoredRow:
        """The row whose tail is ``log P(next_state | state, action)``."""
        prompt = self.fwm_prompt(pair, action, wording).ids
        return ScoredRow((*prompt, *self.state_completion(next_state)), len(prompt))

    def state_only_row(self, pair: UnlabelledPair, wording: int = 0) -> ScoredRow:
        """The row whose tail is ``log P(next_state | state)``, whatever the action was."""
        return self.fwm_row(pair, self.templates.unknown_action, pair.next_state, wording)

    def idm_row(self, pair: UnlabelledPair | Transition, next_state: State, action: str, wording: int = 0) -> ScoredRow:
        """The row whose tail is ``log Q(action | state, next_state)``."""
        prompt = self.idm_prompt(pair, next_state, wording).ids
        return ScoredRow((*prompt, *self.action_completion(action)), len(prompt))

    def _build(self, role: Role, wording: int, slots: Mapping[str, State]) -> EncodedPrompt:
        pieces: list[tuple[str, list[int]]] = []
        unread = 0
        for piece in self._pieces(role, wording):
            if isinstance(piece, list):
                pieces.append(("", piece))
            else:
                slot = piece if isinstance(slots[piece], str) else "image"  # half an image is none
                ids, left_out = self._encode_slot(piece, slots[piece])
                pieces.append((slot, ids))
                unread += left_out
        excess = max(0, sum(len(ids) for _, ids in pieces) - self.max_prompt_tokens)
        kept = _cut_evenly(pieces, excess, role) if excess else [ids for _, ids in pieces]
        return EncodedPrompt(tuple(token for ids in kept for token in ids), cut=excess + unread)

    def _encode_slot(self, slot: str, value: State) -> tuple[list[int], int]:
        """Token ids, and about how many more the middle of a text has that is too long for any prompt: it is not encoded."""
        if not isinstance(value, str):
            return self.codec.encode_state(value), 0
        encode = self.codec.encode_action if slot in {"action", "context"} else self.codec.encode_state
        reach = self.max_prompt_tokens * _LONGEST
        if slot == "action" or len(value) <= 2 * reach:
            return encode(value) if value or slot != "context" else [], 0
        ids = [*encode(value[:reach]), *encode(value[-reach:])]
        return ids, (len(value) - 2 * reach) * len(ids) // (2 * reach)

    def _pieces(self, role: Role, wording: int) -> list[str | list[int]]:
        """The wording as literal token ids and slot names, chat markers included; cached."""
        key = (role, wording)
        if key not in self._segments:
            parts = SLOT.split(self.templates.of(role)[wording])  # literal, slot, literal, slot, ..., literal
            literals, slots = parts[::2], parts[1::2]
            if self.templates.chat:
                chat = ChatTemplate(self.codec.tokenizer, self.templates.chat_template_kwargs)
                literals = chat.around(literals, slots, self.templates.system)
            pieces: list[str | list[int]] = []
            for literal, slot in zip_longest(literals, slots):
                pieces += [self.codec.encode_literal(literal)] if literal else []
                pieces += [slot] if slot is not None else []
            if not self.templates.chat and (bos := self.codec.tokenizer.bos_token_id) is not None:
                pieces.insert(0, [int(bos)])
            self._segments[key] = pieces
        return self._segments[key]


def _cut_evenly(pieces: list[tuple[str, list[int]]], excess: int, role: Role) -> list[list[int]]:
    """Takes ``excess`` tokens out of the middle of the text states and the context, longest first.

    Raises:
        ValueError: if the action, images and the fixed text alone are too long.
    """
    cuttable = [i for i, (slot, _) in enumerate(pieces) if slot in {"state", "next_state", "context"}]
    room = {i: len(pieces[i][1]) for i in cuttable}
    if sum(room.values()) < excess:
        raise ValueError(
            f"{role.value} prompt: the action, images and the fixed text alone exceed max_prompt_tokens by "
            f"{excess - sum(room.values())} tokens; raise max_prompt_tokens"
        )
    level, left = _water_level(sorted(room.values()), sum(room.values()) - excess)
    kept: list[list[int]] = []
    for i, (_, ids) in enumerate(pieces):
        if i not in room or len(ids) <= level:
            kept.append(ids)
            continue
        keep = level + (1 if left > 0 else 0)
        left -= 1
        head = (keep + 1) // 2
        kept.append(ids[:head] + (ids[len(ids) - (keep - head) :] if keep > head else []))
    return kept


def _water_level(lengths: list[int], budget: int) -> tuple[int, int]:
    """Largest common cap ``c`` with ``sum(min(length, c)) <= budget``, and what is left over."""
    spent = 0
    for i, length in enumerate(lengths):
        remaining = len(lengths) - i
        if spent + length * remaining > budget:
            level = (budget - spent) // remaining
            return level, budget - spent - level * remaining
        spent += length
    return max(lengths, default=0), 0
