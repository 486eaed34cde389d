"""Blocks of rows into canonical columns: pairs as they are, and states in a row, of which pairs are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from swirl_lightning.data import transcripts
from swirl_lightning.data.columns import Along, DataError, lookup
from swirl_lightning.data.formats import NESTED_AT_ONCE, Block, Reader
from swirl_lightning.data.report import Report
from swirl_lightning.data.shapes import Shape
from swirl_lightning.data.values import Texts, as_names, flags, integers

CHAT_STATE, CHAT_ACTION, CHAT_CONTEXT = "what came back", "the assistant's turn", "system and first user turn"


class Transform:
    """Makes the blocks of one file canonical.

    Args:
        reader: the file.
        shape: what its rows are.
        texts: makes values text.
        report: gets the counts.
        action_pattern: regular expression with one group, the action within the text of the action column.
    """

    def __init__(self, reader: Reader, shape: Shape, texts: Texts, report: Report, action_pattern: str | None) -> None:
        self.reader, self.shape, self.texts, self.report = reader, shape, texts, report
        self.pattern = re.compile(action_pattern, re.DOTALL) if action_pattern is not None else None
        self._ended = 0  # episodes that ended so far, where only a flag tells them apart

    def tables(self) -> Iterator[Any]:
        """Tables with state, action, context, episode, step, split, row, at (its place in the row), and next_state or done."""
        for block in self.reader.blocks(self.shape.roots, self.shape.flat):
            if self.shape.kind in ("pairs", "steps"):
                numbers = np.arange(block.first, block.first + block.rows)
                yield self._table({path: self._column(block, path) for path in self._paths()}, numbers)
            else:
                for part in block.parts(NESTED_AT_ONCE):
                    columns, rows = self._flattened(part)
                    if rows:
                        yield self._table(columns, np.asarray(rows))

    def _paths(self) -> list[str]:
        return list(dict.fromkeys(path for paths in self.shape.paths.values() for path in paths))

    # ------------------------------------------------------------------ a row is a pair or a step

    def _column(self, block: Block, path: str) -> Any:
        if block.table is not None and path in block.table.column_names:
            return block.table.column(path)
        return [self._lookup(record, path, row) for row, record in enumerate(block.records, block.first)]

    def _lookup(self, record: Any, path: str, row: int) -> Any:
        try:
            return lookup(record, path)
        except DataError as error:
            raise DataError(f"{self.reader.where(row)}: {error}") from error

    # ------------------------------------------------------------------ a row is a trajectory or a chat

    def _flattened(self, block: Block) -> tuple[dict[str, list[Any]], list[int]]:
        """Columns of what lies in the rows, one row after another, and the row of each of their values."""
        columns: dict[str, list[Any]] = {}
        rows: list[int] = []
        for row, record in enumerate(block.records, block.first):
            found = {path: self._lookup(record, path, row) for path in self._paths()}
            length = self._chat(found, row) if self.shape.kind == "chats" else self._trajectory(found, row)
            self.report.counts["rows without a state"] += not length
            for path, value in found.items():
                columns.setdefault(path, []).extend(value if isinstance(value, Along) else [value] * length)
            rows.extend([row] * length)
        return columns, rows

    def _chat(self, found: dict[str, Any], row: int) -> int:
        """Puts states and actions in the place of the chat's turns."""
        path = self.shape.paths["messages"][0]
        try:
            states, actions, found[CHAT_CONTEXT] = transcripts.trajectory(found.pop(path), self.report)
        except DataError as error:
            raise DataError(f"{self.reader.where(row)}: column {path!r} {error}") from error
        found[CHAT_STATE] = Along(states)
        found[CHAT_ACTION] = Along([*actions, *[None] * (len(states) - len(actions))])
        return len(states)

    def _trajectory(self, found: dict[str, Any], row: int) -> int:
        """Makes the lists of a row equally long, and returns how long."""
        (path,) = self.shape.paths["state"]
        states = found[path] = self._list(found[path], "state", row)
        for field in ("next_state", "action", "step", "done", "context"):
            for path in self.shape.paths[field]:
                value = found[path]
                if value is None or (
                    field in ("context", "done") and not isinstance(value, list if field == "done" else Along)
                ):
                    continue
                found[path] = values = self._list(value, field, row)
                if len(values) == len(states) - 1 and field in ("action", "context", "done") and not self.shape.after:
                    values.append(None)
                if len(values) != len(states):
                    raise DataError(
                        f"{self.reader.where(row)}: {len(values)} values of field {field!r} (column {path!r}) for "
                        f"{len(states)} states (column {self.shape.name('state')!r}); there must be as many, or one action less"
                    )
        return len(states)

    def _list(self, value: Any, field: str, row: int) -> Along:
        if not isinstance(value, list):
            raise DataError(
                f"{self.reader.where(row)}: field {field!r} (column {self.shape.name(field)!r}) must be a list, as states are "
                f"in the first rows, got {type(value).__name__}: {repr(value)[:80]}"
            )
        return Along(value)

    # ------------------------------------------------------------------ canonical columns

    def _table(self, columns: dict[str, Any], rows: Any) -> Any:
        """Canonical columns out of the user's.

        Args:
            columns: values by path.
            rows: of the source, int64 [n].
        """
        paths = dict(self.shape.paths)
        if self.shape.kind == "chats":
            paths |= {"state": (CHAT_STATE,), "action": (CHAT_ACTION,), "context": (*paths["context"], CHAT_CONTEXT)}

        def where(index: int) -> str:
            within = index - int(np.searchsorted(rows, rows[index])) + 1
            return self.reader.where(int(rows[index])) + ("" if self.shape.kind in ("pairs", "steps") else f", step {within}")

        def made(field: str, make: Callable[..., Any]) -> list[Any]:
            return [make(field, path, columns[path], where) for path in paths.get(field, ())]

        size = len(rows)
        within = np.arange(size) - np.searchsorted(rows, rows)
        table = {field: made(field, self.texts.column) for field in ("state", "next_state", "action", "context")}
        for field in ("state", "next_state"):
            for array in table[field]:
                if array.null_count:
                    self._missing(field, array, where)
        fields = {field: arrays[0] for field, arrays in table.items() if arrays and field != "context"}
        fields["action"] = self._matched(fields.get("action", pa.nulls(size, pa.large_string())))
        fields["context"] = _joined(table["context"], "\n", "skip", size)
        done = np.zeros(size, bool)
        for array in made("done", flags):
            done |= np.asarray(array)
        fields["episode"] = self._episodes(made("episode", as_names), rows, done, where)
        steps = made("step", integers)
        if self.shape.kind in ("trajectories", "chats") and not steps:
            steps = [pa.array(within)]
        fields["step"] = steps[0] if steps else pa.nulls(size, pa.int64())
        if steps and steps[0].null_count:
            self._missing("step", steps[0], where)
        split = made("split", as_names)
        fields["split"] = split[0] if split else pa.repeat(pa.scalar(self.reader.item.split, pa.large_string()), size)
        if "next_state" not in fields:
            fields["done"] = pa.array(done)
        return pa.table({**fields, "row": pa.array(rows), "at": pa.array(within)})

    def _missing(self, field: str, array: Any, where: Callable[[int], str]) -> NoReturn:
        row = array.is_null().index(pa.scalar(True)).as_py()
        hint = '; an empty text is written as "" there' if self.reader.item.kind in ("csv", "tsv") else ""
        name = self.shape.name(field)
        named = f" (column {name!r})" if name != field else ""
        raise DataError(f"{where(row)}: field {field!r} is missing{named}{hint}")

    def _episodes(self, parts: list[Any], rows: Any, done: Any, where: Callable[[int], str]) -> Any:
        if not parts:
            if self.shape.kind == "steps":  # the whole file is one, or several that flags end
                before = self._ended + np.cumsum(done) - done
                self._ended += int(done.sum())
                names = [self.reader.item.label + (f":{number + 1}" if self.shape.paths["done"] else "") for number in before]
                return pa.array(names, pa.large_string())
            return pa.array([f"{self.reader.item.label}:{row + 1}" for row in rows.tolist()], pa.large_string())
        episodes = _joined(parts, "/", "emit_null", len(rows))
        if episodes.null_count:
            self._missing("episode", episodes, where)
        return episodes

    def _matched(self, actions: Any) -> Any:
        """What the pattern finds in the actions; those that it does not match become missing, and are counted."""
        if self.pattern is None:
            return actions
        found = [None if text is None else self.pattern.search(text) for text in actions.to_pylist()]
        self.report.counts["actions that data.action_pattern does not match, whose pairs are state-only"] += (
            len(found) - actions.null_count - sum(match is not None for match in found)
        )
        return pa.array([None if match is None else (match.group(1) or "").strip() for match in found], pa.large_string())


def _joined(parts: Sequence[Any], separator: str, nulls: str, size: int) -> Any:
    if not parts:
        return pa.repeat(pa.scalar("", pa.large_string()), size)
    if len(parts) == 1:
        return parts[0] if nulls == "emit_null" else pc.fill_null(parts[0], "")
    return pc.binary_join_element_wise(*parts, pa.scalar(separator, pa.large_string()), null_handling=nulls)
