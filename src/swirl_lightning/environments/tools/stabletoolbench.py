"""StableToolBench's MirrorAPI data (arXiv:2403.07714, arXiv:2503.20527): calls of real tools as transitions.

The released files hold a list of ``{system, instruction, output}``: the instruction has an ``API doc:`` and a ``Request:``, the
output is a JSON string ``{"error": "", "response": ...}``. A transition is one call: the API's documentation is the state, the
request the action and the output the next state. So the forward model answers as the tool would (documentation, request ->
output) and the inverse one says what was asked (documentation, output -> request). Calls of one API are one episode: no API
is both in the half that keeps its actions and in the half that loses them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.recording.json_list import elements
from swirl_lightning.types import Transition

UNUSABLE = "unusable records left out"
TEST_SPLITS = ("id_high", "id_medium", "id_low", "ood", "ood_failure")
_DOC, _REQUEST = "API doc:\n", "\n\nRequest:\n"


@dataclass
class StableToolBenchRecorder:
    """Reads MirrorAPI-Training and MirrorAPI-Bench files; nothing is run or downloaded.

    Attributes:
        train: JSON file of ``MirrorAPI-Training``, e.g. ``train_sft.json`` (the released one has 373 MB), read one record at a
            time; the calls stay in memory, since those of one API make an episode. Validation episodes are drawn from it.
        test: Folder of ``MirrorAPI-Bench``, e.g. ``test_sft``, with a JSON file a split; all of it is test data.
        test_splits: Which of its splits; the name begins the episode's (``id_low/...``).
        unusable: Records without usable text: ``raise`` an error or ``drop`` them, counted in the manifest.
    """

    train: Path | None = None
    test: Path | None = None
    test_splits: Sequence[str] = TEST_SPLITS
    unusable: Literal["raise", "drop"] = "raise"
    counts: Counter[str] = field(default_factory=Counter, init=False)
    kept: dict[str, int] = field(default_factory=dict, init=False)
    _episodes: dict[str, list[Transition]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: if there is nothing to read, or a split that MirrorAPI-Bench does not have.
        """
        if self.train is None and self.test is None:
            raise ValueError("stabletoolbench: name train (a JSON file), test (a folder), or both")
        if unknown := set(self.test_splits) - set(TEST_SPLITS):
            raise ValueError(f"stabletoolbench: there is no test split {unknown.pop()!r}; there are {', '.join(TEST_SPLITS)}")

    def episodes(self) -> int:
        """Number of APIs, once for every file that calls them."""
        self._load()
        return len(self._episodes)

    def split_of(self, episode: str) -> str | None:
        """``test`` for episodes of the test files; None for those of the training file."""
        return None if episode.startswith("train/") else "test"

    def manifest(self) -> dict[str, Any]:
        """Files and counts."""
        return {
            "source": "StableToolBench, MirrorAPI",
            "train": None if self.train is None else str(self.train),
            "test": None if self.test is None else str(self.test),
            "calls": self.kept,
            "dropped_unusable": self.counts[UNUSABLE],
        }

    def record(self) -> Iterator[list[Transition]]:
        """Yields the calls of one API after the other.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: naming file and record of what cannot be used.
        """
        self._load()
        yield from self._episodes.values()

    def _load(self) -> None:
        if self._episodes:
            return
        files = {} if self.train is None else {"train": self.train}
        if self.test is not None:
            files |= {name: self.test / f"{name}.json" for name in self.test_splits}
        for split, path in files.items():
            for number, record in _records(path):
                try:
                    state, action, next_state = _call(record)
                except ValueError as error:
                    if self.unusable == "raise":
                        raise ValueError(
                            f"{path}, record {number}: {error} (env.unusable: drop leaves such records out and counts them)"
                        ) from error
                    self.counts[UNUSABLE] += 1
                    continue
                name = f"{split}/{hashlib.blake2b(state.encode(errors='replace'), digest_size=8).hexdigest()}"
                episode = self._episodes.setdefault(name, [])
                state = str(episode[0].state) if episode else state  # one copy of the documentation for all calls
                episode.append(Transition(state, next_state, action, episode=name, step=len(episode)))
                self.kept[split] = self.kept.get(split, 0) + 1


class StableToolBenchDataModule(WorldDataModule):
    """StableToolBench: the released calls of real tools that MirrorAPI learns from.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(self, recorder: StableToolBenchRecorder, path: str = "data/stabletoolbench", **transitions: Any) -> None:
        super().__init__(recorder, path, **transitions)


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """Records of a released file with their numbers from 1, read one at a time.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file is not a whole JSON list, or an empty one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"stabletoolbench: {path} does not exist")
    number = 0
    for number, record in enumerate(elements(path, "stabletoolbench"), 1):
        yield number, record
    if not number:
        raise ValueError(f"{path}: must hold a JSON list of records, got an empty list")


def _call(record: Any) -> tuple[str, str, str]:
    """Documentation, request and output of a record.

    Raises:
        ValueError: saying which field is not as it should be.
    """
    if not isinstance(record, dict):
        raise ValueError(f"must be an object with instruction and output, got {type(record).__name__}")
    for name in ("instruction", "output"):
        value = record.get(name)
        if not isinstance(value, str):
            raise ValueError(f"field {name!r} must be text, got {'nothing' if value is None else repr(value)[:80]}")
        if not value.strip():
            raise ValueError(f"field {name!r} is empty")
    head, separator, request = record["instruction"].rpartition(_REQUEST)
    if not separator or not head.startswith(_DOC) or not request.strip():
        raise ValueError(
            f"field 'instruction' must read 'API doc:', the doc, 'Request:', a request; got {record['instruction'][:80]!r}"
        )
    return head.removeprefix(_DOC).strip(), request.strip(), record["output"].strip()
