"""Reading transitions: Parquet, JSON lines or a Hugging Face data set, with the user's own column names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq

from swirl_lightning.data.schema import FIELDS, REQUIRED, TRANSITIONS
from swirl_lightning.types import Transition, UnlabelledPair

Columns = Mapping[str, str | Sequence[str]]
"""Field to column; several columns are joined with ``/`` (an episode named by task and variation, say)."""


class TransitionTable(Sequence[Transition | UnlabelledPair]):
    """Transitions in Arrow memory, made into Python objects one at a time. A row without an action is an unlabelled pair.

    Args:
        table: columns by field name, checked.
        source: where it came from, for messages.
    """

    def __init__(self, table: pa.Table, source: str) -> None:
        self.table, self.source = table, source

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Transition | UnlabelledPair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Transition | UnlabelledPair]: ...
    def __getitem__(self, index: int | slice) -> Transition | UnlabelledPair | Sequence[Transition | UnlabelledPair]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = {name: self.table.column(name)[index].as_py() for name in self.table.column_names}
        action = row.get("action")
        common = (row.get("context") or "", row["episode"], row["step"])
        if action is None:
            return UnlabelledPair(row["state"], row["next_state"], *common)
        return Transition(row["state"], row["next_state"], action, *common)

    def column(self, name: str) -> list[Any]:
        """A whole column as Python values; None for every row where the file has no such column."""
        if name not in self.table.column_names:
            return [None] * len(self)
        values: list[Any] = self.table.column(name).to_pylist()
        return values


def read_transitions(path: str | Path, columns: Columns | None = None) -> TransitionTable:
    """Reads a file, a folder written by ``swirl record``, a data set saved to disk, or a hub data set.

    Args:
        path: ``*.parquet`` or ``*.jsonl`` (globs too), a folder, or ``hub:owner/name[:split]``.
        columns: field to column where names differ.

    Returns:
        The transitions.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming file, line and field of what is wrong.
    """
    name = str(path)
    if name.startswith("hub:"):
        return _checked(_from_hub(name), columns or {}, name)
    files = _files(Path(path))
    if not files:
        raise FileNotFoundError(f"data.path: {name!r} matches no Parquet file, JSONL file or data set")
    if files[0].is_dir():
        from datasets import load_from_disk

        return _checked(load_from_disk(name).data.table, columns or {}, name)
    tables = [
        _checked(
            pq.read_table(file) if file.suffix == ".parquet" else _read_jsonl(file), columns or {}, str(file)
        ).table
        for file in files
    ]
    return TransitionTable(pa.concat_tables(tables, promote_options="permissive"), name)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in (".parquet", ".jsonl"):
            raise ValueError(f"data.path: {path} is neither .parquet nor .jsonl")
        return [path]
    if path.is_dir():
        if (path / TRANSITIONS).is_file():
            return [path / TRANSITIONS]
        if (path / "dataset_info.json").is_file():
            return [path]
        return sorted(path.glob("*.parquet")) or sorted(path.glob("*.jsonl"))
    return sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []


def _from_hub(name: str) -> pa.Table:
    from datasets import load_dataset

    _, repository, *split = name.split(":")
    table: pa.Table = load_dataset(repository, split=split[0] if split else "train").data.table
    return table


def _read_jsonl(file: Path) -> pa.Table:
    return pa.Table.from_pylist(list(_json_lines(file)))


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{file}, line {number}: not JSON ({error.msg} at column {error.colno})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{file}, line {number}: expected an object with fields, got {type(row).__name__}")
            yield row


def _checked(raw: pa.Table, columns: Columns, source: str) -> TransitionTable:
    """Renames columns to fields and checks their types and values."""
    if unknown := sorted(set(columns) - set(FIELDS)):
        raise ValueError(f"data.columns: {unknown[0]!r} is not a field; fields are {', '.join(FIELDS)}")
    if not raw.num_rows:
        raise ValueError(f"{source} is empty: no transition in it")
    chosen: dict[str, pa.ChunkedArray] = {}
    for field in FIELDS:
        wanted = columns.get(field, field)
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        missing = [name for name in names if name not in raw.column_names]
        if missing and (field in REQUIRED or field in columns):
            raise ValueError(
                f"{source}: no column {missing[0]!r} for field {field!r}; there are {', '.join(raw.column_names)} "
                "(data.columns maps fields to columns)"
            )
        if not missing:
            parts = [raw.column(name) for name in names]
            chosen[field] = parts[0] if len(parts) == 1 else _joined(parts)
    if "step" not in chosen:
        chosen["step"] = _running_step(chosen["episode"].to_pylist())
    for field, column in chosen.items():
        chosen[field] = _typed(field, column, source)
    return TransitionTable(pa.table(chosen), source)


def _joined(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    rows = zip(*(part.to_pylist() for part in parts), strict=True)
    return pa.chunked_array([["/".join(map(str, row)) for row in rows]])


def _running_step(episodes: Sequence[Any]) -> pa.ChunkedArray:
    """Position inside the episode, in the order of the file, where the file does not say."""
    seen: dict[Any, int] = {}
    steps = []
    for episode in episodes:
        steps.append(seen.get(episode, 0))
        seen[episode] = steps[-1] + 1
    return pa.chunked_array([steps])


def _typed(field: str, column: pa.ChunkedArray, source: str) -> pa.ChunkedArray:
    """The column in its field's type.

    Raises:
        ValueError: naming the row that does not fit.
    """
    kind = column.type
    if field == "episode" and pa.types.is_integer(kind):
        return column.cast(pa.string())
    if field == "step":
        fits = pa.types.is_integer(kind)
    elif field in ("state", "next_state"):
        fits = any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))
    else:
        fits = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    if not fits:
        raise ValueError(f"{source}: field {field!r} has type {kind}; expected {'int' if field == 'step' else 'text'}")
    if field in (*REQUIRED, "step") and column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ValueError(f"{source}, row {row + 1}: field {field!r} is missing")
    return column


def unlabelled(row: Transition | UnlabelledPair) -> UnlabelledPair:
    """The pair without its action, whether it had one or not."""
    return row.without_action() if isinstance(row, Transition) else row
