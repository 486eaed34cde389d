"""PICO-BANANA-400K (Apple), single turns: image, edit, image; the warm-up data of the paper's visual worlds.

``swirl record pico_banana --out data/pico --env.root FOLDER --env.file sft.jsonl``. Records are JSON lines with
``local_input_image``, ``output_image`` (paths below the root), ``text`` and ``summarized_text``; the action is the summary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swirl_lightning.data.image_records import NO_FILE, image_pair, read_records, text_field
from swirl_lightning.types import Transition


@dataclass
class PicoBananaRecorder:
    """Reads one JSONL file; every record is an episode of its own.

    Attributes:
        root: folder of the images.
        file: the JSONL file, as it is or below the root.
        action: which field names the edit.
        missing: what to do where an image file is not there: ``raise``, or ``skip`` and count it.
    """

    root: Path
    file: Path
    action: Literal["summarized_text", "text"] = "summarized_text"
    missing: Literal["raise", "skip"] = "raise"
    counts: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        """Find the file.

        Raises:
            FileNotFoundError: if it is not there.
        """
        self.root = Path(self.root)
        self.file = Path(self.file) if Path(self.file).is_file() else self.root / self.file
        if not self.file.is_file():
            raise FileNotFoundError(f"pico_banana: there is no file {str(self.file)!r}")

    def episodes(self) -> int:
        """Number of records."""
        return sum(1 for _ in read_records(self.file))

    def manifest(self) -> dict[str, Any]:
        """File and counts by type of edit."""
        return {"source": "pico_banana", "file": str(self.file), "action": self.action, "records": dict(self.counts)}

    def record(self) -> Iterator[list[Transition]]:
        """Yields one transition an episode; an empty list for a record that is left out."""
        self.counts = Counter()
        for number, record in read_records(self.file):
            self.counts[str(record.get("edit_type") or "edit_type not given")] += 1
            yield self._transition(record, f"{self.file}, record {number}", f"{self.file.stem}/{number}")

    def _transition(self, record: Mapping[str, Any], place: str, episode: str) -> list[Transition]:
        images = image_pair(self.root, record, ("local_input_image", "output_image"), place, self.missing)
        if images is None:
            self.counts[NO_FILE] += 1
            return []
        return [Transition(images[0], images[1], text_field(record, self.action, place), episode=episode)]
