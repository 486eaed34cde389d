"""Any folder of videos as state-only pairs: two frames some seconds apart, kept when something happened in between.

``swirl record video --out data/clips --env.folder FOLDER``. Frames about six seconds apart (a shorter clip gives its first and
last frame), SSIM below 0.95 at 256 pixels, not dark (arXiv:2602.06130, data), and no cut in between. Times are the frames' own,
so variable frame rates need no care. What is left out is counted in the manifest, with its reason.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from swirl_lightning.data.sources import VIDEOS
from swirl_lightning.data.video import VideoOptions, read_video
from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.hints import require
from swirl_lightning.types import UnlabelledPair


@dataclass
class VideoRecorder:
    """Makes pairs out of videos; one episode a video.

    Attributes:
        folder: Searched with its subfolders.
        seconds: As in ``VideoOptions``, like the next five.
        size: Side of the stored frames.
        max_ssim: Largest similarity (SSIM) of a pair.
        max_dark: Largest share of dark pixels of a frame.
        max_jump: Between two frames in a row.
        max_pairs: Most pairs of a video.
        workers: Videos decoded at once.
        work: Finished videos are kept in this folder, so that an interrupted recording goes on; None keeps nothing.
    """

    free_options: ClassVar[frozenset[str]] = frozenset({"workers", "work"})

    folder: Path
    seconds: float = VideoOptions.seconds
    size: int = VideoOptions.size
    max_ssim: float = VideoOptions.max_ssim
    max_dark: float = VideoOptions.max_dark
    max_jump: float = VideoOptions.max_jump
    max_pairs: int = VideoOptions.max_pairs
    workers: int = 1
    work: Path | None = None
    counts: Counter[str] = field(default_factory=Counter, init=False)
    unreadable: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            FileNotFoundError: if there is no such folder, or no video in it.
            ValueError: naming the option.
        """
        if not Path(self.folder).is_dir():
            raise FileNotFoundError(f"video: there is no folder {str(self.folder)!r}")
        _options(self)
        if self.workers < 1:
            raise ValueError("video: workers must be positive")
        self.folder = Path(self.folder)
        self.files = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in VIDEOS and p.is_file())
        if not self.files:
            raise FileNotFoundError(f"video: no video below {str(self.folder)!r} (looked for {', '.join(VIDEOS)})")

    def episodes(self) -> int:
        """Number of videos."""
        return len(self.files)

    def manifest(self) -> dict[str, Any]:
        """Options, counts of pairs and of what was left out, names of files that cannot be read."""
        return {
            "source": "video",
            "folder": str(self.folder),
            "av": version("av"),
            "videos": len(self.files),
            **asdict(_options(self)),
            "video_counts": dict(self.counts),
            "unreadable": self.unreadable,
        }

    def record(self) -> Iterator[list[UnlabelledPair]]:
        """Yields the pairs of each video in order of the file names; empty lists where nothing was kept."""
        require("av", "visual")
        self.counts, self.unreadable = Counter(), []
        jobs = [(path, path.relative_to(self.folder).as_posix(), _options(self), self.work) for path in self.files]
        if self.workers == 1:
            yield from map(self._take, map(_pairs_of, jobs))
            return
        # not forked: a child of a process whose OpenMP threads run waits for ever for threads that it does not have
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from map(self._take, pool.map(_pairs_of, jobs))

    def _take(self, result: tuple[list[UnlabelledPair], dict[str, int], str | None]) -> list[UnlabelledPair]:
        pairs, counts, failure = result
        self.counts.update(counts)
        if failure is not None:
            self.unreadable.append(failure)
        return pairs


class VideoDataModule(WorldDataModule):
    """Any folder of videos as state-only pairs.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(self, recorder: VideoRecorder, path: str = "data/video", **transitions: Any) -> None:
        super().__init__(recorder, path, **transitions)


def _options(recorder: VideoRecorder) -> VideoOptions:
    return VideoOptions(**{option.name: getattr(recorder, option.name) for option in fields(VideoOptions)})


def _pairs_of(
    job: tuple[Path, str, VideoOptions, Path | None],
) -> tuple[list[UnlabelledPair], dict[str, int], str | None]:
    """Pairs of a video, counts, and why it cannot be read; from the work folder where it was finished before."""
    path, name, options, work = job
    if work is None:
        return read_video(path, name, options)
    stamp = path.stat()
    key = json.dumps([name, stamp.st_size, stamp.st_mtime_ns, asdict(options)], sort_keys=True)
    kept = Path(work) / f"{blake2b(key.encode(), digest_size=12).hexdigest()}.parquet"
    if not kept.exists():
        pairs, counts, failure = read_video(path, name, options)
        kept.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(
            [{"state": p.state, "next_state": p.next_state, "step": p.step} for p in pairs],
            schema=pa.schema([("state", pa.binary()), ("next_state", pa.binary()), ("step", pa.int64())]),
        ).replace_schema_metadata({"counts": json.dumps(counts), "failure": json.dumps(failure)})
        scratch = kept.with_suffix(f".{os.getpid()}.tmp")
        pq.write_table(table, scratch)
        os.replace(scratch, kept)
    table = pq.read_table(kept)
    facts = {key.decode(): json.loads(value) for key, value in table.schema.metadata.items() if key in (b"counts", b"failure")}
    return [UnlabelledPair(**row, episode=name) for row in table.to_pylist()], facts["counts"], facts["failure"]
