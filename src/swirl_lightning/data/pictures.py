"""Folders of images, an episode each, and videos, an episode each, as rows like those of any file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from swirl_lightning.data.formats import Block, Reader
from swirl_lightning.data.report import Report
from swirl_lightning.data.sources import Item
from swirl_lightning.data.video import VideoOptions, read_video

_IMAGES_AT_ONCE = 64


class ImagesReader(Reader):
    """The images of a folder, in the order of their names: one state each."""

    unit = "image"

    @override
    def head(self) -> tuple[list[str], list[dict[str, Any]]]:
        first = next(self.blocks((), None))
        return first.table.column_names, first.table.slice(0, 1).to_pylist()

    @override
    def blocks(self, roots: Sequence[str], flat: Mapping[str, Any] | None) -> Iterator[Block]:
        for first in range(0, len(self.item.files), _IMAGES_AT_ONCE):
            states = [file.read_bytes() for file in self.item.files[first : first + _IMAGES_AT_ONCE]]
            steps = range(first, first + len(states))
            columns = {"state": pa.array(states, pa.large_binary()), "episode": [self.item.label] * len(states), "step": steps}
            yield Block(first, pa.table(columns))

    @override
    def where(self, row: int) -> str:
        return str(self.item.files[row])


class VideoReader(Reader):
    """Pairs of frames of a video.

    Args:
        item: the file.
        options: which frames.
        report: gets the counts of what was left out.
    """

    unit = "pair"

    def __init__(self, item: Item, options: VideoOptions, report: Report) -> None:
        super().__init__(item)
        assert item.path is not None
        pairs, counts, failure = read_video(item.path, item.label, options)
        report.counts.update(counts)
        if failure is not None:
            rank_zero_warn(f"{item.name} cannot be read and is left out ({failure})")
        self._table = pa.table(
            {
                "state": pa.array([pair.state for pair in pairs], pa.large_binary()),
                "next_state": pa.array([pair.next_state for pair in pairs], pa.large_binary()),
                "episode": [pair.episode for pair in pairs],
                "step": [pair.step for pair in pairs],
            }
        )

    @override
    def head(self) -> tuple[list[str], list[dict[str, Any]]]:
        return self._table.column_names, self._table.slice(0, 1).to_pylist()

    @override
    def blocks(self, roots: Sequence[str], flat: Mapping[str, Any] | None) -> Iterator[Block]:
        yield Block(0, self._table)
