"""Longest common subsequences by bit vectors (Hyyrö, Bit-parallel LCS-length computation revisited, 2004).

A Python integer is a column of the usual table, so a pair of texts of 4,000 words takes milliseconds where the table in plain
Python takes half a minute. ``rapidfuzz`` does the same in C++, but only the measures of pages need it otherwise.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import accumulate

_TABLE_BITS = 1 << 28  # a larger table is halved first (Hirschberg, 1975)


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of a longest common subsequence."""
    start, end = _equal_ends(a, b)
    a, b = a[start : len(a) - end], b[start : len(b) - end]
    return start + end + len(a) - _last_row(a, b).bit_count()


def lcs_positions(a: Sequence[Hashable], b: Sequence[Hashable]) -> set[int]:
    """Positions in ``b`` of one longest common subsequence; equal beginnings and ends are matched with each other."""
    kept: set[int] = set()
    parts = [(0, a, b)]  # where b begins, a, b
    while parts:
        place, a, b = parts.pop()
        start, end = _equal_ends(a, b)
        kept.update(range(place, place + start), range(place + len(b) - end, place + len(b)))
        place, a, b = place + start, a[start : len(a) - end], b[start : len(b) - end]
        if len(b) < 2 or len(a) * len(b) <= _TABLE_BITS:
            kept.update(place + j for j in _traced(a, b))
            continue
        half = len(b) // 2
        before, after = _lengths(a, b[:half]), _lengths(a[::-1], b[half:][::-1])
        cut = max(range(len(a) + 1), key=lambda i: before[i] + after[len(after) - 1 - i])
        parts += [(place, a[:cut], b[:half]), (place + half, a[cut:], b[half:])]
    return kept


def _equal_ends(a: Sequence[Hashable], b: Sequence[Hashable]) -> tuple[int, int]:
    """How many items are equal at the beginning, and how many of the others at the end."""
    shorter = min(len(a), len(b))
    start = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    end = next((i for i in range(shorter - start) if a[-1 - i] != b[-1 - i]), shorter - start)
    return start, end


def _rows(a: Sequence[Hashable], b: Sequence[Hashable]) -> Iterator[int]:
    """A row for every item of ``b``; a zero bit: one more matches up to this item of ``a`` than up to the one before."""
    places: dict[Hashable, int] = {}
    for i, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << i
    row = full = (1 << len(a)) - 1
    for item in b:
        matched = row & places.get(item, 0)
        row = ((row + matched) | (row - matched)) & full
        yield row


def _last_row(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    row = (1 << len(a)) - 1
    for row in _rows(a, b):  # noqa: B007  # the last one is wanted
        pass
    return row


def _lengths(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[int]:
    """Lengths for every beginning of ``a``, the empty one first."""
    bits = f"{_last_row(a, b):0{len(a)}b}"[::-1]
    return [0, *accumulate(bit == "0" for bit in bits)]


def _traced(a: Sequence[Hashable], b: Sequence[Hashable]) -> Iterator[int]:
    """Positions in ``b``, last to first, by going back through the rows."""
    rows = list(_rows(a, b))
    i, j = len(a), len(b)
    while i and j:
        if rows[j - 1] >> (i - 1) & 1:
            i -= 1
            continue
        j -= 1
        if j == 0 or rows[j - 1] >> (i - 1) & 1:
            yield j
            i -= 1
