"""Longest common subsequences by bit vectors (Hyyrö, Bit-parallel LCS-length computation revisited, 2004).

A Python integer is a column of the usual table, so a pair of texts of 4,000 words takes milliseconds where the table in plain
Python takes half a minute. ``rapidfuzz`` does the same in C++, but only the measures of pages need it otherwise.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of a longest common subsequence."""
    start = _equal_at_the_start(a, b)
    end = _equal_at_the_start(a[start:][::-1], b[start:][::-1])
    a, b = a[start : len(a) - end], b[start : len(b) - end]
    places, full = _places(a)
    row = full
    for item in b:
        row = _next_row(row, places.get(item, 0), full)
    return start + end + len(a) - row.bit_count()


def lcs_positions(a: Sequence[Hashable], b: Sequence[Hashable]) -> set[int]:
    """Positions in ``b`` of one longest common subsequence; equal beginnings and ends are matched with each other."""
    start = _equal_at_the_start(a, b)
    end = _equal_at_the_start(a[start:][::-1], b[start:][::-1])
    kept = {*range(start), *range(len(b) - end, len(b))}
    a, b = a[start : len(a) - end], b[start : len(b) - end]
    places, full = _places(a)
    rows: list[int] = []  # a zero bit: one more matches up to here than up to the position before
    for item in b:
        rows.append(_next_row(rows[-1] if rows else full, places.get(item, 0), full))
    i, j = len(a), len(b)
    while i and j:
        if rows[j - 1] >> (i - 1) & 1:
            i -= 1
            continue
        j -= 1
        if j == 0 or rows[j - 1] >> (i - 1) & 1:
            kept.add(start + j)
            i -= 1
    return kept


def _equal_at_the_start(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _places(a: Sequence[Hashable]) -> tuple[dict[Hashable, int], int]:
    """For every item the bits of its positions, and all bits."""
    places: dict[Hashable, int] = {}
    for i, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << i
    return places, (1 << len(a)) - 1


def _next_row(row: int, places: int, full: int) -> int:
    matched = row & places
    return ((row + matched) | (row - matched)) & full
