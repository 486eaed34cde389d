"""ByteMorph: Parquet with source image, edit prompt, target image and one of five types of motion.

``swirl record bytemorph --out data/bytemorph --env.path FILES``. Columns as published: ``edit_type``, ``image_id``,
``src_img``, ``tgt_img`` (bytes, or an ``Image`` feature of ``datasets``) and ``edit_prompt``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swirl_lightning.codecs.image_pixels import load_rgb
from swirl_lightning.data.reader import TransitionTable, read_transitions
from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.types import Transition

_COLUMNS: dict[str, Any] = {
    "state": "src_img",
    "next_state": "tgt_img",
    "action": "edit_prompt",
    "episode": ["edit_type", "image_id"],
    "context": None,
    "step": None,
    "split": None,
}


@dataclass
class ByteMorphRecorder:
    """Reads ByteMorph's Parquet files; the type of motion is the first part of an episode's name.

    Attributes:
        path: Parquet file, folder or glob.
        split: What the file is: ``test`` for the benchmark, ``train`` for training data (validation episodes are drawn).
    """

    path: Path
    split: Literal["train", "test"] = "test"
    counts: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        """Read the files.

        Raises:
            FileNotFoundError: if there are none.
            DataError: naming the column that is missing or of a wrong type.
        """
        self._table: TransitionTable = read_transitions(self.path, _COLUMNS)

    def episodes(self) -> int:
        """Number of records."""
        return len(self._table)

    def manifest(self) -> dict[str, Any]:
        """Files and counts by type of motion."""
        return {"source": "bytemorph", "path": str(self.path), "records": dict(self.counts)}

    def split_of(self, episode: str) -> str | None:
        """What the option says; None for training data."""
        return "test" if self.split == "test" else None

    def record(self) -> Iterator[list[Transition]]:
        """Yields one transition an episode, after a look at both images."""
        self.counts = Counter()
        for row, transition in enumerate(self._table.transitions()):
            for name, image in (("src_img", transition.state), ("tgt_img", transition.next_state)):
                assert isinstance(image, bytes)
                load_rgb(image, where=f"{self._table.where(row)}, column {name!r}")
            self.counts[transition.episode.split("/")[0]] += 1
            yield [transition]


class ByteMorphDataModule(WorldDataModule):
    """ByteMorph's image edits: five types of motion.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(self, recorder: ByteMorphRecorder, path: str = "data/bytemorph", **transitions: Any) -> None:
        super().__init__(recorder, path, **transitions)
