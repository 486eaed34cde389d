"""Files of predictions: JSON lines, and their fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl_lightning.commands.options import Columns
from swirl_lightning.data.columns import DataError, listed, lookup, paths_of
from swirl_lightning.hints import did_you_mean


def json_lines(path: Path, columns: Columns | None, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file of predictions with their places.

    Args:
        path: The file.
        columns: Field to column where names differ, as dotted paths into objects.
        fields: That there are.

    Raises:
        DataError: for a field that does not exist, or a column that a line does not have.
        FileNotFoundError: if there is no such file.
        ValueError: if there is nothing in it, or naming file and line of what is no object.
    """
    if unknown := sorted(set(columns or {}) - set(fields)):
        near = did_you_mean(unknown[0], fields, listed=False)
        raise DataError(f"--columns: there is no field {unknown[0]!r}; fields are {', '.join(fields)}{near}")
    empty = True
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except ValueError as error:  # bad JSON, bad UTF-8
                raise ValueError(f"{where}: malformed JSON ({error}); every line must hold one object") from error
            except RecursionError as error:
                raise ValueError(f"{where}: JSON that is nested too deeply") from error
            if not isinstance(record, dict):
                raise ValueError(f"{where}: must hold one JSON object, got {type(record).__name__}")
            empty = False
            yield where, record if columns is None else _mapped(where, record, columns)
    if empty:
        raise ValueError(f"{path} is empty: there is no prediction to score")


def _mapped(where: str, record: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """The record with its fields under their own names."""
    mapped = dict(record)
    for field, column in columns.items():
        mapped.pop(field, None)
        if isinstance(column, list):
            raise DataError(f"--columns.{field}: one column, please")
        if column is not None and (value := lookup(record, column)) is None:
            there = listed(paths_of(record, [record]))
            raise DataError(f"{where}: column {column!r} (field {field!r}) is missing; the line has {there}")
        if column is not None:
            mapped[field] = value
    return mapped


def text_field(where: str, record: Mapping[str, Any], name: str, required: bool) -> str | None:
    """A field that holds text, or None where it may be missing and is.

    Raises:
        ValueError: if it is missing or no text.
    """
    value = record.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str):
        got = f"missing; the line has {', '.join(sorted(record)) or 'no field'}" if name not in record else repr(value)[:80]
        raise ValueError(f"{where}: field {name!r} must be text, got {got}")
    return value
