"""AURORA (McGill-NLP): image, instruction, image. Training sets for the warm-up, AURORA-Bench for evaluation.

``swirl record aurora --out data/aurora --env.root FOLDER`` reads ``test.json`` and ``data/<task>/train.json[l]`` as they are
published: records ``{input, instruction, output?}``, paths relative to the root. Records without a target image cannot be
transitions; they are counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swirl_lightning.codecs.image_pixels import load_rgb
from swirl_lightning.data.formats import DataError
from swirl_lightning.types import Transition

_LEFT_OUT = "records without a target image"


@dataclass
class AuroraRecorder:
    """Reads AURORA's files; every record is an episode of its own.

    Attributes:
        root: folder with ``test.json`` and ``data/``.
        parts: which of ``train`` and ``test``.
        missing: what to do where an image file is not there: ``raise``, or ``skip`` and count it.
    """

    root: Path
    parts: tuple[str, ...] = ("train", "test")
    missing: str = "raise"
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
        images = []
        for name in ("input", "output"):
            path = self.root / text_field(record, name, place)
            if not path.is_file():
                if self.missing == "raise":
                    raise DataError(f"{place}: field {name!r}: there is no file {path} (--env.missing skip leaves it out)")
                self.counts["records without an image file"] += 1
                return []
            images.append(path.read_bytes())
            load_rgb(images[-1], where=f"{place}, field {name!r}")
        return [Transition(images[0], images[1], text_field(record, "instruction", place), episode=episode)]


def read_records(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Records of a JSON list or of JSON lines, counted from 1.

    Raises:
        DataError: naming file and record of what is malformed.
    """
    try:
        text = file.read_text(encoding="utf-8")
        records = (
            json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line]
        )
    except ValueError as error:
        raise DataError(f"{file}: malformed JSON ({error})") from error
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DataError(f"{file}, record {number}: must be an object, got {type(record).__name__}")
        yield number, record


def text_field(record: Mapping[str, Any], name: str, place: str) -> str:
    """A field that must be text.

    Raises:
        DataError: naming place and field.
    """
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise DataError(f"{place}: field {name!r} must be text, got {value!r}")
    return value
