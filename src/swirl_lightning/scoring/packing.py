"""Packing of scored rows: what rows of a group share is kept once, equal rows are kept once, nothing is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swirl_lightning.scoring.attention import PackedLayout, pack_layout, tail_layout
from swirl_lightning.types import Prefixes, ScoredRow

Group = Sequence[ScoredRow]


@dataclass(frozen=True, slots=True)
class PackedRows:
    """R rows as one flat row of N tokens, and what is scored. S scored tokens in all, T in the longest row."""

    ids: Tensor  # int64 [1, N]
    positions: Tensor  # int64 [1, N], restarted for every row
    layout: PackedLayout
    source: Tensor  # int64 [S], flat position whose hidden state predicts the target
    target: Tensor  # int64 [S], token ids
    row: Tensor  # int64 [S], which row a target belongs to
    offset: Tensor  # int64 [S], index of the target inside the scored tail of its row
    mask: Tensor  # bool [R, T]
    rows: tuple[ScoredRow, ...]  # R, in the order given


def common_prefix(rows: Sequence[tuple[int, ...]]) -> int:
    """Number of leading tokens that all ``rows`` share."""
    low, high = min(rows), max(rows)  # what the extremes share, all share
    for i, (a, b) in enumerate(zip(low, high, strict=False)):
        if a != b:
            return i
    return min(len(low), len(high))


def known_of(group: Group, prompt: tuple[int, ...]) -> int:
    """Number of leading tokens that all rows share with ``prompt`` and that predict nothing that is scored."""
    return min(common_prefix([prompt, *(row.ids for row in group)]), min(row.start for row in group) - 1)


def continues(groups: Sequence[Group], prefixes: Prefixes | None) -> bool:
    """Whether every group has something in common with its prompt."""
    return prefixes is not None and all(known_of(*pair) > 0 for pair in zip(groups, prefixes.prompts, strict=True))


def tokens_of(group: Group) -> int:
    """Flat tokens that a group costs: its shared prefix once, and the distinct rest of every distinct row."""
    distinct = {row.ids for row in group}
    prefix = common_prefix(list(distinct))
    return prefix + sum(len(ids) - prefix for ids in distinct)


def micro_batches(groups: Sequence[Group], token_budget: int) -> Iterator[list[int]]:
    """Splits groups into micro-batches of at most ``token_budget`` flat tokens, similar lengths together.

    A group that alone exceeds the budget gets a micro-batch of its own; ``split_groups`` divides it first.

    Args:
        groups: the groups.
        token_budget: flat tokens that fit into one pass.

    Yields:
        Indices into ``groups``; every index exactly once.
    """
    costs = [tokens_of(group) for group in groups]
    batch: list[int] = []
    total = 0
    for i in sorted(range(len(groups)), key=lambda i: (-costs[i], i)):
        if batch and total + costs[i] > token_budget:
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += costs[i]
    if batch:
        yield batch


def split_groups(groups: Sequence[Group], token_budget: int) -> list[list[int]]:
    """Divides groups that exceed ``token_budget`` flat tokens, each part with the prefix of its own.

    Args:
        groups: the groups.
        token_budget: flat tokens that fit into one pass; a single row may exceed it.

    Returns:
        For every part, row numbers in the flattened order of ``groups``; every row exactly once, equal rows together.
    """
    parts: list[list[int]] = []
    first = 0
    for group in groups:
        numbers: dict[tuple[int, ...], list[int]] = {}
        for n, row in enumerate(group, first):
            numbers.setdefault(row.ids, []).append(n)
        first += len(group)
        prefix = common_prefix(list(numbers))
        equal = iter(numbers.values())
        for turn in in_turns([len(ids) - prefix for ids in numbers], token_budget - prefix):
            parts.append([n for _ in turn for n in next(equal)])
    return parts


def pack(groups: Sequence[Group], device: torch.device, prefixes: Prefixes | None = None) -> PackedRows:
    """Packs the rows of several groups.

    Args:
        groups: rows that share a prefix, group by group; single rows may stand as groups of one.
        device: where the tensors live.
        prefixes: a prompt a group, computed already: what its rows share with it stays out of the flat row.

    Returns:
        The packed rows; row order is that of ``groups``, flattened.

    Raises:
        ValueError: if a row has no token before the first scored one, or nothing to score.
    """
    ids: list[int] = []
    positions: list[int] = []
    prefix_lengths: list[int] = []
    member_lengths: list[list[int]] = []
    where: dict[tuple[int, tuple[int, ...]], tuple[int, int, int]] = {}  # (group, ids) -> prefix at, length, tail at
    for index, group in _split_unrelated(groups):
        distinct = list(dict.fromkeys(row.ids for row in group))
        prefix = common_prefix(distinct) if prefixes is None else known_of(group, prefixes.prompts[index])
        at = len(ids)
        if prefixes is None:
            ids.extend(distinct[0][:prefix])
            positions.extend(range(prefix))
        lengths: list[int] = []
        for row_ids in distinct:
            where[index, row_ids] = (at, prefix, len(ids))
            if len(row_ids) > prefix:
                ids.extend(row_ids[prefix:])
                positions.extend(range(prefix, len(row_ids)))
                lengths.append(len(row_ids) - prefix)
        prefix_lengths.append(prefix)
        member_lengths.append(lengths)
    rows = [(i, row) for i, group in enumerate(groups) for row in group]
    source: list[int] = []
    target: list[int] = []
    row_of: list[int] = []
    offset: list[int] = []
    for r, (group_index, row) in enumerate(rows):
        if not 1 <= row.start < len(row.ids):
            raise ValueError(f"row {r}: cannot score tokens {row.start}..{len(row.ids)} of {len(row.ids)} tokens")
        at, prefix, tail = where[group_index, row.ids]
        before = range(row.start - 1, len(row.ids) - 1)
        source.extend(at + j if j < prefix else tail + j - prefix for j in before)
        target.extend(row.ids[row.start :])
        row_of.extend([r] * len(before))
        offset.extend(range(len(before)))
    scored = torch.tensor([len(row.ids) - row.start for _, row in rows])

    def as_tensor(values: Sequence[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    return PackedRows(
        ids=as_tensor([ids]),
        positions=as_tensor([positions]),
        layout=(
            pack_layout(prefix_lengths, member_lengths, device)
            if prefixes is None
            else tail_layout(prefixes.values, prefix_lengths, member_lengths, device)
        ),
        source=as_tensor(source),
        target=as_tensor(target),
        row=as_tensor(row_of),
        offset=as_tensor(offset),
        mask=(torch.arange(int(scored.max())) < scored[:, None]).to(device),
        rows=tuple(row for _, row in rows),
    )


def in_turns(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Consecutive lengths whose sum is at most ``budget`` (or single ones that exceed it)."""
    turn: list[int] = []
    for length in lengths:
        if turn and sum(turn) + length > budget:
            yield turn
            turn = []
        turn.append(length)
    if turn:
        yield turn


def cut(packed: PackedRows, start: int, stop: int, layout: PackedLayout) -> PackedRows:
    """Flat tokens ``start`` to ``stop`` as a pass of their own, with the scored tokens that they predict.

    Args:
        packed: the whole.
        start: first flat token.
        stop: one past the last.
        layout: how the tokens of the part attend.

    Returns:
        The part; rows keep their numbers.
    """
    here = (packed.source >= start) & (packed.source < stop)  # [S]
    return PackedRows(
        ids=packed.ids[:, start:stop],
        positions=packed.positions[:, start:stop],
        layout=layout,
        source=packed.source[here] - start,
        target=packed.target[here],
        row=packed.row[here],
        offset=packed.offset[here],
        mask=packed.mask,
        rows=packed.rows,
    )


def _split_unrelated(groups: Sequence[Group]) -> Iterator[tuple[int, list[ScoredRow]]]:
    """The groups, those without a common first token split by it (a prefix needs at least one token)."""
    for index, group in enumerate(groups):
        by_first: dict[int, list[ScoredRow]] = {}
        for row in group:
            by_first.setdefault(row.ids[0], []).append(row)
        for related in by_first.values():
            yield index, related
