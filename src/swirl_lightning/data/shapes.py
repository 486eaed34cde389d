"""What a row is: a pair, one step of an episode, a whole trajectory, or a chat; read off its first rows and the mapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from swirl_lightning.data.columns import (
    Along,
    Columns,
    DataError,
    listed,
    lookup,
    paths_of,
    resolve_columns,
    root,
)
from swirl_lightning.data.formats import Reader
from swirl_lightning.data.values import canonical

Kind = Literal["pairs", "steps", "trajectories", "chats"]
_NEEDED = {"state", "next_state", "episode"}
_TEXT = {"state", "next_state", "action", "context", "episode", "split"}


@dataclass(frozen=True)
class Shape:
    """How the rows of a file are read.

    Attributes:
        kind: what a row is.
        paths: fields that are read, and the columns that hold them.
        roots: columns that are needed.
        flat: Arrow types of the columns, where all are plain text or integers; None otherwise.
        after: a row holds the state that its action led to, rather than the one that it was taken in.
        found: fields of which the first rows have a column.
        there: the columns that there are, for messages.
        unseen: messages for fields that must come yet: later lines of JSON may have what the first ones lack.
    """

    kind: Kind
    paths: dict[str, tuple[str, ...]]
    roots: tuple[str, ...]
    flat: dict[str, Any] | None
    after: bool
    found: frozenset[str]
    there: str
    unseen: dict[str, str]

    def name(self, field: str) -> str:
        """The user's columns of a field, for messages."""
        return "/".join(self.paths.get(field, ())) or field


def find_shape(
    reader: Reader, columns: Columns, *, actions: bool, needed: bool = True, option: str = "data.columns"
) -> Shape | None:
    """The shape of a file; None for a file without rows.

    Args:
        reader: the file.
        columns: the user's mapping.
        actions: whether an action column is read, where there is one.
        needed: whether one that ``columns`` names must be there.
        option: what the mapping is called, for messages.

    Raises:
        DataError: for a needed column that is missing, or a mapping that fits no shape.
    """
    names, records = reader.head()
    if not records:
        return None
    present = _Present(reader.item.name, names, records, option)
    resolved = resolve_columns(columns)
    if not actions:
        resolved["action"] = ()
    chat = [path for path in resolved["messages"] if present(path)]
    if "messages" in columns and resolved["messages"]:
        chat = list(present.needed("messages", resolved["messages"]))
    elif "state" in columns or any(present(path) for path in resolved["state"]):
        chat = []
    unseen: dict[str, str] = {}
    if chat:
        kind: Kind = "chats"
        fields: dict[str, tuple[str, ...]] = {"messages": (chat[0],)}
    else:
        fields, kind = _states(present, resolved, columns)
    for field in ("action", "context", "episode", "step", "split", "done"):
        if kind == "chats" and field in ("action", "step", "done"):
            fields[field] = ()
        elif field == "action" and reader.unit != "row":
            fields[field] = resolved[field]
            if needed and field in columns and (missing := [path for path in resolved[field] if not present(path)]):
                unseen[field] = present.missing(field, missing[0])
        elif field == "action" and not needed:
            fields[field] = tuple(path for path in resolved[field] if present(path))
        else:
            fields[field] = _others(present, field, resolved[field], columns, kind)
    found = frozenset(field for field, paths in fields.items() if paths and all(present(path) for path in paths))
    roots = tuple(dict.fromkeys(start for paths in fields.values() for path in paths if (start := root(path, names))))
    flat = _flat(fields, names, records) if kind in ("pairs", "steps") else None
    if after := not fields.get("state") and bool(fields.get("next_state")):
        fields["state"], fields["next_state"] = fields["next_state"], ()
    return Shape(kind, fields, roots, flat, after, found, present.there(), unseen)


