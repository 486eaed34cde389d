"""How much two states differ."""

from __future__ import annotations

from swirl_lightning.types import State


def change(before: State, after: State) -> float:
    """The share of two states that is not alike.

    Of text and of files it is what lies between the longest common beginning and the longest common end, as a share of the
    longer one: 0 where they are equal, 1 where nothing at either end is.

    Args:
        before: text, or an encoded image, of which only equality says something.
        after: likewise.

    Returns:
        A number in [0, 1].
    """
    if before == after:
        return 0.0
    if isinstance(before, bytes) or isinstance(after, bytes):
        return 1.0
    shorter, longer = min(len(before), len(after)), max(len(before), len(after))
    head = _common(before, after, shorter)
    tail = _common(before[::-1], after[::-1], shorter - head)
    return (longer - head - tail) / longer


def _common(one: str, other: str, most: int) -> int:
    """Length of the common beginning, by halving: comparing slices costs less than comparing characters."""
    low = 0
    while low < most:
        middle = (low + most + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            most = middle - 1
    return low
