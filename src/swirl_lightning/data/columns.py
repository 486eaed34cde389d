"""Which of the user's columns hold a field: names, dotted paths into objects and lists, several columns joined."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from swirl_lightning.data.schema import FIELDS
from swirl_lightning.hints import did_you_mean

Columns = Mapping[str, str | Sequence[str] | None]
"""Field to column; several columns of an episode are joined with ``/``, null leaves a field unread."""

MAPPED = (*FIELDS, "done", "messages")
_JOINED = {"episode", "context", "done"}
_SHOWN = 20


class DataError(ValueError):
    """Data that cannot be used: says which file, row and field, and what to do."""


class Along(list[Any]):
    """Values of one field along the list of a row: a trajectory."""


def resolve_columns(columns: Columns) -> dict[str, tuple[str, ...]]:
    """Column names per field: the field's own name unless mapped; an empty tuple where mapped to null.

    Raises:
        DataError: for a field that does not exist, several columns where one is needed, or one column for both states.
    """
    if unknown := sorted(set(columns) - set(MAPPED)):
        near = did_you_mean(unknown[0], MAPPED, listed=False)
        raise DataError(f"data.columns: there is no field {unknown[0]!r}; fields are {', '.join(MAPPED)}{near}")
    resolved: dict[str, tuple[str, ...]] = {}
    for name in MAPPED:
        value = columns.get(name, name)
        resolved[name] = () if value is None else (value,) if isinstance(value, str) else tuple(value)
        if len(resolved[name]) > 1 and name not in _JOINED:
            raise DataError(f"data.columns.{name}: one column, please; only episode, context and done may join several")
    if "messages" not in columns:
        resolved["messages"] = ("messages", "conversations")  # whichever is there
    if not resolved["state"] and not resolved["next_state"]:
        raise DataError("data.columns: state and next_state are both null; a transition needs one of them at least")
    if resolved["state"] == resolved["next_state"]:
        raise DataError(
            f"data.columns: state and next_state are one column, {resolved['state'][0]!r}, so nothing would ever change. "
            "Where a row holds one state, map state alone: the next state is then the episode's next row"
        )
    return resolved


def lookup(record: Any, path: str) -> Any:
    """The value at a dotted path, None where it is missing.

    A name that has dots itself is found, too. Through a list the path goes on in each of its elements; text on the way is read
    as JSON.

    Args:
        record: a row, or a part of one.
        path: e.g. ``steps.observation``.

    Returns:
        The value; an :class:`Along` of values where a list was on the way.

    Raises:
        DataError: for a second list on the way, or text on the way that is not JSON.
    """
    if isinstance(record, str):
        try:
            record = json.loads(record)
        except ValueError as error:
            raise DataError(f"{path!r} leads into text that is not JSON: {record[:80]!r}") from error
    if isinstance(record, list):
        values = Along(lookup(item, path) for item in record)
        if any(isinstance(value, Along) for value in values):
            raise DataError(f"two lists lie on the way to {path!r}; a row must be one trajectory: flatten one of them first")
        return values
    if not isinstance(record, dict):
        return None
    if path in record:
        return record[path]
    at = len(path)
    while (at := path.rfind(".", 0, at)) > 0:
        if path[:at] in record:
            return lookup(record[path[:at]], path[at + 1 :])
    return None


def root(path: str, names: Iterable[str]) -> str | None:
    """The column at the beginning of a dotted path, None where there is none."""
    known = set(names)
    at = len(path)
    while at > 0:
        if path[:at] in known:
            return path[:at]
        at = path.rfind(".", 0, at)
    return None


def paths_of(names: Iterable[str], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted paths that a mapping may name, for messages: columns, and what lies in their objects and lists."""
    found = dict.fromkeys(names)

    def walk(value: Any, path: str, depth: int) -> None:
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, dict) and depth < 4:
            for name, inner in value.items():
                found[f"{path}.{name}"] = None
                walk(inner, f"{path}.{name}", depth + 1)

    for record in records:
        for name, value in record.items():
            walk(value, name, 1)
    return sorted(found)


def listed(paths: Sequence[str]) -> str:
    """Paths for a message; not all of a million."""
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(path[:80] for path in paths[:_SHOWN]) + more or "no columns"
