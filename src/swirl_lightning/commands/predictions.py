"""Files of predictions: JSON lines, and their fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file of predictions with their places.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is nothing in it, or naming file and line of what is no object.
    """
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
            yield where, record
    if empty:
        raise ValueError(f"{path} is empty: there is no prediction to score")


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
