"""State-only pairs read while training, for more of them than memory or disk holds."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch.utilities import rank_zero_info

from swirl_lightning.data.formats import (
    HUB,
    Columns,
    DataError,
    Source,
    check_present,
    from_arrow,
    jsonl_batches,
    resolve_columns,
)
from swirl_lightning.data.reader import data_files
from swirl_lightning.data.rows import PAIR_FIELDS
from swirl_lightning.types import UnlabelledPair

_ROWS_AT_ONCE = 1024


class PairStream:
    """An endless row of state-only pairs, numbered from 0: pass after pass over the source, each in an order of its own.

    A number always means the same pair, on every rank and in a resumed run: every rank reads the whole stream and keeps its
    share of a global batch, since reading a pair costs nothing beside a step on it. Going back reads again from the start.

    Args:
        path: Parquet or JSONL file, glob or folder, or ``hub:owner/name[:split]`` (split ``train`` by default).
        columns: field to column, as for :func:`read_transitions`; an action column is not read.
        left_out: episodes whose pairs are passed over: those that the warm-up and the evaluation know.
        seed: of the order.
        buffer: pairs among which the next one is drawn; files are shuffled as well. 1 keeps the order of the source.
        window: pairs that stay reachable behind the last one.
    """

    def __init__(
        self, path: str, columns: Columns, *, left_out: Collection[str] = (), seed: int = 0, buffer: int = 1024, window: int
    ) -> None:
        if buffer < 1:
            raise ValueError(f"data.stream_buffer must be at least 1, got {buffer}")
        self.path, self.columns, self.left_out = path, columns, left_out
        self.seed, self.buffer, self.window = seed, buffer, window
        self._restart()

    def __getitem__(self, number: int) -> UnlabelledPair:
        if number < self._read - len(self._last):
            self._restart()
        while self._read <= number:
            self._last.append(next(self._pairs))
            self._read += 1
        return self._last[number - self._read + len(self._last)]

    def check(self) -> None:
        """Reads the beginning of every file, so that what is wrong with them shows before training.

        Raises:
            FileNotFoundError: if there is no such file.
            DataError: naming file, row and field of what is wrong.
        """
        for part in _parts(self.path):
            for _ in _rows(part, self.columns):
                break

    def _restart(self) -> None:
        self._last: deque[UnlabelledPair] = deque(maxlen=self.window)
        self._read = 0
        self._pairs = self._passes()

    def _passes(self) -> Iterator[UnlabelledPair]:
        number = 0
        while True:
            chance, counts = random.Random(f"{self.seed}/{number}"), {"known": 0, "split": 0, "used": 0}
            parts = _parts(self.path)
            if self.buffer > 1:
                chance.shuffle(parts)
            yield from _shuffled(self._train_pairs(parts, counts), self.buffer, chance)
            rank_zero_info(
                f"{self.path}: pass {number + 1} over the stream ended after {counts['used']} pairs; left out: "
                f"{counts['known']} of episodes that warm-up or evaluation know, {counts['split']} of other splits than train"
            )
            if not counts["used"]:
                raise DataError(f"data.stream: {self.path} holds no pair to train on")
            number += 1

    def _train_pairs(self, parts: Sequence[str], counts: dict[str, int]) -> Iterator[UnlabelledPair]:
        for part in parts:
            for pair, split in _rows(part, self.columns):
                outcome = "known" if pair.episode in self.left_out else "split" if split not in (None, "train") else "used"
                counts[outcome] += 1
                if outcome == "used":
                    yield pair


def _shuffled(items: Iterable[UnlabelledPair], buffer: int, chance: random.Random) -> Iterator[UnlabelledPair]:
    """Draws each item from the next ``buffer`` ones."""
    held: list[UnlabelledPair] = []
    for item in items:
        held.append(item)
        if len(held) == buffer:
            at = chance.randrange(buffer)
            held[at], held[-1] = held[-1], held[at]
            yield held.pop()
    chance.shuffle(held)
    yield from held


def _parts(path: str) -> list[str]:
    """What is read one after the other: files, or the data set."""
    return [path] if path.startswith(HUB) else [str(file) for file in data_files(Path(path))]


def _rows(part: str, columns: Columns) -> Iterator[tuple[UnlabelledPair, str | None]]:
    """Pairs of a file with their splits, checked.

    Raises:
        DataError: naming the place of a row without state, next state or (unless mapped to null) episode.
    """
    needed = ["state", "next_state", *(["episode"] if resolve_columns(columns)["episode"] else [])]
    start = 0
    for source in _batches(part, columns):
        steps = source.table.column("step").null_count == 0
        for row, values in enumerate(source.table.select([*PAIR_FIELDS, "split"]).to_pylist()):
            for field in needed:
                if values[field] is None:
                    raise DataError(f"{source.name}, {source.unit} {start + row + 1}: field {field!r} is missing")
            split = values.pop("split")
            values["episode"] = values["episode"] or f"{source.name}, {source.unit} {start + row + 1}"
            values["step"] = values["step"] if steps else start + row
            values["context"] = values["context"] or ""
            yield UnlabelledPair(**values), split
        start += source.table.num_rows


def _batches(part: str, columns: Columns) -> Iterator[Source]:
    """A file or data set in canonical columns, some rows at a time."""
    columns = {**columns, "action": None}
    if part.startswith(HUB):
        import datasets

        repository, _, split = part.removeprefix(HUB).partition(":")
        rows = datasets.load_dataset(repository, split=split or "train", streaming=True).with_format("arrow")
        for table in rows.iter(_ROWS_AT_ONCE):
            check_present(part, table.column_names, columns)
            yield from_arrow(part, table, columns)
    elif part.endswith(".jsonl"):
        for batch in jsonl_batches(Path(part), columns):
            yield Source(part, "line", pa.Table.from_batches([batch]))
    else:
        try:
            file = pq.ParquetFile(part, memory_map=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"{part}: not a readable Parquet file ({error})") from error
        available = file.schema_arrow.names
        check_present(part, available, columns)
        wanted = sorted({name for names in resolve_columns(columns).values() for name in names if name in available})
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted):
            yield from_arrow(part, pa.Table.from_batches([batch]), columns)
