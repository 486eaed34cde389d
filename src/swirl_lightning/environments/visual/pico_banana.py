"""PICO-BANANA-400K (Apple): image, edit, image; the warm-up data of the paper's visual worlds.

``swirl record pico_banana --out data/pico --env.root FOLDER --env.file sft.jsonl``. Records are JSON lines with
``local_input_image``, ``output_image`` (paths below the root), ``text`` and ``summarized_text``; the action is the summary.
Records of the multi-turn file hold ``files [{id, url}]`` and ``metadata_edit_turn_prompts``, one image more than prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

from swirl_lightning.data.columns import DataError
from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.visual.image_records import NO_FILE, image_pair, read_records, text_field
from swirl_lightning.types import Transition


@dataclass
class PicoBananaRecorder:
    """Reads one JSONL file; every record is an episode of its own, of one step or of its turns.

    Attributes:
        root: Folder of the images.
        file: The JSONL file, as it is or below the root.
        action: Which field names the edit of a single turn.
        missing: What to do where an image file is not there: ``raise``, or ``skip`` and count it.
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
        """Yields an episode a record; an empty list for one that is left out."""
        self.counts = Counter()
        for number, record in read_records(self.file):
            place, episode = f"{self.file}, record {number}", f"{self.file.stem}/{number}"
            if "files" in record:
                self.counts["multi-turn"] += 1
                yield self._turns(record, place, episode)
            else:
                self.counts[str(record.get("edit_type") or "edit_type not given")] += 1
                yield self._single(record, place, episode)

    def _single(self, record: Mapping[str, Any], place: str, episode: str) -> list[Transition]:
        images = image_pair(self.root, record, ("local_input_image", "output_image"), place, self.missing)
        if images is None:
            self.counts[NO_FILE] += 1
            return []
        return [Transition(images[0], images[1], text_field(record, self.action, place), episode=episode)]

    def _turns(self, record: Mapping[str, Any], place: str, episode: str) -> list[Transition]:
        """All turns of a record, or none: an episode with a hole would be two."""
        files, prompts = record["files"], record.get("metadata_edit_turn_prompts")
        if not isinstance(files, list) or not isinstance(prompts, list) or len(files) != len(prompts) + 1 or not prompts:
            raise DataError(f"{place}: files must hold one image more than metadata_edit_turn_prompts has prompts")
        names = {str(i): self._local(file, f"{place}, image {i + 1}") for i, file in enumerate(files)}
        turns = {str(i): prompt for i, prompt in enumerate(prompts)}
        transitions = []
        for step in range(len(prompts)):
            images = image_pair(self.root, names, (str(step), str(step + 1)), place, self.missing)
            if images is None:
                self.counts[NO_FILE] += 1
                return []
            action = text_field(turns, str(step), f"{place}, metadata_edit_turn_prompts")
            transitions.append(Transition(images[0], images[1], action, episode=episode, step=step))
        return transitions

    def _local(self, file: Any, place: str) -> str:
        """Path below the root of an image that is named by its URL: the URL's own path where it is there, or its last part."""
        url = text_field(file if isinstance(file, dict) else {}, "url", place)
        path = unquote(urlparse(url).path).lstrip("/")
        return path if (self.root / path).is_file() else Path(path).name


class PicoBananaDataModule(WorldDataModule):
    """PICO-BANANA-400K's image edits, in one or several turns.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(self, recorder: PicoBananaRecorder, path: str = "data/pico_banana", **transitions: Any) -> None:
        super().__init__(recorder, path, **transitions)
