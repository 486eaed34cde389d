"""State-only pairs that must not be trained on, or that are there already: those of held-out episodes, and of ``data.path``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lightning.pytorch.utilities import rank_zero_info

from swirl_lightning.data.columns import DataError
from swirl_lightning.data.reader import TransitionTable
from swirl_lightning.types import State

HELD_OUT = "pairs of validation and test episodes of data.path, left out"
KNOWN = "pairs that data.path holds as well, left out"
OTHER_SPLITS = "pairs of other splits than train, left out"
ALIKE = "pairs that are also validation or test transitions of data.path, kept: no name tells that their episodes are the same"
_ROWS_AT_ONCE = 1024


def of_training(pairs: Any, counts: Counter[str]) -> Any:
    """The pairs that are in no other split than train."""
    split = pairs.column("split")
    if split.null_count == len(split):
        return pairs
    used = pc.fill_null(pc.equal(split, "train"), True)
    counts[OTHER_SPLITS] += len(used) - pc.sum(used).as_py()
    return pairs.filter(used)


class Overlap:
    """Tells which rows of a table of state-only pairs are new.

    An episode is the same where its name is, so names must be unique over both sources. Pairs that are like held-out ones
    without that are counted only: in a small world most transitions come again in other episodes.

    Args:
        table: of ``data.path``, with its canonical columns.
        codes: episode of every row of it, int64 [rows].
        names: of the episodes.
        held_out: episodes for validation and test, bool [episodes].
        named: whether its data name their episodes.
    """

    def __init__(self, table: Any, codes: Any, names: list[str], held_out: Any, *, named: bool = True) -> None:
        self._states = table.select(["state", "next_state"])
        self._order = np.argsort(codes, kind="stable")
        self._begins = np.searchsorted(codes[self._order], np.arange(len(names) + 1))
        self._number = {name: number for number, name in enumerate(names)}
        self._held_out, self._named = held_out, named
        self._last: tuple[int, set[tuple[State, State]]] = (-1, set())

    def new(self, pairs: Any, counts: Counter[str], *, named: bool) -> Any:
        """The rows that are used.

        Args:
            pairs: ``pyarrow.Table`` with the canonical columns.
            counts: gets how many are not, and why.
            named: whether their data name their episodes.
        """
        used = pairs.filter(self._of_new_episodes(pairs, counts)) if self._named and named else pairs
        states, transitions = self._held_out_pairs
        counts[ALIKE] += sum(
            hash(state) in states and hash((state, next_state)) in transitions for state, next_state in _both_states(used)
        )
        return used

    @cached_property
    def _held_out_pairs(self) -> tuple[set[int], set[int]]:
        """Hashes of the states and of the pairs of states of held-out episodes."""
        numbers = np.flatnonzero(self._held_out)
        rows = [self._order[self._begins[number] : self._begins[number + 1]] for number in numbers]
        table = self._states.take(np.concatenate([np.zeros(0, np.int64), *rows]))
        pairs = [(hash(state), hash((state, next_state))) for state, next_state in _both_states(table)]
        return {state for state, _ in pairs}, {pair for _, pair in pairs}

    def _of_new_episodes(self, pairs: Any, counts: Counter[str]) -> Any:
        """Which rows are of no held-out episode and not there already, bool [rows]."""
        used = np.ones(pairs.num_rows, bool)
        encoded = pairs.column("episode").combine_chunks().dictionary_encode()
        codes = np.asarray(encoded.indices)
        order = np.argsort(codes, kind="stable")
        begins = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
        for code, name in enumerate(encoded.dictionary.to_pylist()):
            if (number := self._number.get(name)) is None:
                continue
            rows = order[begins[code] : begins[code + 1]]
            if self._held_out[number]:
                counts[HELD_OUT] += len(rows)
                used[rows] = False
                continue
            part = pairs.select(["state", "next_state"]).take(rows).to_pydict()
            there = self._pairs_of(number)
            known = [pair in there for pair in zip(part["state"], part["next_state"], strict=True)]
            counts[KNOWN] += sum(known)
            used[rows[np.asarray(known, bool)]] = False
        return used

    def _pairs_of(self, number: int) -> set[tuple[State, State]]:
        if self._last[0] != number:
            part = self._states.take(self._order[self._begins[number] : self._begins[number + 1]]).to_pydict()
            self._last = (number, set(zip(part["state"], part["next_state"], strict=True)))
        return self._last[1]


def _both_states(table: Any) -> Iterator[tuple[State, State]]:
    for batch in table.select(["state", "next_state"]).to_batches(_ROWS_AT_ONCE):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def with_state_only(table: TransitionTable, rows: Any, more: TransitionTable, overlap: Overlap) -> tuple[TransitionTable, Any]:
    """The state-only rows of ``data.path`` and the new ones of ``data.state_only``, in one table.

    Args:
        table: what ``data.path`` holds.
        rows: state-only rows of it, int64.
        more: what ``data.state_only`` holds.
        overlap: tells which of its rows are new.

    Returns:
        The table of both, and the state-only rows in it, int64.

    Raises:
        DataError: if no row is new, or states are text here and images there.
    """
    counts: Counter[str] = Counter()
    used = overlap.new(of_training(more.table, counts), counts, named=more.own_episodes)
    if missed := "; ".join(f"{count:,} {what}" for what, count in counts.items() if count):
        rank_zero_info(f"{more.source}: {missed}")
    if not used.num_rows:
        raise DataError(
            f"data.state_only: {more.source} holds no pair to train on: {missed}. Names of episodes must be unique over both "
            "sources: data.columns: {episode: [source, run]} joins columns"
        )
    if used.schema.field("state").type != table.table.schema.field("state").type:
        raise DataError(f"states must be all text or all images, but those of {table.source} and {more.source} differ")
    both = TransitionTable(pa.concat_tables([table.table, used]), table.where, table.source, table.report)
    return both, np.concatenate([rows, np.arange(len(table), len(both))])
