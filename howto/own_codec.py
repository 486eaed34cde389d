"""A codec of your own: what states and actions are in tokens. This one writes numbers with their last digit first.

model:
  codec: own_codec.LastDigitFirst
"""

from collections.abc import Sequence

from swirl_lightning.codecs import TextCodec
from swirl_lightning.types import State


class LastDigitFirst(TextCodec):
    """A sum is then written in the order in which it is carried: a small model learns to add far sooner."""

    def encode_state(self, state: State) -> list[int]:
        """Token ids of a state."""
        return super().encode_state(state[::-1])

    def decode_state(self, ids: Sequence[int]) -> State:
        """The state that they spell."""
        return super().decode_state(ids)[::-1]
