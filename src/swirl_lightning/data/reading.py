"""From files to checked pairs, table after table: what the reader keeps and the stream passes on."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from swirl_lightning.data.change import change
from swirl_lightning.data.columns import MAPPED, Columns, DataError
from swirl_lightning.data.formats import CsvReader, DatasetReader, ParquetReader, Reader
from swirl_lightning.data.json_files import JsonLinesReader, JsonReader, one_object_a_line
from swirl_lightning.data.pairing import Pairing
from swirl_lightning.data.pictures import ImagesReader, VideoReader
from swirl_lightning.data.report import Report
from swirl_lightning.data.shapes import Shape, find_shape
from swirl_lightning.data.sources import Item
from swirl_lightning.data.transform import Transform
from swirl_lightning.data.values import Texts
from swirl_lightning.data.video import VideoOptions

NO_OPS = "no-ops (the next state is the state)"
UNCHANGED = "pairs left out that change less than data.min_change"
_READERS: dict[str, type[Reader]] = {
    "parquet": ParquetReader,
    "dataset": DatasetReader,
    "csv": CsvReader,
    "tsv": CsvReader,
    "jsonl": JsonLinesReader,
    "json": JsonReader,
    "images": ImagesReader,
}
_COLUMNS = ("state", "next_state", "action", "context", "episode", "step", "split", "row", "at")


@dataclass(frozen=True)
class Mapping:
    """How the user's rows become pairs; :func:`swirl_lightning.data.read_transitions` describes each option."""

    columns: Columns = field(default_factory=dict)
    actions: bool = True
    action_pattern: str | None = None
    stride: int = 1
    min_change: float = 0.0
    video: VideoOptions = field(default_factory=VideoOptions)
    option: str = "data.columns"
    needs_actions: bool = True  # a column of actions that is named must be there

    @property
    def path_option(self) -> str:
        """What messages call the path that is read with it."""
        return "data.state_only" if self.option == "data.state_only_columns" else "data.path"

    def __post_init__(self) -> None:
        """Refuse options that cannot be."""
        if self.stride < 1 or not 0 <= self.min_change <= 1:
            raise DataError(f"data.stride must be at least 1, data.min_change in [0, 1]; got {self.stride}, {self.min_change}")
        try:
            groups = 1 if self.action_pattern is None else re.compile(self.action_pattern).groups
        except re.error as error:
            raise DataError(f"data.action_pattern {self.action_pattern!r} is no regular expression: {error}") from error
        if groups != 1:
            raise DataError(f"data.action_pattern {self.action_pattern!r} must have one group, the action; it has {groups}")


