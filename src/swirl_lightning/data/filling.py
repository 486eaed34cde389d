"""Inferred actions back into the rows that they are about, in the shape in which they came."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from swirl_lightning.data.columns import Along, DataError, lookup, root
from swirl_lightning.data.formats import Block
from swirl_lightning.data.report import Report
from swirl_lightning.data.shapes import Shape
from swirl_lightning.data.transcripts import action_turns

LOGPROB = "_logprob"
_CALL = {"name": pa.string(), "arguments": pa.string()}
NOT_FITTING = "inferred actions that are not of the column's kind, left empty"
_CALLS = pa.list_(pa.struct({"id": pa.string(), "type": pa.string(), "function": pa.struct(_CALL)}))
_PYTHON: dict[str, Any] = {"number": (int, float), "object": dict, "list": list, "boolean": bool}


@dataclass(frozen=True)
class Labels:
    """Actions of some pairs, by the place in the source that they belong to; sorted by row.

    Attributes:
        rows: of the file, int64 [n].
        at: step within the row, int64 [n].
        actions: n actions, as text.
        logprobs: n log-probabilities of whole actions, in nats.
    """

    rows: Any
    at: Any
    actions: list[str]
    logprobs: list[float]


@dataclass
class Filling:
    """Fills the rows of one file.

    Attributes:
        shape: what a row is.
        path: of the action; made where it is not there.
        kind: of the actions that are there: text, number, object, list or boolean.
        labels: of this file.
        report: gets the counts.
    """

    shape: Shape
    path: str
    kind: str
    labels: Labels
    report: Report
    _schema: tuple[Any, Any] | None = field(default=None, init=False)  # of a block's columns, before and after

    def fill(self, block: Block) -> Block:
        """The rows with their actions, and the log-probability beside each (null where it was there already)."""
        if block.objects is not None:
            self._records(block.objects, block.first)
            return block
        table = block.table
        if self._schema is None or self._schema[0] != table.schema:
            self._schema = (table.schema, self._amended(table.schema, table.slice(0, 5).to_pylist()))
        after = self._schema[1]
        old = [
            name for name in after.names if name not in table.column_names or after.field(name).type != table.field(name).type
        ]
        touched = {*old, *(start for path in self._paths() if (start := root(path, table.column_names)))}
        records = table.select([name for name in table.column_names if name in touched]).to_pylist() or [
            {} for _ in range(len(table))
        ]
        self._records(records, block.first)
        columns = [
            pa.array([record.get(one.name) for record in records], one.type) if one.name in touched else table.column(one.name)
            for one in after
        ]
        return Block(block.first, pa.Table.from_arrays(columns, schema=after))

    def _paths(self) -> list[str]:
        return [self.shape.paths["messages"][0]] if self.shape.kind == "chats" else [self.path, self.path + LOGPROB]

    # ------------------------------------------------------------------ Python objects

    def _records(self, records: list[dict[str, Any]], first: int) -> None:
        begin, end = np.searchsorted(self.labels.rows, [first, first + len(records)])
        by_row: dict[int, list[int]] = {}
        for number in range(begin, end):
            by_row.setdefault(int(self.labels.rows[number]) - first, []).append(number)
        for row, record in enumerate(records):
            numbers = by_row.get(row, [])
            if self.shape.kind == "chats":
                self._chat(record, numbers)
            else:
                self._fill(record, numbers)

    def _fill(self, record: dict[str, Any], numbers: list[int]) -> None:
        """One row: a value of its own, one in each of its steps, or lists beside the list of states."""
        for path, values in ((self.path, self.labels.actions), (self.path + LOGPROB, self.labels.logprobs)):
            places = _places(record, path)
            for container, name in places:
                container.setdefault(name, None)
            if self.shape.kind in ("pairs", "steps") or isinstance(self._states(record), Along):
                for number in numbers:
                    container, name = places[int(self.labels.at[number])]
                    container[name] = self._native(values[number])
            elif places:
                container, name = places[0]
                states, known = self._states(record) or [], _places(record, self.path)[0]
                size = len(known[0][known[1]] or []) or max(len(states) - 1, 0)
                filled = container[name] = list(container[name] or [None] * size)
                filled += [None] * (size - len(filled))
                for number in numbers:
                    filled[int(self.labels.at[number])] = self._native(values[number])

    def _states(self, record: dict[str, Any]) -> Any:
        return lookup(record, self.shape.paths["state"][0])

    def _native(self, value: str | float) -> Any:
        """An action as the column holds them; None, counted, for one that is no such thing."""
        if self.kind == "text" or not isinstance(value, str):
            return value
        try:
            made = json.loads(value)
        except ValueError:
            made = None
        if not isinstance(made, _PYTHON[self.kind]) or (self.kind == "number" and isinstance(made, bool)):
            self.report.counts[NOT_FITTING] += 1
            return None
        return made

    def _chat(self, record: dict[str, Any], numbers: list[int]) -> None:
        (container, name), *_ = _places(record, self.shape.paths["messages"][0])
        turns = json.loads(container[name]) if isinstance(container[name], str) else container[name]
        where = action_turns(turns)
        calls = any("tool_calls" in turn for turn in turns)
        for turn in turns:
            if not isinstance(container[name], str):
                turn.setdefault("action_logprob", None)
        for number in numbers:
            turn, action = turns[where[int(self.labels.at[number])]], self.labels.actions[number]
            turn["action_logprob"] = self.labels.logprobs[number]
            if calls and (call := _as_call(action)) is not None:
                turn["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": call}]
            else:
                turn[next((one for one in ("content", "value", "text") if one in turn), "content")] = action
        if isinstance(container[name], str):
            container[name] = json.dumps(turns, ensure_ascii=False)

    # ------------------------------------------------------------------ Arrow types

    def _amended(self, schema: Any, records: list[dict[str, Any]]) -> Any:
        """The schema with places for actions and their log-probabilities."""
        whole = pa.struct(list(schema))
        if self.shape.kind == "chats":
            (path,) = self.shape.paths["messages"]
            turns = next((value for one in records if (value := lookup(one, path)) is not None), None)
            if not isinstance(turns, str):  # JSON text takes what it is given
                whole = _with(whole, f"{path}.action_logprob", pa.float64())
                whole = _with(whole, f"{path}.tool_calls", _CALLS) if turns and "tool_calls" in turns[0] else whole
        else:
            states = next((value for one in records if (value := self._states(one)) is not None), None)
            beside = self.shape.kind == "trajectories" and not isinstance(states, Along)  # lists side by side
            for path, kind in ((self.path, pa.string()), (self.path + LOGPROB, pa.float64())):
                whole = _with(whole, path, pa.list_(kind) if beside else kind)
        return _with_features(schema, pa.schema(list(whole)))


def action_path(shape: Shape, records: list[dict[str, Any]]) -> str:
    """Where the actions of a file without any belong: beside its states.

    Args:
        shape: of the file.
        records: its first rows.
    """
    (path,) = shape.paths.get("state", ("",)) or ("",)
    before = path.rpartition(".")[0]
    along = any(isinstance(lookup(record, path), Along) for record in records) if shape.kind == "trajectories" else False
    name = "actions" if shape.kind == "trajectories" and not along else "action"
    return f"{before}.{name}" if before and shape.kind == "trajectories" else name


def _places(record: Any, path: str) -> list[tuple[dict[str, Any], str]]:
    """The objects that hold what a dotted path leads to, and its name in them; one of each element of a list on the way."""
    if isinstance(record, list):
        return [place for one in record for place in _places(one, path)]
    if isinstance(record, str):
        raise DataError(f"{path!r} lies inside JSON text, which is not written into: --form pairs writes pairs instead")
    if not isinstance(record, dict):
        return []
    if path not in record:
        at = len(path)
        while (at := path.rfind(".", 0, at)) > 0:
            if path[:at] in record:
                return _places(record[path[:at]], path[at + 1 :])
    return [(record, path)]


def _with(kind: Any, path: str, leaf: Any) -> Any:
    """An Arrow type in which a dotted path leads to a type, in lists on the way as well; a type that is there stays."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        made = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return made(_with(kind.value_type, path, leaf))
    if not pa.types.is_struct(kind):
        raise DataError(f"{path!r} leads into {kind}, which holds no fields: --form pairs writes pairs instead")
    fields = {one.name: one for one in kind}
    at = len(path)
    while path not in fields and (at := path.rfind(".", 0, at)) > 0:
        if path[:at] in fields:
            fields[path[:at]] = fields[path[:at]].with_type(_with(fields[path[:at]].type, path[at + 1 :], leaf))
            return pa.struct(list(fields.values()))
    if path not in fields or "null" in str(fields[path].type):
        fields[path] = pa.field(path, leaf)
    return pa.struct(list(fields.values()))


def _with_features(before: Any, after: Any) -> Any:
    """The metadata of a schema, with what `datasets` says of columns that changed."""
    if b"huggingface" not in (before.metadata or {}):
        return after.with_metadata(before.metadata)
    from datasets import Features

    known, new = Features.from_arrow_schema(before), Features.from_arrow_schema(after)
    same = {name for name in before.names if before.field(name).type == after.field(name).type}
    return after.with_metadata(Features({n: known[n] if n in same else new[n] for n in after.names}).arrow_schema.metadata)


def _as_call(action: str) -> dict[str, Any] | None:
    """An action that is one tool call, as OpenAI's form has it: arguments as JSON text."""
    try:
        call = json.loads(action)
    except ValueError:
        return None
    if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
        return None
    arguments = call["arguments"]
    return {
        "name": call["name"],
        "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
    }
