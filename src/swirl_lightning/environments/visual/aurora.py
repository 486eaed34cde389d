"""AURORA (McGill-NLP): image, instruction, image. Training sets for the warm-up, AURORA-Bench for evaluation.

``swirl record aurora --out data/aurora --env.root FOLDER`` reads ``test.json`` and ``data/<task>/train.json[l]`` as they are
published: records ``{input, instruction, output?}``, paths relative to the root. Records without a target image cannot be
transitions; they are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.visual.image_records import NO_FILE, image_pair, read_records, text_field
from swirl_lightning.types import Transition

_LEFT_OUT = "records without a target image"


@dataclass
class AuroraRecorder:
    """Reads AURORA's files; every record is an episode of its own.

    Attributes:
        root: Folder with ``test.json`` and ``data/``.
        parts: Which of ``train`` and ``test``.
        missing: What to do where an image file is not there: ``raise``, or ``skip`` and count it.
    """

    root: Path
    parts: tuple[str, ...] = ("train", "test")
    missing: Literal["raise", "skip"] = "raise"
    counts: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        """Find the files.

        Raises:
            FileNotFoundError: if none of them is there.
            ValueError: naming the option.
        """
        self.root = Path(self.root)
        if self.missing not in ("raise", "skip") or not set(self.parts) <= {"train", "test"}:
            raise ValueError(f"aurora: missing is raise or skip, parts are train and test; got {self.missing!r}, {self.parts}")
        self.files = [self.root / "test.json"] if "test" in self.parts else []
        if "train" in self.parts:
            self.files += sorted(self.root.glob("data/*/train.json*"))
        self.files = [file for file in self.files if file.is_file()]
        if not self.files:
            raise FileNotFoundError(f"aurora: neither test.json nor data/*/train.json[l] below {str(self.root)!r}")

    def episodes(self) -> int:
        """Number of records."""
        return sum(1 for file in self.files for _ in read_records(file))

    def manifest(self) -> dict[str, Any]:
        """Files and counts."""
        return {"source": "aurora", "files": [str(file) for file in self.files], "records": dict(self.counts)}

    def split_of(self, episode: str) -> str | None:
        """The benchmark is for testing; validation episodes are drawn from the training files."""
        return "test" if episode.startswith("test/") else None

    def record(self) -> Iterator[list[Transition]]:
        """Yields one transition an episode; an empty list for a record that is left out."""
        self.counts = Counter()
        for file in self.files:
            part = "test" if file.name == "test.json" else "train"
            for number, record in read_records(file):
                place = f"{file}, record {number}"
                task = str(record.get("task") or file.parent.name)
                self.counts[f"{part}/{task}"] += 1
                yield self._transition(record, place, f"{part}/{task}/{number}")

    def _transition(self, record: Mapping[str, Any], place: str, episode: str) -> list[Transition]:
        if not record.get("output"):
            self.counts[_LEFT_OUT] += 1
            return []
        images = image_pair(self.root, record, ("input", "output"), place, self.missing)
        if images is None:
            self.counts[NO_FILE] += 1
            return []
        return [Transition(images[0], images[1], text_field(record, "instruction", place), episode=episode)]


class AuroraDataModule(WorldDataModule):
    """AURORA's image edits and its benchmark.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(self, recorder: AuroraRecorder, path: str = "data/aurora", **transitions: Any) -> None:
        super().__init__(recorder, path, **transitions)
