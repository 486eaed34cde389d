"""JSON as blocks of rows: lines (Arrow reads the plain ones), a list, or values one after another."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.json
from typing_extensions import override

from swirl_lightning.data.columns import DataError
from swirl_lightning.data.formats import ROWS_AT_ONCE, Block, Reader, opened
from swirl_lightning.data.sources import Item

_BYTES_AT_ONCE = 1 << 24
_PARTS = 4  # of such a block, that are read side by side
_HEAD = 100  # rows that are looked at before a file is read
_ESCAPE = 16  # characters at the end that may be half of an escape or of a word
_NO_OBJECT = re.compile(rb"\n(?!\{|\Z)")
_VISIBLE = re.compile(r"\S")
_BOM = b"\xef\xbb\xbf"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} is there twice in one object")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


class JsonLinesReader(Reader):
    """One object a line."""

    unit = "line"

    @override
    def head(self) -> tuple[list[str], list[dict[str, Any]]]:
        for first, _, chunk in self._chunks(1 << 16):
            records = self._records(first, chunk, _HEAD)
            if records:
                return list(dict.fromkeys(name for record in records for name in record)), records
        return [], []

    @override
    def blocks(self, roots: Sequence[str], flat: Mapping[str, Any] | None) -> Iterator[Block]:
        schema = None if flat is None else pa.schema(list(flat.items()))
        for first, lines, chunk in self._chunks(_BYTES_AT_ONCE):
            table = None if schema is None else _arrow(chunk, lines, schema)
            block = Block(first, table) if table is not None else Block(first, objects=self._records(first, chunk))
            if block.rows:
                yield block

    def _chunks(self, size: int) -> Iterator[tuple[int, int, memoryview]]:
        """Whole lines: the number of those before them, theirs, and they, in one buffer that the next ones overwrite."""
        buffer, held, first = bytearray(size), 0, 0
        with opened(self.item) as stream:
            while (read := stream.readinto(memoryview(buffer)[held:])) or held:
                end = held + read
                cut = buffer.rfind(b"\n", 0, end) + 1 if read else end
                if not cut:  # a line that is longer
                    buffer, held = buffer + bytes(len(buffer)), end
                    continue
                begin = len(_BOM) if not first and buffer.startswith(_BOM) else 0
                lines = buffer.count(b"\n", begin, cut) + (not buffer.endswith(b"\n", begin, cut))
                yield first, lines, memoryview(buffer)[begin:cut]
                first, held = first + lines, end - cut
                buffer[:held] = buffer[cut:end]

    def _records(self, first: int, view: memoryview, limit: int | None = None) -> list[dict[str, Any]]:
        """Objects of some lines; empty lines only at the end of the file, so that rows and lines count alike."""
        chunk = bytes(view)
        records: list[dict[str, Any]] = []
        empty: int | None = None
        for number, line in enumerate(chunk.splitlines() if b"\r" not in chunk else chunk.split(b"\n"), first + 1):
            if len(records) == limit:
                break
            if not line.strip():
                empty = empty or number
                continue
            if empty:
                raise DataError(f"{self.item.name}, line {empty}: empty line; every line must hold one JSON object")
            try:
                record = _DECODER.decode(line.decode())
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{self.item.name}, line {number}: malformed JSON ({error}); every line must hold one object"
                ) from error
            if not isinstance(record, dict):
                hint = "; a file of one list is called .json" if isinstance(record, list) else ""
                raise DataError(
                    f"{self.item.name}, line {number}: must hold one JSON object, got {type(record).__name__}{hint}"
                )
            records.append(record)
        return records


def _arrow(chunk: memoryview, lines: int, schema: Any) -> Any:
    """Lines of plain values, read by Arrow; None where it cannot, or where a line might not be one object."""
    if chunk[:1].tobytes() != b"{" or _NO_OBJECT.search(chunk):
        return None
    for parts in (_PARTS, 1):  # a row that is longer than a part needs the whole block
        try:
            table = pa.json.read_json(
                pa.BufferReader(chunk),
                pa.json.ReadOptions(block_size=max(len(chunk) // parts + 1, 1 << 14)),
                pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
            table.validate(full=True)  # UTF-8
        except pa.ArrowInvalid as error:
            if "straddling" in str(error):
                continue
            return None
        return table if table.num_rows == lines else None
    return None


def one_object_a_line(item: Item) -> bool:
    """Whether a ``.json`` file holds lines: its first line is an object and not the whole of a longer one."""
    with opened(item) as stream:
        start = stream.read(1 << 16)
        while b"\n" not in start and (more := stream.read(len(start) or 1)):
            start += more
    try:
        return isinstance(json.loads(start.removeprefix(_BOM).partition(b"\n")[0]), dict)
    except ValueError:
        return False


class JsonReader(Reader):
    """A list of objects, or objects one after another, of any layout; read an object at a time."""

    unit = "record"

    @override
    def head(self) -> tuple[list[str], list[dict[str, Any]]]:
        records = [record for (record, _), _ in zip(self._objects(), range(_HEAD), strict=False)]
        return list(dict.fromkeys(name for record in records for name in record)), records

    @override
    def blocks(self, roots: Sequence[str], flat: Mapping[str, Any] | None) -> Iterator[Block]:
        first, begin, held = 0, 0, []
        for record, end in self._objects():
            held.append(record)
            if len(held) == ROWS_AT_ONCE or end - begin > _BYTES_AT_ONCE:
                yield Block(first, objects=held)
                first, begin, held = first + len(held), end, []
        if held:
            yield Block(first, objects=held)

    def _objects(self) -> Iterator[tuple[dict[str, Any], int]]:
        """The objects, with the characters that were read by then."""
        number = 0
        try:
            with opened(self.item) as raw:
                text = _Text(io.TextIOWrapper(raw, encoding="utf-8-sig"))
                for value in _values(text):
                    if not isinstance(value, dict):
                        raise DataError(f"{self.where(number)}: must hold one JSON object, got {type(value).__name__}")
                    number += 1
                    yield value, text.read
        except _MalformedError as error:
            raise DataError(f"{self.where(number)}: malformed or cut off JSON ({error})") from error


class _MalformedError(Exception):
    """Text that is not JSON; says why."""


class _Text:
    """JSON text, of which no more than the value at hand is kept.

    Args:
        stream: the text.
    """

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream, self._held, self._at = stream, "", 0
        self.read = 0  # characters of values so far

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while not (found := _VISIBLE.search(self._held, self._at)):
            if not self._more(len(self._held)):
                return ""
        self._at = found.start()
        return found.group()

    def skip(self) -> None:
        """Goes on behind the character that was peeked at."""
        self._at += 1

    def value(self) -> Any:
        """Reads the next value to its end."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except (ValueError, RecursionError) as error:
                cut = "Unterminated" in str(error) or getattr(error, "pos", 0) >= len(self._held) - _ESCAPE
                if not (cut and self._more(self._at)):
                    raise _MalformedError(str(error)) from error
            else:
                self.read += end - self._at
                self._at = end
                return value

    def _more(self, begin: int) -> bool:
        """Reads on, at least as much as is kept: what lies before ``begin`` is not."""
        kept = self._held[begin:]
        try:
            more = self._stream.read(max(_BYTES_AT_ONCE, len(kept)))
        except UnicodeDecodeError as error:
            raise _MalformedError(str(error)) from error
        self._held, self._at = kept + more, 0
        return bool(more)


def _values(text: _Text) -> Iterator[Any]:
    """Elements of the outermost list, or values one after another."""
    listed = text.peek() == "["
    if listed:
        text.skip()
    while (character := text.peek()) and not (listed and character == "]"):
        yield text.value()
        if listed and text.peek() == ",":
            text.skip()
        elif listed and text.peek() != "]":
            raise _MalformedError("a comma or the end of the list is missing")
    if listed:
        if not character:
            raise _MalformedError("the list does not end")
        text.skip()
        if text.peek():
            raise _MalformedError("something follows the list")
