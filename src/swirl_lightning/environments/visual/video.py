"""Any folder of videos as state-only pairs: two frames some seconds apart, kept when something happened in between.

``swirl record video --out data/clips --env.folder FOLDER``. Frames about six seconds apart (a shorter clip gives its first and
last frame), SSIM below 0.95 at 256 pixels, not dark (arXiv:2602.06130, data), and no cut in between. Times are the frames' own,
so variable frame rates need no care. What is left out is counted in the manifest, with its reason.
"""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from swirl_lightning.codecs.image_pixels import square
from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.extras import require
from swirl_lightning.types import UnlabelledPair

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".3gp")
_DARK = 30  # a pixel below this grey level (of 255) is dark


@dataclass
class VideoRecorder:
    """Makes pairs out of videos; one episode a video.

    Attributes:
        folder: searched with its subfolders.
        seconds: between the two frames of a pair; the second frame of one pair is the first of the next.
        size: side of the stored frames, pixels (a centred square, JPEG).
        max_ssim: pairs that are more alike are left out.
        max_dark: frames with a larger share of dark pixels are left out.
        max_jump: largest mean difference (share of the grey range, 32 x 32 pixels) between two frames in a row; more is a cut.
        max_pairs: pairs of a video at most.
        workers: videos decoded at once.
        work: finished videos are kept in this folder, so that an interrupted recording goes on; None keeps nothing.
    """

    free_options: ClassVar[frozenset[str]] = frozenset({"workers", "work"})

    folder: Path
    seconds: float = 6.0
    size: int = 256
    max_ssim: float = 0.95
    max_dark: float = 0.1
    max_jump: float = 0.2
    max_pairs: int = 32
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
        if self.seconds <= 0 or self.size < 16 or self.max_pairs < 1 or self.workers < 1:
            raise ValueError("video: seconds, max_pairs and workers must be positive, size at least 16")
        self.folder = Path(self.folder)
        self.files = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not self.files:
            raise FileNotFoundError(f"video: no video below {str(self.folder)!r} (looked for {', '.join(SUFFIXES)})")

    def episodes(self) -> int:
        """Number of videos."""
        return len(self.files)

    def manifest(self) -> dict[str, Any]:
        """Options, counts of pairs and of what was left out, names of files that cannot be read."""
        options = {name: value for name, value in _options(self).items() if name != "folder"}
        return {
            "source": "video",
            "folder": str(self.folder),
            "av": version("av"),
            "videos": len(self.files),
            **options,
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
        recorder: what is recorded where it is missing.
        path: folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(self, recorder: VideoRecorder, path: str = "data/video", **transitions: Any) -> None:
        super().__init__(recorder, path, **transitions)


def _options(recorder: VideoRecorder) -> dict[str, Any]:
    given = asdict(recorder)
    return {name: given[name] for name in ("seconds", "size", "max_ssim", "max_dark", "max_jump", "max_pairs")}


def _pairs_of(
    job: tuple[Path, str, dict[str, Any], Path | None],
) -> tuple[list[UnlabelledPair], dict[str, int], str | None]:
    """Pairs of a video, counts, and why it cannot be read; from the work folder where it was finished before."""
    path, name, options, work = job
    if work is None:
        return _read_video(path, name, options)
    stamp = path.stat()
    key = json.dumps([name, stamp.st_size, stamp.st_mtime_ns, options], sort_keys=True)
    kept = Path(work) / f"{blake2b(key.encode(), digest_size=12).hexdigest()}.parquet"
    if not kept.exists():
        pairs, counts, failure = _read_video(path, name, options)
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


def _read_video(path: Path, name: str, options: dict[str, Any]) -> tuple[list[UnlabelledPair], dict[str, int], str | None]:
    counts: Counter[str] = Counter()
    try:
        spaced, cuts = _spaced_frames(path, options)
    except (OSError, ValueError) as error:  # av's errors are OSErrors or ValueErrors
        return [], {"videos unreadable": 1}, f"{name}: {error}"
    if len(spaced) < 2:
        return [], {"videos without two frames": 1}, None
    pairs: list[UnlabelledPair] = []
    for step, (before, after) in enumerate(itertools.pairwise(spaced)):
        reason = "shot cut" if cuts[step + 1] else _reason(before, after, options)
        counts[f"pairs left out: {reason}" if reason else "pairs kept"] += 1
        if reason is None:
            pairs.append(UnlabelledPair(_jpeg(before), _jpeg(after), episode=name, step=step))
    return pairs, dict(counts), None


def _spaced_frames(path: Path, options: dict[str, Any]) -> tuple[list[NDArray[np.uint8]], list[bool]]:
    """Frames [size, size, 3] about ``seconds`` apart, and whether there was a cut since the one before."""
    av, pil = require("av", "visual"), require("PIL.Image", "visual")
    chosen: list[NDArray[np.uint8]] = []
    cuts: list[bool] = []
    cut, small, since, last, next_time = False, None, 0, None, -np.inf
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 25)
        for index, frame in enumerate(container.decode(stream)):
            time = index / rate if frame.time is None else float(frame.time)
            grey = frame.reformat(width=32, height=32, format="gray").to_ndarray().astype(np.float32)
            cut = cut or (small is not None and float(np.abs(grey - small).mean()) > 255 * options["max_jump"])
            small, since, last = grey, since + 1, frame
            if time >= next_time:
                chosen.append(np.asarray(square(pil.fromarray(frame.to_ndarray(format="rgb24")), options["size"])))
                cuts.append(cut)
                cut, since, next_time = False, 0, time + options["seconds"]
                if len(chosen) > options["max_pairs"]:
                    break
        if len(chosen) == 1 and since and last is not None:  # shorter than ``seconds``: first and last frame
            chosen.append(np.asarray(square(pil.fromarray(last.to_ndarray(format="rgb24")), options["size"])))
            cuts.append(cut)
    return chosen, cuts


def _reason(before: NDArray[np.uint8], after: NDArray[np.uint8], options: dict[str, Any]) -> str | None:
    """Why a pair is left out, or None."""
    if max(float((frame.mean(-1) < _DARK).mean()) for frame in (before, after)) >= options["max_dark"]:
        return "dark"
    pil = require("PIL.Image", "visual")
    at_256 = [np.asarray(square(pil.fromarray(frame), 256)) for frame in (before, after)]
    pair = torch.from_numpy(np.stack(at_256)).permute(0, 3, 1, 2).float()  # [2, 3, 256, 256]
    similarity = float(structural_similarity_index_measure(pair[:1], pair[1:], data_range=(0.0, 255.0)))  # type: ignore[arg-type]
    return "too similar" if similarity >= options["max_ssim"] else None


def _jpeg(frame: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    require("PIL.Image", "visual").fromarray(frame).save(out, format="JPEG", quality=95)
    return out.getvalue()
