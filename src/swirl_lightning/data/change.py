"""How much two states differ."""

from __future__ import annotations

import numpy as np

from swirl_lightning.codecs.image_pixels import pixels
from swirl_lightning.types import State


def change(before: State, after: State) -> float:
    """The share of two states that is not alike.

    Of text it is what lies between the longest common beginning and the longest common end, as a share of the longer one: 0
    where they are equal, 1 where nothing at either end is. Of images it is the mean difference of their pixels at 32 x 32, as
    a share of the whole range.

    Args:
        before: text, or an encoded image.
        after: likewise.

    Returns:
        A number in [0, 1].
    """
    if before == after:
        return 0.0
    if isinstance(before, bytes) and isinstance(after, bytes):
        small = [pixels(image, 32).astype(np.float32) for image in (before, after)]
        return float(np.abs(small[0] - small[1]).mean()) / 255
    assert isinstance(before, str)
    assert isinstance(after, str)
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
