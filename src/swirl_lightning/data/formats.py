"""Parquet, JSONL and Hugging Face datasets as one canonical Arrow table, by a mapping from fields to columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from swirl_lightning.data.schema import FIELDS

Columns = Mapping[str, str | Sequence[str] | None]
"""Field to column; several columns of an episode are joined with ``/``, null leaves a field unread."""

HUB = "hub:"
_OPTIONAL = {"action", "context", "step", "split"}
_STATES = {"state", "next_state"}
_LINES_AT_ONCE = 8192
_JSONL = pa.schema([(name, pa.int64() if name == "step" else pa.large_string()) for name in FIELDS])
_HALF = re.compile("[\ud800-\udfff]")


class DataError(ValueError):
    """Data that cannot be used: says which file, row and field, and what to do."""


@dataclass(frozen=True)
class Source:
    """A file (or a split of a dataset) with its rows in canonical columns."""

    name: str  # file or dataset
    unit: str  # what counts its rows: line or row, from 1
    table: Any  # pyarrow.Table with the columns of FIELDS; null-typed where the source lacks an optional one

    def where(self, row: int) -> str:
        """A place that a user can look up."""
        return f"{self.name}, {self.unit} {row + 1}"


def resolve_columns(columns: Columns) -> dict[str, tuple[str, ...]]:
    """Column names per field: the field's own name unless mapped; an empty tuple where mapped to null.

    Raises:
        DataError: for a field that does not exist, or several columns where one is needed.
    """
    if unknown := sorted(set(columns) - set(FIELDS)):
        raise DataError(f"data.columns: there is no field {unknown[0]!r}; fields are {', '.join(FIELDS)}")
    resolved: dict[str, tuple[str, ...]] = {}
    for name in FIELDS:
        value = columns.get(name, name)
        resolved[name] = () if value is None else (value,) if isinstance(value, str) else tuple(value)
        if len(resolved[name]) > 1 and name != "episode":
            raise DataError(f"data.columns.{name}: one column, please; only episode may join several, got {value!r}")
        if not resolved[name] and name in _STATES:
            raise DataError(f"data.columns.{name}: null, but every transition needs a {name}")
    return resolved


def check_present(name: str, available: Iterable[str], columns: Columns) -> None:
    """Every needed or explicitly mapped column must be there.

    Raises:
        DataError: naming the source, the column, its field, and the columns that exist.
    """
    there = set(available)
    for field, wanted in resolve_columns(columns).items():
        needed = field not in _OPTIONAL or field in columns
        for column in wanted:
            if needed and column not in there:
                hint = f"map it: data.columns: {{{field}: YOUR_COLUMN}}"
                if field == "episode":
                    hint += ", or {episode: null} if every row is an episode of its own"
                raise DataError(
                    f"{name}: column {column!r} (field {field!r}) is missing; there are: "
                    f"{', '.join(sorted(there)) or 'no columns'}. {hint}"
                )


# ---------------------------------------------------------------------- Arrow: Parquet, Hugging Face


def read_parquet(path: Path, columns: Columns) -> Source:
    """One Parquet file; only mapped columns are read.

    Raises:
        DataError: if it is not Parquet, or a column is missing or of a wrong type.
    """
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error
    available = file.schema_arrow.names
    check_present(str(path), available, columns)
    wanted = {name for names in resolve_columns(columns).values() for name in names if name in available}
    return from_arrow(str(path), file.read(columns=sorted(wanted)), columns)


def read_huggingface(path: str, columns: Columns) -> list[Source]:
    """A dataset saved by ``save_to_disk``, or ``hub:owner/name[:split]`` through ``datasets.load_dataset``.

    Where a dataset has several splits, their names become the field ``split``.

    Raises:
        DataError: if a column is missing or of a wrong type.
    """
    import datasets

    if path.startswith(HUB):
        repository, _, wanted = path.removeprefix(HUB).partition(":")
        loaded = datasets.load_dataset(repository, split=wanted or None)
    else:
        loaded = datasets.load_from_disk(path)
    parts = loaded if isinstance(loaded, dict) else {"": loaded}
    sources = []
    for split, dataset in parts.items():
        name = f"{path}[{split}]" if split else path
        table = dataset.with_format("arrow")[:]
        if split and "split" not in columns and "split" not in table.column_names:
            table = table.append_column("split", pa.array([str(split)] * table.num_rows, pa.large_string()))
        check_present(name, table.column_names, columns)
        sources.append(from_arrow(name, table, columns))
    return sources


def from_arrow(name: str, table: Any, columns: Columns) -> Source:
    """Canonical columns out of an Arrow table.

    Raises:
        DataError: for a column of a wrong type.
    """
    fields = {}
    for field, wanted in resolve_columns(columns).items():
        if not wanted or any(column not in table.column_names for column in wanted):
            fields[field] = pa.nulls(table.num_rows)
        elif field == "episode":
            parts = [_typed(name, field, column, table.column(column)) for column in wanted]
            fields[field] = (
                parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, pa.scalar("/", pa.large_string()))
            )
        else:
            fields[field] = _typed(name, field, wanted[0], table.column(wanted[0]))
    return Source(name, "row", pa.table(fields))


def _typed(name: str, field: str, column: str, values: Any) -> Any:
    """A column in its canonical Arrow type."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_null(kind):
        return values
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if field == "step" and pa.types.is_integer(kind):
        return values.cast(pa.int64())
    if field == "episode" and pa.types.is_integer(kind):
        return values.cast(pa.large_string())
    if field != "step" and text:
        return values.cast(pa.large_string())
    if field in _STATES:
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:  # an Image feature of `datasets`
            return pc.struct_field(values, "bytes").cast(pa.large_binary())
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return values.cast(pa.large_binary())
    row = pc.index(pc.is_valid(values), True).as_py()
    value = repr(values[row].as_py())[:80]
    raise DataError(f"{name}, row {row + 1}: field {field!r} (column {column!r}) must be {_WANTED[field]}, got {kind}: {value}")


