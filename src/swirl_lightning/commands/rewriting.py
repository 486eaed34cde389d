"""Data of any shape written again: as they came, with actions filled in, or as pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from swirl_lightning.commands.options import Columns
from swirl_lightning.data.columns import DataError
from swirl_lightning.data.filling import Filling, Labels, action_path
from swirl_lightning.data.formats import Block, Reader
from swirl_lightning.data.reader import read_mapped
from swirl_lightning.data.reading import Mapping, Reading
from swirl_lightning.data.report import Report
from swirl_lightning.data.shapes import find_shape
from swirl_lightning.data.sources import items
from swirl_lightning.data.writing import output_kind, write_rows

Form = Literal["rows", "pairs"]
_AT_ONCE = 4096
_PAIRS = ("state", "next_state", "action", "context", "episode", "step", "split")


class Rewriting:
    """Some data that are read, and where they are to be written.

    Args:
        path: As ``data.path``.
        out: File or folder.
        columns: The user's mapping; a column of actions that is not there is made.
        action_pattern: Regular expression with one group: the action.
        form: Rows as they came, or pairs.

    Attributes:
        table: The transitions.
        report: What could not be filled in.

    Raises:
        FileNotFoundError: if there are no such data.
        DataError: naming what is wrong with them, or that they cannot be written in this form.
    """

    def __init__(
        self, path: str | list[str], out: Path, columns: Columns | None, action_pattern: str | None, form: Form
    ) -> None:
        self.out, self.form, self.report = out, form, Report()
        kind = output_kind(out)
        self.items, _ = items(path)
        self.mapping = Mapping(columns or {}, action_pattern=action_pattern, needs_actions=False)
        self.table = read_mapped(path, self.mapping)
        images = "binary" in str(self.table.table.schema.field("state").type)
        if form == "rows" and any(item.kind in ("images", "video") for item in self.items):
            raise DataError(f"{self.table.source}: pictures and videos have no rows to fill in: --form pairs writes pairs")
        if images and kind not in ("parquet", "dataset"):
            raise DataError(f"{out}: states are images, which {kind.upper()} cannot hold: write .parquet, or a folder")

    @property
    def unlabelled(self) -> Any:
        """Transitions without an action, int64 [n]."""
        return np.flatnonzero(np.asarray(self.table.table.column("action").is_null()))

    def write(self, rows: Any, actions: Sequence[str], logprobs: Sequence[float]) -> int:
        """Writes everything, with the actions of some transitions filled in.

        Args:
            rows: of the table, int64 [n].
            actions: n.
            logprobs: n, in nats.

        Returns:
            Rows, or pairs, that were written.
        """
        if self.form == "pairs":
            return write_rows(self.out, lambda: self._pairs(rows, actions, logprobs))
        file, row, at = self.table.places(rows)
        order = np.lexsort((at, row, file))
        labels = []
        for number in range(len(self.items)):
            mine = order[file[order] == number]
            labels.append(Labels(row[mine], at[mine], [actions[i] for i in mine], [logprobs[i] for i in mine]))
        with tqdm(desc="write", unit="row") as bar:
            return write_rows(self.out, lambda: self._filled(labels, bar))

    def _filling(self, reader: Reader, records: list[dict[str, Any]], labels: Labels) -> Filling | None:
        """What fills the rows of a file; None where it has none."""
        if (shape := find_shape(reader, self.mapping.columns, actions=True, needed=False)) is None:
            return None
        named = self.mapping.columns.get("action")
        path = shape.paths["action"][0] if "action" in shape.found else named or action_path(shape, records)
        return Filling(shape, str(path), self.table.report.as_json.get(str(path), "text"), labels, self.report)

    def _filled(self, labels: Sequence[Labels], bar: Any) -> Iterator[tuple[str | None, Block]]:
        bar.reset()
        self.report.counts.clear()  # rows that are read twice count once
        for item, of_item in zip(self.items, labels, strict=True):
            reader = Reading(self.mapping).reader(item)
            names, records = reader.head()
            filling = self._filling(reader, records, of_item) if any(len(one.rows) for one in labels) else None
            for block in reader.blocks(names, None) if records else ():
                bar.update(block.rows)
                yield item.split, block if filling is None else filling.fill(block)

    def _pairs(self, rows: Any, actions: Sequence[str], logprobs: Sequence[float]) -> Iterator[tuple[str | None, Block]]:
        """The transitions as canonical columns, some at a time."""
        order = np.argsort(rows)
        whole = self.table.table.select(list(_PAIRS))
        for first in range(0, len(whole), _AT_ONCE):
            table = whole.slice(first, _AT_ONCE)
            texts = table.column("action").to_pylist()
            logs: list[float | None] = [None] * len(texts)
            begin, end = np.searchsorted(rows[order], [first, first + len(texts)])
            for number in order[begin:end]:
                texts[rows[number] - first], logs[rows[number] - first] = actions[number], logprobs[number]
            if len(rows):
                table = table.set_column(table.column_names.index("action"), "action", pa.array(texts, pa.large_string()))
                table = table.append_column("action_logprob", pa.array(logs, pa.float64()))
            yield None, Block(first, table)