class Reading:
    """Reads files and data sets one after another under one mapping, and counts what it finds.

    Args:
        mapping: how rows become pairs.
    """

    def __init__(self, mapping: Mapping) -> None:
        self.mapping, self.report = mapping, Report()
        self.own_episodes = False  # whether the data name their episodes
        self._texts = Texts(self.report)
        self._readers: list[Reader] = []
        self.begins: list[int] = []  # rows before each of them
        self._rows = 0
        self._first: tuple[str, Shape] | None = None
        self._image: tuple[bool, str] | None = None

    def where(self, row: int) -> str:
        """File and line, row or record of a row, counted over everything that was read."""
        at = bisect_right(self.begins, row) - 1
        return self._readers[at].where(row - self.begins[at])

    def check(self, item: Item) -> None:
        """Looks at the first rows of an item, and no further.

        Raises:
            DataError: naming what is wrong with them.
        """
        for _ in self.tables(item):
            return

    def tables(self, item: Item) -> Iterator[Any]:
        """Pairs of an item, or states in a row where a row of it is one step of an episode (they have the column ``done``).

        Raises:
            DataError: naming file, row and column of what is wrong.
        """
        source = self.reader(item)
        columns = {} if item.kind in ("images", "video") else self.mapping.columns
        mapping = self.mapping
        shape = find_shape(source, columns, actions=mapping.actions, needed=mapping.needs_actions, option=mapping.option)
        self._readers.append(source)
        self.begins.append(self._rows)
        if shape is None:
            self.report.counts["files without a row"] += 1
            return
        self._like_the_first(source, shape)
        self.own_episodes |= bool(shape.paths["episode"])
        pairing = self.pairing(shape) if shape.kind in ("trajectories", "chats") and not shape.paths.get("next_state") else None
        labelled = False
        for table in Transform(source, shape, self._texts, self.report, self.mapping.action_pattern).tables():
            self._one_kind(table, source)
            labelled = labelled or table.column("action").null_count < table.num_rows
            rows = pc.add(table.column("row"), self.begins[-1])
            self._rows = max(self._rows, rows[-1].as_py() + 1)
            table = table.set_column(table.column_names.index("row"), "row", rows)
            if pairing is not None:
                yield self.checked(pairing.feed(table))
            elif "done" in table.column_names:
                yield table
            else:
                yield self.checked(table)
        if pairing is not None:
            pairing.close()
        if not labelled and "action" in shape.unseen:
            raise DataError(shape.unseen["action"])

    def pairing(self, shape: Shape | None = None) -> Pairing:
        """Makes pairs of states in a row; of the shape of the first item by default."""
        assert self._first is not None
        shape = shape or self._first[1]
        return Pairing(
            self.report,
            self.where,
            stride=self.mapping.stride,
            whole_rows=shape.kind != "steps",
            after=shape.after,
        )

    def checked(self, pairs: Any) -> Any:
        """Counts no-ops, and drops pairs that change too little.

        Args:
            pairs: ``pyarrow.Table`` with the canonical columns.
        """
        self.report.counts[NO_OPS] += pc.sum(pc.equal(pairs.column("state"), pairs.column("next_state"))).as_py() or 0
        if self.mapping.min_change > 0:
            states = zip(pairs.column("state").to_pylist(), pairs.column("next_state").to_pylist(), strict=True)
            kept = np.asarray([change(before, after) >= self.mapping.min_change for before, after in states], bool)
            self.report.counts[UNCHANGED] += int((~kept).sum())
            pairs = pairs.filter(pa.array(kept))
        return pairs.select(_COLUMNS)

    def refuse_nothing(self, name: str) -> NoReturn:
        """Says why there is no pair.

        Raises:
            DataError: always.
        """
        if self._first is None:
            raise DataError(f"{name} is empty: no transition in it")
        where, shape = self._first
        if shape.kind == "steps" and not shape.after:
            raise DataError(
                f"{where}: column 'next_state' (field 'next_state') is missing; there are: {shape.there}. So a pair would be "
                f"two rows of an episode whose steps follow each other, but there are none ({self.report}). Map it: "
                "data.columns: {next_state: YOUR_COLUMN}, or map the episodes of the rows, or {step: null} for their order"
            )
        raise DataError(f"{name}: no transition in it; {self.report}")

    def _like_the_first(self, source: Reader, shape: Shape) -> None:
        """Every file must hold the same fields: what one lacks would be missing without a word."""
        strided = self.mapping.stride > 1
        if strided and shape.paths.get("next_state"):
            raise DataError(f"{source.item.name}: data.stride is for states in a row, but these rows have next states")
        if strided and "action" in shape.found:
            raise DataError(
                f"{source.item.name}: data.stride is for state-only data: one action does not lead {self.mapping.stride} steps "
                "on. Give the file as data.state_only"
            )
        if self._first is None:
            self._first = (source.item.name, shape)
            return
        name, first = self._first
        optional = set() if self.mapping.needs_actions else {"action"}
        for one, other, lacking, there in ((first, shape, source.item.name, name), (shape, first, name, source.item.name)):
            for wanted in sorted(one.found - other.found - optional, key=MAPPED.index):
                raise DataError(
                    f"{lacking}: column {one.name(wanted)!r} (field {wanted!r}) is missing; there are: {other.there}. {there} "
                    "has it: write the same columns in every file, null where there is no value, or give state-only files as "
                    "data.state_only"
                )
        if shape.kind != first.kind:
            raise DataError(
                f"{source.item.name}: its rows are {shape.kind}, but those of {name} are {first.kind}; read them apart"
            )

    def _one_kind(self, table: Any, source: Reader) -> None:
        image = pa.types.is_large_binary(table.column("state").type)
        if self._image is None:
            self._image = (image, source.item.name)
        fields = [name for name in ("state", "next_state") if name in table.column_names]
        for name in fields:
            if pa.types.is_large_binary(table.column(name).type) != self._image[0]:
                raise DataError(
                    f"{source.item.name}: states must be all text or all images, but {name} is not what the state of "
                    f"{self._image[1]} is"
                )

    def reader(self, item: Item) -> Reader:
        """What reads a file or data set."""
        if item.kind == "video":
            return VideoReader(item, self.mapping.video, self.report)
        if item.kind == "json" and one_object_a_line(item):
            return JsonLinesReader(item)
        return _READERS[item.kind](item)
