"""Text codec: states and actions are strings, token ids come from any ``transformers`` tokenizer."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.types import Role, State


class TextCodec:
    """A ``transformers`` tokenizer as a codec.

    Data never spells special tokens: a web page that contains ``<|im_end|>`` is encoded as ordinary characters.

    Args:
        tokenizer: a tokenizer, a hub name or a local folder.

    Raises:
        ValueError: if the tokenizer has no end-of-sequence token, which ends every completion.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | str) -> None:
        if isinstance(tokenizer, str):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"tokenizer {tokenizer.name_or_path!r} has no eos_token: completions could never end. "
                "Set one, e.g. tokenizer.add_special_tokens({'eos_token': '</s>'}), and save the tokenizer again."
            )

    @property
    def eos_id(self) -> int:
        """Token that ends a completion."""
        return int(self.tokenizer.eos_token_id)

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
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return list(ids)

    def _decode(self, ids: Sequence[int]) -> str:
        kept = list(ids)
        if kept and kept[-1] == self.eos_id:
            kept = kept[:-1]
        text = self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

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
        """The text itself."""
        return state

    def units(self, state: State) -> Sequence[Hashable]:
        """Token ids."""
        return self.encode_state(state)

    def render(self, state: State) -> State:
        """The text itself."""
        return state

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save_pretrained(str(folder))