_WANTED = {
    "state": "text or image bytes",
    "next_state": "text or image bytes",
    "action": "text",
    "context": "text",
    "episode": "text or an integer",
    "step": "an integer",
    "split": "text",
}


# ---------------------------------------------------------------------- JSON lines


def read_jsonl(path: Path, columns: Columns) -> Source:
    """One file of JSON lines.

    Raises:
        DataError: naming file and line of a malformed line or a field of a wrong type, or a missing column.
    """
    resolved = resolve_columns(columns)
    seen: set[str] = set()
    batches = list(jsonl_batches(path, columns, seen))
    if batches:
        check_present(str(path), seen, columns)
    table = pa.Table.from_batches(batches, _JSONL)
    for i, name in enumerate(FIELDS):
        if not set(resolved[name]) <= seen or not resolved[name]:
            table = table.set_column(i, name, pa.nulls(table.num_rows))
    return Source(str(path), "line", table)


def jsonl_batches(path: Path, columns: Columns, seen: set[str] | None = None) -> Iterator[Any]:
    """Record batches of a file of JSON lines in canonical columns, null where a line lacks one.

    Args:
        path: the file.
        columns: field to column.
        seen: gets the columns that occur.

    Raises:
        DataError: naming file and line of a malformed line or a field of a wrong type.
    """
    resolved = resolve_columns(columns)
    part: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for number, record in _records(path):
        if seen is not None:
            seen.update(record)
        for field, wanted in resolved.items():
            part[field].append(_value(f"{path}, line {number}", field, wanted, record))
        if len(part["state"]) == _LINES_AT_ONCE:
            yield pa.record_batch(part, schema=_JSONL)
            part = {name: [] for name in FIELDS}
    if part["state"]:
        yield pa.record_batch(part, schema=_JSONL)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects with their line numbers from 1; empty lines only at the end, so that rows and lines count alike."""
    empty = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                empty = empty or number
                continue
            if empty:
                raise DataError(f"{path}, line {empty}: empty line; every line must hold one JSON object")
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{path}, line {number}: malformed JSON ({error}); every line must hold one object") from error
            if not isinstance(record, dict):
                raise DataError(f"{path}, line {number}: must hold one JSON object, got {type(record).__name__}")
            yield number, record


def _value(where: str, field: str, wanted: Sequence[str], record: Mapping[str, Any]) -> str | int | None:
    values = [record.get(column) for column in wanted]
    for column, value in zip(wanted, values, strict=True):
        allowed = {"step": (int,), "episode": (str, int)}.get(field, (str,))
        if value is not None and (not isinstance(value, allowed) or isinstance(value, bool)):
            raise DataError(
                f"{where}: field {field!r} (column {column!r}) must be "
                f"{'text' if field in _STATES else _WANTED[field]}, got {type(value).__name__}: {repr(value)[:80]}"
            )
    if not values or any(value is None for value in values):
        return None
    if half := next((value for value in values if isinstance(value, str) and _HALF.search(value)), None):
        raise DataError(
            f"{where}: field {field!r} holds half a character (a lone surrogate): {ascii(half)[:80]}; mend the text"
        )
    if field == "step":
        return int(values[0])  # type: ignore[arg-type]
    return "/".join(str(value) for value in values)
