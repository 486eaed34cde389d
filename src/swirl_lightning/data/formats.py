"""Files and data sets as blocks of rows, as they are: Arrow columns where a file has them, Python objects of JSON otherwise."""

from __future__ import annotations

import csv
import io
import lzma
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from typing_extensions import override

from swirl_lightning.data.columns import DataError
from swirl_lightning.data.sources import COMPRESSIONS, Item

ROWS_AT_ONCE = 1024
NESTED_AT_ONCE = 64  # rows that may be trajectories
_CELL = 1 << 24  # bytes of CSV that are read at once; a longer row makes it more


@dataclass(frozen=True)
class Block:
    """Some rows in a row of a file: ``table`` where they came as Arrow columns, ``records`` where they came as JSON."""

    first: int  # rows of the file before them
    table: Any = None  # pyarrow.Table
    objects: list[dict[str, Any]] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.objects) if self.objects is not None else int(self.table.num_rows)

    def parts(self, rows: int) -> Iterator[Block]:
        """The block in parts of at most so many rows."""
        for at in range(0, self.rows, rows):
            if self.objects is not None:
                yield Block(self.first + at, objects=self.objects[at : at + rows])
            else:
                yield Block(self.first + at, self.table.slice(at, rows))

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as Python objects."""
        made: list[dict[str, Any]] = self.table.to_pylist() if self.objects is None else self.objects
        return made


@dataclass
class Reader(ABC):
    """Reads one file or data set.

    Attributes:
        item: what is read.
        unit: what counts its rows from 1, for messages.
    """

    item: Item
    unit = "row"

    @abstractmethod
    def head(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Names of the columns, and the first rows.

        Raises:
            DataError: if the file cannot be read.
        """

    @abstractmethod
    def blocks(self, roots: Sequence[str], flat: Mapping[str, Any] | None) -> Iterator[Block]:
        """All rows.

        Args:
            roots: columns that are needed.
            flat: Arrow types of the needed columns where they are plain text and integers, which JSON lines are then read as.

        Raises:
            DataError: naming the place of what cannot be read.
        """

    def where(self, row: int) -> str:
        """A place that a user can look up."""
        return f"{self.item.name}, {self.unit} {row + 1}"

    def _valid(self, first: int, table: Any) -> Block:
        """Columns that another program wrote, whose texts must be UTF-8.

        Raises:
            DataError: naming the row of what is not.
        """
        try:
            table.validate(full=True)
        except pa.ArrowInvalid as error:
            if len(table) > 1:
                half = len(table) // 2
                self._valid(first, table.slice(0, half))
                self._valid(first + half, table.slice(half))
            raise DataError(f"{self.where(first)}: {error}; texts must be UTF-8") from error
        return Block(first, table)


@contextmanager
def opened(item: Item) -> Iterator[Any]:
    """A file's bytes, unpacked as it is read.

    Raises:
        DataError: where the packed file is cut off or broken.
    """
    assert item.path is not None
    packed = COMPRESSIONS.get(item.path.suffix.lower())
    try:
        if packed == "xz":
            with lzma.open(item.path) as stream:
                yield stream
        elif packed is not None:
            with pa.input_stream(str(item.path), compression=packed) as unpacked:
                yield io.BufferedReader(unpacked)
        else:
            with item.path.open("rb") as stream:
                yield stream
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if packed is None or isinstance(error, FileNotFoundError):
            raise
        raise DataError(f"{item.name}: cut off or not {packed} ({error}); was it written or downloaded to the end?") from error


class ParquetReader(Reader):
    """Parquet: only needed columns are read."""

    def _file(self) -> Any:
        try:
            return pq.ParquetFile(self.item.path, memory_map=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"{self.item.name}: not a readable Parquet file ({error})") from error

    @override
    def head(self) -> tuple[list[str], list[dict[str, Any]]]:
        file = self._file()
        first = next(file.iter_batches(5), None)
        return file.schema_arrow.names, [] if first is None else self._valid(0, pa.Table.from_batches([first])).records

    @override
    def blocks(self, roots: Sequence[str], flat: Mapping[str, Any] | None) -> Iterator[Block]:
        first, file = 0, self._file()
        nested = any(pa.types.is_nested(file.schema_arrow.field(name).type) for name in roots)
        try:
            for batch in file.iter_batches(NESTED_AT_ONCE if nested else ROWS_AT_ONCE, columns=list(roots)):
                yield self._valid(first, pa.Table.from_batches([batch]))
                first += batch.num_rows
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{self.item.name}, after row {first}: not readable Parquet ({error})") from error


