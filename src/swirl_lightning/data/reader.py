"""Reading transitions: Parquet, JSON lines or a Hugging Face data set, with the user's own column names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from swirl_lightning.data.formats import HUB, Columns, DataError, Source, read_huggingface, read_jsonl, read_parquet
from swirl_lightning.data.rows import Rows
from swirl_lightning.data.schema import TRANSITIONS
from swirl_lightning.types import Transition, UnlabelledPair

__all__ = ["Columns", "DataError", "TransitionTable", "read_transitions", "unlabelled"]

_READERS = {".parquet": read_parquet, ".jsonl": read_jsonl}
_SAVED = ("dataset_info.json", "dataset_dict.json")  # what `save_to_disk` leaves in its folder


class TransitionTable(Sequence[Transition | UnlabelledPair]):
    """Transitions in Arrow memory, made into Python objects one at a time. Without action, a row is an unlabelled pair.

    Args:
        table: the fields as columns, checked.
        sources: files that the rows come from, in order.
        source: all of them together, for messages.
    """

    def __init__(self, table: pa.Table, sources: Sequence[Source], source: str) -> None:
        self.table, self.sources, self.source = table, sources, source
        self._ends = list(accumulate(part.table.num_rows for part in sources))

    @override
    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Transition | UnlabelledPair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Transition | UnlabelledPair]: ...
    @override
    def __getitem__(self, index: int | slice) -> Transition | UnlabelledPair | Sequence[Transition | UnlabelledPair]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        if self.table.column("action")[row].as_py() is None:
            return self.pairs([row])[0]
        return self.transitions([row])[0]

    def column(self, name: str) -> list[Any]:
        """A whole column as Python values; None for every row where the file has no such column."""
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def pairs(self, rows: Sequence[int] | None = None) -> Rows[UnlabelledPair]:
        """State-only pairs of some rows, by default all; the action column is not reachable from them."""
        return Rows(UnlabelledPair, self.table, rows)

    def transitions(self, rows: Sequence[int] | None = None) -> Rows[Transition]:
        """Labelled transitions of some rows, by default all.

        Raises:
            DataError: if one of them has no action; the message says where it was read.
        """
        missing = set(pc.indices_nonzero(pc.is_null(self.table.column("action"))).to_pylist())
        for row in range(len(self)) if rows is None else rows:
            if row in missing:
                raise DataError(f"{self.where(row)}: field 'action' is missing, but the transition must be labelled")
        return Rows(Transition, self.table, rows)

    def where(self, row: int) -> str:
        """File and line (or row) of a row, for messages."""
        part = bisect_right(self._ends, row)
        return self.sources[part].where(row - (self._ends[part - 1] if part else 0))


def read_transitions(path: str | Path, columns: Columns | None = None) -> TransitionTable:
    """Reads a file, a folder written by ``swirl record``, a data set saved to disk, or a hub data set.

    Args:
        path: ``*.parquet`` or ``*.jsonl`` (globs too), a folder, or ``hub:owner/name[:split]``.
        columns: field to column where names differ. ``episode: [task, variation]`` joins columns and ``episode: null``
            makes every row an episode of its own; ``step: null`` counts steps in the order of the file; ``split: null``
            ignores a split column.

    Returns:
        The transitions.

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: naming file, line and field of what is wrong.
    """
    name, mapping = str(path), columns or {}
    if name.startswith(HUB) or any((Path(path) / file).is_file() for file in _SAVED):
        sources = read_huggingface(name, mapping)
    else:
        sources = [_READERS[file.suffix](file, mapping) for file in data_files(Path(path))]
    sources = [source for source in sources if source.table.num_rows]
    if not sources:
        raise DataError(f"{name} is empty: no transition in it")
    kinds = {
        str(source.table.schema.field(field).type): f"{field} of {source.name}"
        for source in sources
        for field in ("state", "next_state")
    }
    if len(kinds) > 1:
        raise DataError(f"{name}: states must be all text or all images, got {kinds}")
    return _completed(pa.concat_tables([s.table for s in sources], promote_options="permissive"), sources, name)


def data_files(path: Path) -> list[Path]:
    """Files of a path, in order of their names.

    Raises:
        FileNotFoundError: if there is none.
        DataError: if one is neither Parquet nor JSONL.
    """
    if path.is_file():
        files = [path]
    elif (path / TRANSITIONS).is_file():
        files = [path / TRANSITIONS]
    elif path.is_dir():
        files = sorted(path.glob("*.parquet")) or sorted(path.glob("*.jsonl"))
    else:
        files = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)) if path.anchor else str(path)))
    if not files:
        raise FileNotFoundError(f"data.path: '{path}' matches no Parquet file, JSONL file or data set")
    for file in files:
        if file.suffix not in _READERS:
            raise DataError(f"data.path: {file} is neither .parquet nor .jsonl")
    return files


def _completed(table: pa.Table, sources: Sequence[Source], name: str) -> TransitionTable:
    """Checks that nothing needed is null, and fills what may be left out."""
    found = TransitionTable(table, sources, name)
    fields = {field: table.column(field) for field in table.column_names}
    for field in ("state", "next_state", "episode", "step"):
        missing = fields[field].null_count
        wholly_absent = missing == table.num_rows and field in ("episode", "step")
        if missing and not wholly_absent:
            row = pc.index(pc.is_null(fields[field]), True).as_py()
            raise DataError(f"{found.where(row)}: field {field!r} is missing")
    if fields["episode"].null_count:  # every row is an episode of its own
        fields["episode"] = pa.array([f"row-{row}" for row in range(table.num_rows)], pa.large_string())
    if fields["step"].null_count:
        fields["step"] = _running_step(fields["episode"].to_pylist())
    fields["context"] = pc.fill_null(fields["context"].cast(pa.large_string()), "")
    for field in ("action", "split"):
        fields[field] = fields[field].cast(pa.large_string())
    return TransitionTable(pa.table(fields), sources, name)


def _running_step(episodes: Sequence[str]) -> pa.Array:
    """Position inside the episode, in the order of the file, where the file does not say."""
    seen: dict[str, int] = {}
    steps = []
    for episode in episodes:
        steps.append(seen.get(episode, 0))
        seen[episode] = steps[-1] + 1
    return pa.array(steps, pa.int64())


def unlabelled(row: Transition | UnlabelledPair) -> UnlabelledPair:
    """The pair without its action, whether it had one or not."""
    return row.without_action() if isinstance(row, Transition) else row
