"""States in a row become pairs: each state with the one after it, inside an episode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from swirl_lightning.data.columns import DataError
from swirl_lightning.data.report import Report

GAPS = "gaps in step, across which no pair is made"
ENDS = "ends by the done flag inside an episode, across which no pair is made"
SINGLES = "single states without a neighbour"
LAST_ACTIONS = "actions after which no state comes"
FIRST_ACTIONS = "actions before which there is no state"


class Pairing:
    """Makes pairs of consecutive states as they come, table after table.

    A pair needs two rows of one episode whose steps follow each other, with no end between them. The last row of a table waits
    for the next table.

    Args:
        report: gets the counts of what made no pair.
        where: place of a row by its number in the source, for messages.
        stride: the next state is the one so many steps later, and the next pair begins there.
        whole_rows: an episode lies in one row of the source (a trajectory), so that rows of equal episodes stay apart.
        after: a row's action led to its state, rather than being taken in it.
    """

    def __init__(
        self, report: Report, where: Callable[[int], str], *, stride: int = 1, whole_rows: bool = False, after: bool = False
    ) -> None:
        self.report, self.where, self.stride = report, where, stride
        self.whole_rows, self.after = whole_rows, after
        self._held: Any = None  # rows that wait for their next state
        self._position = 0  # of the first of them, counted from the beginning of its run

    def feed(self, states: Any) -> Any:
        """Pairs that end in a table of states.

        Args:
            states: ``pyarrow.Table`` with state, action, context, episode, step, split, done, row and at.

        Returns:
            ``pyarrow.Table`` with state, next_state, action, context, episode, step, split, and row and at of the action.

        Raises:
            DataError: for a step that is there twice, or goes back.
        """
        table = self._numbered((states if self._held is None else pa.concat_tables([self._held, states])).combine_chunks())
        linked = self._linked(table)  # [rows - 1]
        begins = np.concatenate([[0], np.flatnonzero(~linked) + 1])
        index = np.arange(table.num_rows)
        start = begins[np.searchsorted(begins, index, side="right") - 1]
        position = index - start + np.where(start == 0, self._position, 0)
        actions = np.asarray(table.column("action").is_valid())
        self._count_ends(position[:-1][~linked], position[1:][~linked], actions[:-1][~linked], actions[1:][~linked])
        if self._held is None and self.after:
            self.report.counts[FIRST_ACTIONS] += int(actions[0])
        left = np.flatnonzero(position % self.stride == 0)
        right = left + self.stride
        inside = right < table.num_rows
        waiting = int(left[~inside & (left >= begins[-1])][0])  # of the last run; the last state kept of it always waits
        left, right = left[inside], right[inside]
        together = position[right] == position[left] + self.stride
        self._held, self._position = table.slice(waiting), int(position[waiting])
        return self._pairs(table, left[together], right[together])

    def close(self) -> None:
        """Counts what the last table left over."""
        if self._held is None:
            return
        last = self._held.num_rows - 1
        action = np.asarray(self._held.column("action").is_valid())[last:]
        self._count_ends(np.asarray([self._position + last]), np.asarray([], dtype=int), action, np.asarray([], dtype=bool))
        self._held, self._position = None, 0

    def _count_ends(self, ends: Any, begins: Any, last_actions: Any, first_actions: Any) -> None:
        """Counts runs that end: their last position, and the actions at their ends and at the beginnings that follow."""
        counts = self.report.counts
        counts[SINGLES] += int((ends == 0).sum())
        if self.after:
            counts[FIRST_ACTIONS] += int(first_actions.sum())
        else:
            counts[LAST_ACTIONS] += int(last_actions.sum())

    def _numbered(self, table: Any) -> Any:
        """Steps by the order of the rows of an episode, where the data do not say."""
        steps = table.column("step")
        if not steps.null_count:
            return table
        episodes = table.column("episode").combine_chunks()
        begins = np.concatenate([[0], np.flatnonzero(np.asarray(pc.not_equal(episodes[:-1], episodes[1:]))) + 1])
        index = np.arange(table.num_rows)
        begin = begins[np.searchsorted(begins, index, side="right") - 1]
        first = (steps[0].as_py() or 0) if self._held is not None else 0
        numbers = index - begin + np.where(begin == 0, first, 0)
        return table.set_column(table.column_names.index("step"), "step", pa.array(numbers))

    def _linked(self, table: Any) -> Any:
        """Whether each row and the next one make a pair, bool [rows - 1]."""
        episodes, rows = table.column("episode").combine_chunks(), np.asarray(table.column("row"))
        same = np.asarray(pc.equal(episodes[:-1], episodes[1:]))
        if self.whole_rows:
            same &= rows[:-1] == rows[1:]
        done = np.asarray(table.column("done"))[:-1]
        steps = np.asarray(table.column("step"))
        difference = steps[1:] - steps[:-1]
        if (wrong := np.flatnonzero(same & (difference <= 0))).size:
            at = int(wrong[0])
            what = "was already at" if difference[at] == 0 else f"comes after step {steps[at]} of"
            raise DataError(
                f"{self.where(int(rows[at + 1]))}: episode {episodes[at].as_py()!r} step {steps[at + 1]} {what} "
                f"{self.where(int(rows[at]))}; steps must be unique and go up. data.columns: {{step: null}} takes the order of "
                "the rows, {episode: [task, run]} joins columns"
            )
        gap = same & (difference > 1)
        self.report.counts[GAPS] += int((gap & ~done).sum())
        self.report.counts[ENDS] += int((same & done).sum())
        return same & ~gap & ~done

    def _pairs(self, table: Any, left: Any, right: Any) -> Any:
        before, after = table.take(left), table.take(right)
        acted = {name: (after if self.after else before).column(name) for name in ("action", "row", "at")}
        kept = {name: before.column(name) for name in ("context", "episode", "step", "split")}
        return pa.table({"state": before.column("state"), "next_state": after.column("state"), **acted, **kept})
