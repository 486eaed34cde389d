"""Tables that grow: in memory while they are small, in a file on disk once they are not."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

_IN_MEMORY = 1 << 26
_AT_ONCE = 1 << 22


class Spool:
    """Takes tables of one schema and gives them back as one, mapped into memory where it lies on disk.

    The file lies in the cache folder of ``datasets`` (HF_DATASETS_CACHE), has no name any more once it is read, and goes with
    the process.
    """

    def __init__(self) -> None:
        self._held: list[Any] = []
        self._size = 0
        self._file: Any = None
        self._writer: Any = None

    def add(self, table: Any) -> None:
        """Appends a table."""
        if not table.num_rows:
            return
        self._held.append(table)
        self._size += table.nbytes
        if self._writer is None and self._size > _IN_MEMORY:
            import datasets

            folder = Path(datasets.config.HF_DATASETS_CACHE)
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.NamedTemporaryFile(prefix="swirl-", suffix=".arrow", dir=folder)  # noqa: SIM115
            self._writer = pa.ipc.new_file(self._file, table.schema)
        if self._writer is not None and self._size > _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        for held in self._held:
            self._writer.write_table(held)
        self._held, self._size = [], 0

    def table(self) -> Any:
        """Everything that was added, as ``pyarrow.Table``; None where nothing was."""
        if self._writer is None:
            return pa.concat_tables(self._held) if self._held else None
        self._flush()
        self._writer.close()
        self._file.flush()
        table = pa.ipc.open_file(pa.memory_map(self._file.name)).read_all()
        self._file.close()
        return table