class _Present:
    """Which paths lead to something in the first rows of a file."""

    def __init__(self, name: str, names: Sequence[str], records: Sequence[dict[str, Any]], option: str) -> None:
        self.name, self.names, self.records, self.option = name, names, records, option
        self._known = set(names)

    def __call__(self, path: str) -> bool:
        if path in self._known or (start := root(path, self._known)) is None:
            return path in self._known
        rest = [{start: record.get(start)} for record in self.records]
        return any(_something(self.value(record, path)) for record in self.records) or path in paths_of((), rest)

    def value(self, record: dict[str, Any], path: str) -> Any:
        try:
            return lookup(record, path)
        except DataError as error:
            raise DataError(f"{self.name}: column {path!r}: {error}") from error

    def first(self, path: str) -> Any:
        """The first value that there is."""
        return next((value for r in self.records if (value := self.value(r, path)) is not None), None)

    def needed(self, field: str, paths: Sequence[str]) -> tuple[str, ...]:
        """The paths, all of which must be there.

        Raises:
            DataError: naming the file, the column, its field, and the columns that exist.
        """
        for path in paths:
            if not self(path):
                raise DataError(self.missing(field, path))
        return tuple(paths)

    def missing(self, field: str, path: str) -> str:
        """What to say of a column that is not there."""
        hint = f"map it: {self.option}: {{{field}: YOUR_COLUMN}}"
        if field == "episode":
            hint += ", or {episode: null} if every row is an episode of its own"
        return f"{self.name}: column {path!r} (field {field!r}) is missing; there are: {self.there()}. {hint}"

    def there(self) -> str:
        """The columns that there are."""
        return listed(paths_of(self.names, self.records))


def _something(value: Any) -> bool:
    return any(item is not None for item in value) if isinstance(value, Along) else value is not None


def _states(
    present: _Present, resolved: dict[str, tuple[str, ...]], columns: Columns
) -> tuple[dict[str, tuple[str, ...]], Kind]:
    """Where the states are, and what a row is."""
    fields = {}
    for field in ("state", "next_state"):
        if field == "state" or columns.get("next_state") is not None:
            fields[field] = present.needed(field, resolved[field])
        else:  # without next states, pairs are made of states in a row
            fields[field] = tuple(path for path in resolved[field] if present(path))
    first = present.first((fields["state"] or fields["next_state"])[0])
    if isinstance(first, list) and first and isinstance(first[0], dict) and {"role", "from"} & set(first[0]):
        raise DataError(
            f"{present.name}: column {(fields['state'] or fields['next_state'])[0]!r} holds a chat; "
            f"map it as {present.option}: {{messages: YOUR_COLUMN}}"
        )
    both = bool(fields["state"] and fields["next_state"])
    if isinstance(first, Along):
        return fields, "trajectories"
    if both:
        return fields, "pairs"
    return fields, "trajectories" if isinstance(first, list) and not _is_step(present, resolved, first) else "steps"


def _is_step(present: _Present, resolved: dict[str, tuple[str, ...]], state: list[Any]) -> bool:
    """Whether a list is the value of one state: where rows have a step; and for numbers, where rows look like steps, too."""
    if any(present(path) and isinstance(present.first(path), int | str) for path in resolved["step"]):
        return True
    if not state or not all(isinstance(item, int | float) for item in state):
        return False
    ended = any(present(path) and isinstance(present.first(path), bool | int) for path in resolved["done"])
    episodes = [canonical([present.value(r, path) for path in resolved["episode"]]) for r in present.records]
    return ended or (any(map(present, resolved["episode"])) and len(set(episodes)) < len(episodes))


def _others(present: _Present, field: str, paths: tuple[str, ...], columns: Columns, kind: Kind) -> tuple[str, ...]:
    """The columns of a field that is no state."""
    given = columns.get(field) is not None
    if field == "episode" and kind in ("pairs", "steps"):
        return present.needed(field, paths)
    if given:
        return present.needed(field, paths)
    there = tuple(path for path in paths if present(path))
    if field == "step" and there and present.first(there[0]) is None:
        return ()
    return there


def _flat(fields: dict[str, tuple[str, ...]], names: Sequence[str], records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    types: dict[str, Any] = {}
    for field, paths in fields.items():
        for path in paths:
            kinds = {type(record.get(path)) for record in records} - {type(None)}
            plain = {str: pa.large_string(), int: pa.int64(), bool: pa.bool_()}
            if (root(path, names) != path and field != "action") or len(kinds) > 1 or not kinds <= set(plain):
                return None
            kind = next(iter(kinds), int if field == "step" else bool if field == "done" else str)
            if kind is not str and field in ("state", "next_state", "action", "context"):
                return None
            types[path] = plain[kind]
    return types
