"""The two seams of token space: a codec (state or action <-> token ids) and a constraint (which ids may come next)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from swirl_lightning.types import Role, State


class Codec(Protocol):
    """Turns states and actions into token ids of one shared vocabulary, and back."""

    tokenizer: PreTrainedTokenizerBase

    @property
    def eos_id(self) -> int:
        """Token with which the completions end that are trained on."""
        ...

    @property
    def stop_ids(self) -> Sequence[int]:
        """Tokens that end a completion when they are drawn, ``eos_id`` among them."""
        ...

    @property
    def pad_id(self) -> int:
        """Token that fills the right of a batch; never scored."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        ...

    def encode_state(self, state: State) -> list[int]:
        """Token ids of a state, without special tokens around it."""
        ...

    def decode_state(self, ids: Sequence[int]) -> State:
        """The state that ``ids`` spell; a trailing stop token is ignored."""
        ...

    def encode_action(self, action: str) -> list[int]:
        """Token ids of an action, without special tokens around it."""
        ...

    def decode_action(self, ids: Sequence[int]) -> str:
        """The action that ``ids`` spell; a trailing stop token is ignored."""
        ...

    def encode_literal(self, text: str) -> list[int]:
        """Token ids of template text, in which special tokens (chat markers) count as such."""
        ...

    def constraint(self, role: Role) -> TokenConstraint | None:
        """What a role may emit where its settings name no constraint."""
        ...

    def prepare(self, states: Iterable[State]) -> None:
        """Encodes many states ahead, where that is quicker than one by one."""
        ...

    def canonical(self, state: State) -> State:
        """A state or an action in the form in which decoding gives it, so that equal ones compare equal."""
        ...

    def units(self, state: State) -> Sequence[Hashable]:
        """The parts in which predicted and true states are compared, position by position."""
        ...

    def render(self, state: State) -> State:
        """The state to be looked at: text, or PNG bytes."""
        ...

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what ``load_codec`` reads."""
        ...


class TokenConstraint(ABC):
    """Which tokens may follow, as a pure function of the completion so far.

    Sampling and scoring both use it, so log-probabilities are those of the renormalised distribution.
    """

    vocab_size: int

    @property
    def static(self) -> bool:
        """True when ``allowed`` does not depend on what was generated (one mask serves every position)."""
        return False

    @property
    def by_length(self) -> bool:
        """True when ``allowed`` depends on how many tokens were generated at most, not on which."""
        return self.static

    def key(self, generated: Sequence[int]) -> Hashable:
        """Completions with equal keys have equal masks; by default the completion itself."""
        return tuple(generated)

    @abstractmethod
    def allowed(self, generated: Sequence[int]) -> Tensor:
        """Mask of the tokens that may follow.

        Args:
            generated: completion token ids so far (without the prompt), possibly empty.

        Returns:
            bool [vocab_size] on the CPU; at least one entry is True.
        """
