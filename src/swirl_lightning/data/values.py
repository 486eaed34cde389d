"""Values of a column as the text that the models read: text as it is, anything else as canonical JSON, images as bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from swirl_lightning.data.columns import DataError
from swirl_lightning.data.report import Report

_KINDS = {str: "text", dict: "object", list: "list", bool: "boolean", int: "number", float: "number", bytes: "image"}
_PLAIN = {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}
_IMAGE = {"bytes", "path"}  # an Image feature of `datasets`
_STATES = {"state", "next_state"}
_HALF = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"\s*(-?\d+)(?:\.0*)?\s*", re.ASCII)
Where = Callable[[int], str]


def canonical(value: Any) -> str:
    """JSON text with sorted keys: equal values are equal texts, whatever the order in which a program wrote them.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
        TypeError: for bytes inside an object.
    """
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False, default=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("bytes inside an object or a list; map the path of the image itself")
    return str(value)  # dates, times, decimals


class Texts:
    """Makes columns text or image bytes, and refuses columns whose values are now of one kind, now of another.

    Args:
        report: is told which columns were not text.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._kinds: dict[str, tuple[str, str]] = {}  # field: (kind, where it was first seen)

    def column(self, field: str, name: str, values: Any, where: Where) -> Any:
        """One field of some rows.

        Args:
            field: state, next_state, action or context.
            name: the user's column.
            values: an Arrow array, or a list of Python values.
            where: place of a row, for messages.

        Returns:
            Arrow array of large strings or large binaries, null where a value is missing.

        Raises:
            DataError: naming the place of a value that is no text and cannot become one, or is of another kind than others.
        """
        if isinstance(values, pa.Array | pa.ChunkedArray):
            values = _decoded(values)
            kind = values.type
            if pa.types.is_null(kind):
                return pa.nulls(len(values), pa.large_string())
            if (
                pa.types.is_string(kind)
                or pa.types.is_large_string(kind)
                or pa.types.is_binary(kind)
                or kind == pa.large_binary()
            ):
                return self._plain_arrow(field, name, values, where)
            values = _python(values)
        values = [value["bytes"] if type(value) is dict and value.keys() == _IMAGE else value for value in values]
        self._check_kinds(field, name, values, where)
        kind_name = self._kinds.get(field, ("text", ""))[0]
        if kind_name == "image":
            return pa.array(values, pa.large_binary())
        if kind_name != "text":
            self.report.json_text(name, kind_name)
            values = [None if value is None else self._json(field, name, value, where, row) for row, value in enumerate(values)]
        try:
            return pa.array(values, pa.large_string())
        except UnicodeEncodeError as error:
            row = next(row for row, value in enumerate(values) if value is not None and _HALF.search(value))
            raise DataError(
                f"{where(row)}: field {field!r} holds half a character (a lone surrogate): {ascii(values[row])[:80]}; "
                "mend the text"
            ) from error

    def _plain_arrow(self, field: str, name: str, values: Any, where: Where) -> Any:
        image = values.type in (pa.binary(), pa.large_binary())
        if values.null_count < len(values):
            first = values.is_valid().index(pa.scalar(True)).as_py()
            self._one_kind(field, name, "image" if image else "text", first, where, values)
        return values.cast(pa.large_binary() if image else pa.large_string())

    def _check_kinds(self, field: str, name: str, values: Sequence[Any], where: Where) -> None:
        kinds = {type(value) for value in values if value is not None}
        first = {kind: next(row for row, value in enumerate(values) if type(value) is kind) for kind in kinds}
        for kind, row in sorted(first.items(), key=lambda kind_and_row: kind_and_row[1]):
            self._one_kind(field, name, _KINDS.get(kind, "other"), row, where, values)

    def _one_kind(self, field: str, name: str, kind: str, row: int, where: Where, values: Any) -> None:
        """Refuses a second kind: text beside numbers or objects would be two spellings of one thing."""
        if kind == "image" and field not in _STATES:
            raise DataError(f"{where(row)}: field {field!r} (column {name!r}) must be text, got bytes")
        first, place = self._kinds.setdefault(field, (kind, where(row)))
        if kind != first:
            value = values[row].as_py() if isinstance(values, pa.Array | pa.ChunkedArray) else values[row]
            wanted = {"text": "text", "image": "image bytes"}.get(first, f"of one kind ({first})")
            raise DataError(
                f"{where(row)}: field {field!r} (column {name!r}) must be {wanted}, got {type(value).__name__}: "
                f"{repr(value)[:80]}; it was {first} in {place}. Write the column in one way"
            )

    def _json(self, field: str, name: str, value: Any, where: Where, row: int) -> str:
        try:
            return canonical(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"{where(row)}: field {field!r} (column {name!r}) cannot be written as JSON ({error}): {repr(value)[:80]}"
            ) from error


