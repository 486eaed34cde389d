"""Recording in jobs: an episode each, in any order, on several simulators, kept as they finish so that a stop loses nothing."""

from __future__ import annotations

import json
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from swirl_lightning.environments.registry import recorder_options
from swirl_lightning.types import Transition

JOURNAL = ".recording.jsonl"


@dataclass(frozen=True)
class JobResult:
    """What a job made: the transitions of its episode, and counts of what was left out or marked."""

    transitions: list[Transition]
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class JobRecorder(ABC):
    """A recorder whose episodes are independent jobs. Finished ones are written to ``journal``, and not run again.

    Episodes come out in the order of ``jobs``, whatever order they were finished in.
    """

    free_options: ClassVar[frozenset[str]] = frozenset({"workers", "timeout"})
    """Options that change nothing in the data: an interrupted recording may go on with others."""

    journal: Path | None = field(default=None, init=False)
    counts: Counter[str] = field(default_factory=Counter, init=False)

    @abstractmethod
    def jobs(self) -> Sequence[str]:
        """Names of all jobs, which are the names of their episodes."""

    @abstractmethod
    def run(self, jobs: Sequence[str]) -> Iterator[tuple[str, JobResult]]:
        """Runs jobs; yields them as they finish."""

    def episodes(self) -> int:
        """Number of episodes that ``record`` yields."""
        return len(self.jobs())

    def options(self) -> dict[str, Any]:
        """All of the recorder's options, as JSON holds them."""
        return recorder_options(self, free=True)

    def record(self) -> Iterator[list[Transition]]:
        """Runs what is not in the journal yet, then yields every episode; those without a transition are empty lists.

        Raises:
            ValueError: if the journal was written with other options.
        """
        with ExitStack() as stack:
            path = self.journal
            if path is None:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / JOURNAL
            journal = stack.enter_context(_Journal(path, recorder_options(self)))
            jobs = list(self.jobs())
            todo = [job for job in jobs if job not in journal.places]
            with tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc="simulate", unit="episode") as bar:
                for job, result in self.run(todo):
                    journal.add(job, result)
                    bar.update(1)
            self.counts.clear()
            for job in jobs:
                result = journal.read(job)
                self.counts.update(result.counts)
                yield result.transitions


class _Journal:
    """Finished jobs as JSON lines; the first line holds the options. A line that was cut off by a stop is overwritten."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path, self.places = path, dict[str, int]()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._file = path.open("r+b")
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            if end == 0 and (known := json.loads(line)["options"]) != options:
                self._file.close()
                changed = ", ".join(sorted(k for k in {*known, *options} if known.get(k) != options.get(k)))
                raise ValueError(
                    f"{path}: an interrupted recording with other options (they differ in {changed}): take the same ones to "
                    "go on with it, delete the file to begin anew, or choose another folder"
                )
            if end:
                self.places[json.loads(line)["job"]] = end
            end += len(line)
        self._file.seek(end)
        self._file.truncate()
        if end == 0:
            self._write({"options": options})

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")
        self._file.flush()

    def add(self, job: str, result: JobResult) -> None:
        place = self._file.seek(0, 2)
        rows = [[t.state, t.next_state, t.action, t.context, t.step] for t in result.transitions]
        self._write({"job": job, "counts": result.counts, "rows": rows})
        self.places[job] = place

    def read(self, job: str) -> JobResult:
        self._file.seek(self.places[job])
        line = json.loads(self._file.readline())
        return JobResult([Transition(x, y, z, context, job, step) for x, y, z, context, step in line["rows"]], line["counts"])

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
