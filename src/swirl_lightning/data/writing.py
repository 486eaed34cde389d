"""Rows into files and data sets, whole or not at all: JSON, JSONL, CSV, TSV, Parquet, or a folder as ``save_to_disk`` does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from swirl_lightning.data.columns import DataError
from swirl_lightning.data.formats import Block
from swirl_lightning.data.sources import COMPRESSIONS, kind_of
from swirl_lightning.files import discard, put, sync_folder

Blocks = Callable[[], Iterable[tuple[str | None, Block]]]
"""Rows with the split of the data set that they belong to; may be called twice."""

_PACKED = ("gzip", "zstd", "bz2")


def output_kind(out: Path) -> str:
    """What is written, by its name: jsonl, json, csv, tsv, parquet, or dataset for a name without an ending.

    Raises:
        DataError: for a name that says something else.
    """
    kind = "dataset" if not out.suffix else kind_of(out)
    if kind in (None, "images", "video") or COMPRESSIONS.get(out.suffix, "gzip") not in _PACKED:
        raise DataError(
            f"{out}: the ending says what is written: .jsonl, .json, .csv, .tsv (also .gz, .zst, .bz2), .parquet, or none for "
            "a folder that datasets.load_from_disk reads"
        )
    return str(kind)


def write_rows(out: Path, blocks: Blocks) -> int:
    """Writes rows.

    Args:
        out: file, or folder of a data set.
        blocks: the rows; where they came as JSON and go into columns, they are read twice, first for the columns' types.

    Returns:
        Number of rows.

    Raises:
        DataError: if the rows do not fit the kind of file.
    """
    kind = output_kind(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "dataset":
        return _write_dataset(out, blocks)
    with _whole(out) as temporary:
        if kind in ("json", "jsonl"):
            return _write_json(temporary, out, blocks, listed=kind == "json")
        return sum(_write_columns(temporary, out, kind, _tables(out, blocks)).values())


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        put(temporary, out)
    finally:
        discard(temporary)


def _opened(file: Path, named: Path) -> Any:
    return pa.output_stream(str(file), compression=COMPRESSIONS.get(named.suffix.lower()))


def _write_json(file: Path, out: Path, blocks: Blocks, *, listed: bool) -> int:
    count = 0
    with _opened(file, out) as stream:
        for _, block in blocks():
            for record in block.records:
                try:
                    line = json.dumps(record, ensure_ascii=False, default=_plain)
                except TypeError as error:
                    raise DataError(f"{out}: row {count + 1} holds {error}: write .parquet, or a folder") from error
                stream.write(((("[\n" if not count else ",\n") if listed else "") + line + ("" if listed else "\n")).encode())
                count += 1
        stream.write(b"\n]\n" if listed and count else b"[]\n" if listed else b"")
    return count


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("bytes (an image?), which JSON cannot hold")
    return str(value)


# ---------------------------------------------------------------------- columns


def _tables(out: Path, blocks: Blocks) -> Iterator[tuple[str | None, Any]]:
    """Rows as Arrow tables of one schema a split."""
    schemas: dict[str | None, Any] = {}
    for split, block in blocks():
        found = block.table.schema if block.objects is None else _columns(block.records).schema
        try:
            known = schemas.get(split, found)
            schemas[split] = known if known == found else pa.unify_schemas([known, found], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{out}: the rows do not fit into columns of one type ({error}); write .jsonl") from error
    for split, block in blocks():
        schema = schemas[split]
        table = block.table if block.objects is None else pa.Table.from_pylist(block.records, schema=schema)
        yield split, table if table.schema == schema else _cast(out, table, schema)


def _cast(out: Path, table: Any, schema: Any) -> Any:
    try:
        columns = [
            table.column(field.name).cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(columns, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{out}: the files differ in their columns' types ({error}); write .jsonl") from error


def _columns(records: list[dict[str, Any]]) -> Any:
    made = {}
    for name in dict.fromkeys(name for record in records for name in record):
        try:
            made[name] = pa.array([record.get(name) for record in records])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"column {name!r} holds values of several types ({error}); write .jsonl") from error
    return pa.table(made)


def _write_columns(file: Path, out: Path, kind: str, tables: Iterable[tuple[str | None, Any]]) -> dict[str | None, int]:
    """Writes one file; returns its rows by split."""
    counts: dict[str | None, int] = {}
    writer: Any = None
    stream = _opened(file, out)
    try:
        for split, table in tables:
            if writer is None and kind == "parquet":
                writer = pq.ParquetWriter(stream, table.schema, compression="zstd")
            elif writer is None:
                if nested := [
                    field.name for field in table.schema if pa.types.is_nested(field.type) or "binary" in str(field.type)
                ]:
                    raise DataError(f"{out}: column {nested[0]!r} holds more than {kind.upper()} can: write .jsonl or .parquet")
                options = pa.csv.WriteOptions(delimiter="\t" if kind == "tsv" else ",")
                writer = pa.csv.CSVWriter(stream, table.schema, write_options=options)
            writer.write_table(table)
            counts[split] = counts.get(split, 0) + table.num_rows
    finally:
        if writer is not None:
            writer.close()
        stream.close()
    return counts


def _write_dataset(out: Path, blocks: Blocks) -> int:
    import datasets

    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp") as scratch:
        folder, count = Path(scratch), 0
        parts: dict[str | None, Any] = {}
        for split in dict.fromkeys(split for split, _ in blocks()):
            file = folder / f"{len(parts)}.parquet"
            tables = ((name, table) for name, table in _tables(out, blocks) if name == split)
            count += sum(_write_columns(file, file, "parquet", tables).values())
            parts[split] = datasets.Dataset.from_parquet(str(file), cache_dir=str(folder / "cache"))
        whole = parts[None] if set(parts) == {None} else datasets.DatasetDict({str(name): part for name, part in parts.items()})
        whole.save_to_disk(str(folder / "made"))
        if out.exists():
            os.replace(out, folder / "earlier") if out.is_dir() else out.unlink()
        os.replace(folder / "made", out)
        sync_folder(out.parent)
    return count
