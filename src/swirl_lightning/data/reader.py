"""Reading transitions: files and data sets of many shapes, with the user's own columns, as one table of pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from swirl_lightning.data.columns import Columns, DataError, listed
from swirl_lightning.data.reading import Mapping, Reading
from swirl_lightning.data.report import Report
from swirl_lightning.data.rows import Rows
from swirl_lightning.data.sources import PathLike, items
from swirl_lightning.data.spool import Spool
from swirl_lightning.data.video import VideoOptions
from swirl_lightning.types import Transition, UnlabelledPair

__all__ = ["Columns", "DataError", "TransitionTable", "read_transitions", "unlabelled"]

_ROWS_AT_ONCE = 4096


class TransitionTable(Sequence[Transition | UnlabelledPair]):
    """Transitions in Arrow columns, made into Python objects one at a time. Without action, a row is an unlabelled pair.

    Args:
        table: the fields as columns, checked; ``row`` counts the rows of the source.
        where: place of a row of the source, for messages.
        source: all of them together, for messages.
        report: what reading found and left out.
        own_episodes: whether the data name their episodes.
        begins: rows of the source before each of its files.
    """

    def __init__(
        self,
        table: pa.Table,
        where: Callable[[int], str],
        source: str,
        report: Report,
        *,
        own_episodes: bool = True,
        begins: Sequence[int] = (0,),
    ) -> None:
        self.table, self.source, self.report, self.own_episodes = table, source, report, own_episodes
        self._begins = np.asarray(begins)
        self._where = where

    @override
    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Transition | UnlabelledPair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Transition | UnlabelledPair]: ...
    @override
    def __getitem__(self, index: int | slice) -> Transition | UnlabelledPair | Sequence[Transition | UnlabelledPair]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        if self.table.column("action")[row].as_py() is None:
            return self.pairs([row])[0]
        return self.transitions([row])[0]

    def column(self, name: str) -> list[Any]:
        """A whole column as Python values; None for every row where the file has no such column."""
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def codes(self, name: str) -> tuple[Any, list[str]]:
        """A column of names as numbers, int64 [rows], and the names that they stand for, in the order of their first rows."""
        encoded = self.table.column(name).combine_chunks().dictionary_encode()
        return np.asarray(encoded.indices.fill_null(-1)).astype(np.int64), encoded.dictionary.to_pylist()

    def pairs(self, rows: Sequence[int] | None = None) -> Rows[UnlabelledPair]:
        """State-only pairs of some rows, by default all; the action column is not reachable from them."""
        return Rows(UnlabelledPair, self.table, rows)

    def transitions(self, rows: Sequence[int] | None = None) -> Rows[Transition]:
        """Labelled transitions of some rows, by default all.

        Raises:
            DataError: if one of them has no action; the message says where it was read.
        """
        missing = np.asarray(self.table.column("action").is_null())
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        if (unlabelled := chosen[missing[chosen]]).size:
            raise DataError(f"{self.where(int(unlabelled[0]))}: field 'action' is missing, but the transition must be labelled")
        return Rows(Transition, self.table, rows)

    def places(self, rows: Any) -> tuple[Any, Any, Any]:
        """Where the actions of some rows belong.

        Args:
            rows: int64 [n].

        Returns:
            Number of the file, row in it and step in that row, int64 [n] each.
        """
        source = np.asarray(self.table.column("row"))[rows]
        file = np.searchsorted(self._begins, source, side="right") - 1
        return file, source - self._begins[file], np.asarray(self.table.column("at"))[rows]

    def where(self, row: int) -> str:
        """File and line (or row) of a row, for messages."""
        return self._where(self.table.column("row")[row].as_py())


def read_transitions(
    path: PathLike,
    columns: Columns | None = None,
    *,
    actions: bool = True,
    action_pattern: str | None = None,
    stride: int = 1,
    min_change: float = 0.0,
    video: VideoOptions | None = None,
) -> TransitionTable:
    """Reads files, folders or data sets as pairs of states, with the actions between them where there are any.

    A row may be a pair (state and next state), one step of an episode (the next state is that of the episode's next row), a
    whole trajectory (a list lies on the path to the state, or the state's column holds one) or a chat. ``howto/own-data.md``
    shows each.

    Args:
        path: a file, a glob, a folder, a data set saved to disk or ``hub:owner/name[[:config]:split]``; or a list of them.
        columns: field to column where names differ, as a dotted path into objects and lists. ``episode: [task, variation]``
            joins columns and ``episode: null`` makes every row (of steps: every file) an episode of its own; ``step: null``
            counts steps in the order of the rows; ``split: null`` ignores a split column.
        actions: read actions, where there are any.
        action_pattern: regular expression with one group, the action within what the action's column holds.
        stride: of states in a row without actions: steps between the two states of a pair.
        min_change: leave out pairs of which a smaller share changes; anything above 0 leaves out equal ones.
        video: which frames of a video become pairs.

    Returns:
        The transitions, with a report of what was found and left out.

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: naming file, line and field of what is wrong.
    """
    return read_mapped(path, Mapping(columns or {}, actions, action_pattern, stride, min_change, video or VideoOptions()))


def read_mapped(path: PathLike, mapping: Mapping, *, limit: int | None = None) -> TransitionTable:
    """As :func:`read_transitions`, with the options together.

    Args:
        path: as there.
        mapping: the options.
        limit: read about so many rows, the first ones of every file; None for all.
    """
    reading = Reading(mapping)
    found, others = items(path, option=mapping.path_option)
    pairs, states = Spool(), Spool()
    for item in found:
        read = 0
        for table in reading.tables(item):
            (states if "done" in table.column_names else pairs).add(table)
            read += table.num_rows
            if limit is not None and read * len(found) >= limit:
                break
    if (in_a_row := states.table()) is not None:
        pairing = reading.pairing()
        for table in _in_order(in_a_row):
            pairs.add(reading.checked(pairing.feed(table)))
        pairing.close()
    name, report = _short(path), reading.report
    if (table := pairs.table()) is None:
        reading.refuse_nothing(name)
    table = table if table.column("step").null_count == 0 else _numbered(table)
    if others:
        report.counts[f"files that are no data ({listed(others)})"] += len(others)
    made = TransitionTable(table, reading.where, name, report, own_episodes=reading.own_episodes, begins=reading.begins)
    if str(report):
        rank_zero_info(f"{name}: {len(made):,} pairs; {report}")
    return made


def _in_order(states: Any) -> Iterator[Any]:
    """States with the rows of each episode together, by step; by their place in the files where there are no steps."""
    codes = np.asarray(states.column("episode").combine_chunks().dictionary_encode().indices)
    steps = states.column("step")
    order = np.lexsort((np.arange(len(codes)) if steps.null_count else np.asarray(steps), codes))
    sorted_already = bool((order == np.arange(len(codes))).all())
    for begin in range(0, len(order), _ROWS_AT_ONCE):
        table = states.slice(begin, _ROWS_AT_ONCE)
        yield table if sorted_already else states.take(order[begin : begin + _ROWS_AT_ONCE])


def _numbered(table: Any) -> Any:
    """Steps by the order of an episode's rows, where the data do not say."""
    codes = np.asarray(table.column("episode").combine_chunks().dictionary_encode().indices)
    order = np.argsort(codes, kind="stable")
    begins = np.searchsorted(codes[order], codes[order])
    steps = np.empty(len(codes), np.int64)
    steps[order] = np.arange(len(codes)) - begins
    return table.set_column(table.column_names.index("step"), "step", pa.chunked_array([steps]))


def _short(path: PathLike) -> str:
    names = [str(path)] if not isinstance(path, list | tuple) else [str(one) for one in path]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def unlabelled(row: Transition | UnlabelledPair) -> UnlabelledPair:
    """The pair without its action, whether it had one or not."""
    return row.without_action() if isinstance(row, Transition) else row