class DatasetReader(Reader):
    """A data set of the hub, or one that was saved to disk."""

    def _tables(self) -> Iterator[Any]:
        dataset = self.item.dataset.with_format("arrow")
        return iter(dataset.iter(ROWS_AT_ONCE))

    @override
    def head(self) -> tuple[list[str], list[dict[str, Any]]]:
        first = next(self._tables(), None)
        return (first.column_names, self._valid(0, first.slice(0, 5)).records) if first is not None else ([], [])

    @override
    def blocks(self, roots: Sequence[str], flat: Mapping[str, Any] | None) -> Iterator[Block]:
        first = 0
        for table in self._tables():
            yield self._valid(first, table.select(list(roots)))
            first += table.num_rows


class _TooLongError(Exception):
    """A row of a CSV file is longer than what is read at once."""


class CsvReader(Reader):
    """CSV and TSV: every cell is text; an empty cell is missing unless it is quoted."""

    @override
    def head(self) -> tuple[list[str], list[dict[str, Any]]]:
        first = next(self.blocks((), None), None)
        return self._names(), first.records[:5] if first is not None else []

    @override
    def blocks(self, roots: Sequence[str], flat: Mapping[str, Any] | None) -> Iterator[Block]:
        names = self._names()
        if twice := [name for name in roots if names.count(name) > 1]:
            raise DataError(f"{self.item.name}: column {twice[0]!r} is there twice; rename one of them")
        convert = pa.csv.ConvertOptions(
            include_columns=list(roots),
            column_types=dict.fromkeys(roots or names, pa.large_string()),
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=False,
        )
        done, at_once = 0, _CELL
        while True:
            first = 0
            try:
                for batch in self._batches(convert, at_once):
                    if first >= done and batch.num_rows:
                        yield Block(first, pa.Table.from_batches([batch]))
                        done = first + batch.num_rows
                    first += batch.num_rows
                return
            except _TooLongError:  # begins again, and passes over what was read
                at_once *= 4

    def _names(self) -> list[str]:
        """The header alone; Arrow would read every column of the first rows, of a million as well."""
        with opened(self.item) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
            try:
                names = next(filter(None, csv.reader(text, delimiter=self._delimiter)), [])
            except csv.Error as error:
                raise DataError(f"{self.item.name}: the header cannot be read ({error})") from error
        if wrong := [name for name in names if "\ufffd" in name]:
            raise DataError(f"{self.item.name}: the header is not UTF-8: {wrong[0][:80]!r}")
        return names

    @property
    def _delimiter(self) -> str:
        return "\t" if self.item.kind == "tsv" else ","

    def _batches(self, convert: Any, at_once: int) -> Iterator[Any]:
        wrong: list[Any] = []

        def refuse(row: Any) -> str:
            wrong.append(row)
            return "error"

        kind = self.item.kind
        parse = pa.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=refuse)
        read = pa.csv.ReadOptions(use_threads=False, block_size=at_once)  # one thread counts the rows
        try:
            with opened(self.item) as stream, pa.csv.open_csv(stream, read, parse, convert) as batches:
                yield from batches
        except pa.ArrowInvalid as error:
            if "straddling" in str(error):
                raise _TooLongError from error
            if wrong:
                raise DataError(
                    f"{self.item.name}, row {wrong[0].number - 1}: {wrong[0].actual_columns} cells, but the header names "
                    f"{wrong[0].expected_columns}: {wrong[0].text[:80]!r}; quote cells that hold a separator or a line break"
                ) from error
            if "Empty CSV" in str(error):
                raise DataError(f"{self.item.name} is empty: no row in it") from error
            raise DataError(f"{self.item.name}: not readable as {kind.upper()} in UTF-8, header counted ({error})") from error