def integers(field: str, name: str, values: Any, where: Where) -> Any:
    """Steps as an int64 Arrow array.

    Raises:
        DataError: naming the place of a value that is no integer.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        values = _decoded(values)
        if pa.types.is_null(values.type) or pa.types.is_integer(values.type):
            return values.cast(pa.int64())
        values = values.to_pylist()
    made: list[int | None] = []
    for row, value in enumerate(values):
        whole = _WHOLE.fullmatch(str(value))  # 3, "3" and pandas' 3.0
        number = int(whole[1]) if whole else value
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or abs(number) >= 1 << 63):
            raise DataError(
                f"{where(row)}: field {field!r} (column {name!r}) must be an integer, got {type(value).__name__}: "
                f"{repr(value)[:80]}; data.columns: {{{field}: null}} takes the order of the rows"
            )
        made.append(number)
    return pa.array(made, pa.int64())


def flags(field: str, name: str, values: Any, where: Where) -> Any:
    """Ends of episodes as a boolean Arrow array; numbers 0 and 1 and the words of CSV files are taken, too.

    Raises:
        DataError: naming the place of a value that is neither.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        values = values.to_pylist()
    made = []
    for row, value in enumerate(values):
        known = value.lower() if isinstance(value, str) else value
        if known not in (None, True, False, "true", "false", "1", "0", "1.0", "0.0"):
            raise DataError(f"{where(row)}: field {field!r} (column {name!r}) must be true or false, got {repr(value)[:80]}")
        made.append(known in (True, "true", "1", "1.0"))
    return pa.array(made, pa.bool_())


def as_names(field: str, name: str, values: Any, where: Where) -> Any:
    """Episodes and splits as large strings: text or integers.

    Raises:
        DataError: naming the place of a value that is neither.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        values = _decoded(values)
        kind = values.type
        if kind in _PLAIN or pa.types.is_null(kind) or pa.types.is_integer(kind):
            return values.cast(pa.large_string())
        values = values.to_pylist()
    for row, value in enumerate(values):
        if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
            raise DataError(
                f"{where(row)}: field {field!r} (column {name!r}) must be text or an integer, got {type(value).__name__}: "
                f"{repr(value)[:80]}"
            )
        if isinstance(value, str) and _HALF.search(value):
            raise DataError(f"{where(row)}: field {field!r} holds half a character (a lone surrogate): {ascii(value)[:80]}")
    return pa.array([None if value is None else str(value) for value in values], pa.large_string())


def _decoded(values: Any) -> Any:
    """Without dictionary encoding, and the bytes alone of an Image feature of `datasets`."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        return pc.struct_field(values, "bytes")
    return values


def _python(values: Any) -> list[Any]:
    """Python values of an Arrow array, with the shortest decimals of what was stored in single precision."""
    made: list[Any] = values.to_pylist()
    if "float" in str(values.type).replace("float64", "double") or "halffloat" in str(values.type):
        return [_short(value) for value in made]
    return made


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(str(np.float32(value)))
    if isinstance(value, list):
        return [_short(item) for item in value]
    return {key: _short(item) for key, item in value.items()} if isinstance(value, dict) else value
