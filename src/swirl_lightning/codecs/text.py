"""Text codec: states and actions are strings, token ids come from any ``transformers`` tokenizer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.codecs.chat import ChatTemplate
from swirl_lightning.codecs.spelling import Speller
from swirl_lightning.types import Role, State

log = logging.getLogger(__name__)

_ROUNDS = 4  # of encoding and decoding, after which a text no longer changes

CODEC = "codec.json"
"""Beside a tokenizer: its model speaks something else than plain text."""


class TextCodec:
    """A ``transformers`` tokenizer as a codec.

    Data never spells special tokens: a web page that contains ``<|im_end|>`` is encoded as ordinary characters.

    Args:
        tokenizer: a tokenizer, a hub name or a local folder.
        stop_ids: tokens that end a completion besides the tokenizer's own; see :func:`known_stops`.
        chat: completions end as the chat template ends an answer, where that differs from the tokenizer's end token.
        chat_template_kwargs: variables of the chat template.

    Raises:
        ValueError: if the tokenizer has no end-of-sequence token, which ends every completion.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | str,
        *,
        stop_ids: Sequence[int] = (),
        chat: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(tokenizer, str):
            stop_ids = (*stop_ids, *known_stops(tokenizer))
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"tokenizer {tokenizer.name_or_path!r} has no eos_token: completions could never end. "
                "Set one, e.g. tokenizer.add_special_tokens({'eos_token': '</s>'}), and save the tokenizer again."
            )
        turn = ChatTemplate(tokenizer, chat_template_kwargs or {}).end_of_turn() if tokenizer.chat_template else None
        self.eos_id: int = int(tokenizer.eos_token_id) if turn is None or not chat else turn
        own = [self.eos_id, int(tokenizer.eos_token_id), *([] if turn is None else [turn])]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([*own, *self._special(stop_ids)]))
        self._speller = Speller(tokenizer, self.stop_ids)
        self._prefix = " " if self._raw_decode(self._encode("a")) == " a" else ""

    def _special(self, stop_ids: Sequence[int]) -> list[int]:
        """Those of ``stop_ids`` that are special tokens; others are a configuration's slip, and would cut texts short."""
        known = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        if slips := sorted(set(stop_ids) - known):
            name = self.tokenizer.name_or_path
            log.warning("stop tokens %s are no special tokens of tokenizer %r: they do not stop a completion", slips, name)
        return [i for i in stop_ids if i in known]

    @property
    def pad_id(self) -> int:
        """Padding token, or the end token where the tokenizer has none (padding is always masked)."""
        pad = self.tokenizer.pad_token_id
        return self.eos_id if pad is None else int(pad)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return len(self.tokenizer)

    def _encode(self, text: str) -> list[int]:
        return self._speller.encode(text)

    def _raw_decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _decode(self, ids: Sequence[int]) -> str:
        kept = list(ids)
        if kept and kept[-1] in self.stop_ids:
            kept = kept[:-1]
        return self._raw_decode(kept).removeprefix(self._prefix)

    def encode_state(self, state: State) -> list[int]:
        """Token ids of a text state.

        Raises:
            TypeError: if the state is an image; a visual world needs an image codec.
        """
        if not isinstance(state, str):
            raise TypeError(f"TextCodec got a state of type {type(state).__name__}; a visual world needs an image codec")
        return self._encode(state)

    def decode_state(self, ids: Sequence[int]) -> State:
        """Text of a state completion."""
        return self._decode(ids)

    def encode_action(self, action: str) -> list[int]:
        """Token ids of an action."""
        return self._encode(action)

    def decode_action(self, ids: Sequence[int]) -> str:
        """Text of an action completion."""
        return self._decode(ids)

    def encode_literal(self, text: str) -> list[int]:
        """Token ids of template text; special tokens written in it are special."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def constraint(self, role: Role) -> TokenConstraint | None:
        """None: a role may emit any text."""
        return None

    def prepare(self, states: Iterable[State]) -> None:
        """Nothing: text is encoded when it is needed."""

    def canonical(self, state: State) -> State:
        """The text as the tokenizer gives it back: its case, spaces and characters may be all that it can tell apart."""
        assert isinstance(state, str)
        unknown, text = self.tokenizer.unk_token, state
        for _ in range(_ROUNDS):
            parts = text.split(unknown) if unknown else [text]  # what is unknown stays so, though its name could be spelt
            again = (unknown or "").join(self._decode(self._encode(part)) for part in parts)
            if again == text:
                break
            text = again
        return text

    def units(self, state: State) -> Sequence[Hashable]:
        """Token ids."""
        return self.encode_state(state)

    def render(self, state: State) -> State:
        """The text itself."""
        return state

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the tokenizer and, of a subclass, its name: whoever reads the folder as plain text is told."""
        self.tokenizer.save_pretrained(str(folder))
        if type(self) is not TextCodec:
            named = {"class_path": f"{type(self).__module__}.{type(self).__qualname__}"}
            (Path(folder) / CODEC).write_text(json.dumps(named) + "\n", encoding="utf-8")


def known_stops(base: str) -> list[int]:
    """Stop tokens that a model's ``generation_config.json`` names or, without one, its ``config.json``.

    Args:
        base: hub name or local folder; one that holds neither file knows none.
    """
    try:
        ids = GenerationConfig.from_pretrained(base).eos_token_id
    except OSError:
        try:
            config = PretrainedConfig.get_config_dict(base)[0]
        except OSError:
            return []
        ids = config.get("eos_token_id", config.get("text_config", {}).get("eos_token_id"))
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


CodecCallable = Callable[[str], TextCodec]
"""Makes the codec of a tokenizer's name or folder; also given ``stop_ids``, ``chat`` and ``chat_template_kwargs``."""
