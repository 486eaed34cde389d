"""Frames of recorded transitions, for training an image codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from swirl_lightning.codecs.image_cache import image_hash
from swirl_lightning.codecs.image_models import split_tiles
from swirl_lightning.codecs.image_pixels import pixels
from swirl_lightning.data.columns import DataError
from swirl_lightning.data.reader import Columns, TransitionTable, read_transitions
from swirl_lightning.data.splits import split_episodes


class Frames(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Distinct images of some rows of a table, each with the other image of its transition and a place.

    Items are two images, uint8 [3, size, size], and a place [2] (row, column) where they differ: what moves is what a codec
    must not lose.

    Args:
        table: Recorded transitions.
        rows: Which of them.
        size: Side of the images.
        limit: At most so many images, evenly spread; None for all.
    """

    def __init__(self, table: TransitionTable, rows: Sequence[int], size: int, limit: int | None) -> None:
        self.size, self.name = size, table.source
        if limit is not None and len(rows) > limit:
            rows = [rows[i * len(rows) // limit] for i in range(limit)]
        distinct: dict[bytes, tuple[bytes, bytes]] = {}
        for pair in table.pairs(rows):
            if not isinstance(pair.state, bytes) or not isinstance(pair.next_state, bytes):
                raise DataError(f"{table.source}: states are text; a codec is trained on images")
            for image, other in ((pair.state, pair.next_state), (pair.next_state, pair.state)):
                distinct.setdefault(image_hash(image), (image, other))
        self.images = list(distinct.values())[:limit]

    def __len__(self) -> int:
        return len(self.images)

    @override
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image, other = (pixels(data, self.size, where=self.name) for data in self.images[index])
        change = np.abs(image.astype(np.int16) - other).sum(-1)  # [S, S]
        changed = torch.from_numpy(np.argwhere(change > change.max() // 2))  # [n, 2]
        place = changed[int(torch.randint(len(changed), (1,)))] if len(changed) else torch.randint(self.size, (2,))
        first, second = (torch.from_numpy(array.copy()).permute(2, 0, 1) for array in (image, other))
        return first, second, place


class Tiles(Dataset[Tensor]):
    """Distinct tiles of some frames, uint8 [3, T, T] each: what is rare counts as much as what is frequent.

    Args:
        frames: Whose tiles.
        side: Side of a tile, pixels.
    """

    def __init__(self, frames: Frames, side: int) -> None:
        distinct: dict[bytes, Tensor] = {}
        for image, _ in frames.images:
            array = torch.from_numpy(pixels(image, frames.size, where=frames.name).copy()).permute(2, 0, 1)
            for tile in split_tiles(array[None], side):
                distinct.setdefault(tile.numpy().tobytes(), tile)
        self.tiles = list(distinct.values())

    def __len__(self) -> int:
        return len(self.tiles)

    @override
    def __getitem__(self, index: int) -> Tensor:
        return self.tiles[index]


class FrameDataModule(L.LightningDataModule):
    """Training and validation frames, split by episode as the transitions are.

    Args:
        path: As of ``TransitionDataModule``.
        columns: As of ``TransitionDataModule``.
        size: Side of the images; others are cut to a centred square and resized.
        tile: Train on the distinct tiles of this side that the training frames hold; None trains on frames.
        max_frames: Training frames at most.
        max_val: Validation frames at most.
        val_fraction: Share of validation episodes, where the data have no splits.
        batch_size: Frames, or tiles, a batch.
        workers: Processes that decode images.
        seed: Seed of splits.
    """

    def __init__(
        self,
        path: str,
        columns: dict[str, str | list[str] | None] | None = None,
        size: int = 64,
        tile: int | None = None,
        max_frames: int | None = None,
        max_val: int = 512,
        val_fraction: float = 0.1,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.path, self.size, self.tile, self.max_frames, self.max_val = path, size, tile, max_frames, max_val
        self.columns: Columns = columns or {}
        self.val_fraction, self.batch_size, self.workers, self.seed = val_fraction, batch_size, workers, seed

    @override
    def setup(self, stage: str | None = None) -> None:
        table = read_transitions(self.path, self.columns)
        episodes, splits = table.column("episode"), table.column("split")
        if all(split is None for split in splits):
            assigned = split_episodes(episodes, val_fraction=self.val_fraction, test_fraction=0.0, seed=self.seed)
            splits = [assigned[episode] for episode in episodes]
        rows = {name: [i for i, split in enumerate(splits) if split == name] for name in ("train", "val")}
        if not rows["train"] or not rows["val"]:
            raise DataError(f"{self.path}: a codec needs episodes in the splits train and val; add episodes")
        frames = Frames(table, rows["train"], self.size, self.max_frames)
        self.val = Frames(table, rows["val"], self.size, self.max_val)
        self.train: Frames | Tiles = frames if self.tile is None else Tiles(frames, self.tile)
        rank_zero_info(f"{self.path}: {len(frames)} training and {len(self.val)} validation frames, all distinct")
        if self.tile is not None:
            rank_zero_info(f"{self.path}: the training frames hold {len(self.train)} distinct tiles")

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(self.seed)
        whole = len(self.train) >= self.batch_size  # a last, smaller batch is left out, unless there is no other
        return DataLoader(
            self.train, self.batch_size, shuffle=True, drop_last=whole, num_workers=self.workers, generator=generator
        )

    @override
    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
        return DataLoader(self.val, self.batch_size, num_workers=self.workers)
