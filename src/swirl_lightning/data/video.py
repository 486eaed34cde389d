"""Pairs of frames out of a video: two frames some seconds apart, kept when something happened in between.

Frames about six seconds apart (a shorter clip gives its first and last frame), SSIM below 0.95 at 256 pixels, not dark
(arXiv:2602.06130, data), and no cut in between. Times are the frames' own, so variable frame rates need no care.
"""

from __future__ import annotations

import io
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from swirl_lightning.codecs.image_pixels import square
from swirl_lightning.hints import require
from swirl_lightning.types import UnlabelledPair

_DARK = 30  # a pixel below this grey level (of 255) is dark


@dataclass(frozen=True)
class VideoOptions:
    """Which frames of a video become pairs.

    Attributes:
        seconds: Between the two frames of a pair; the second frame of one pair is the first of the next.
        size: Side of the stored frames, pixels (a centred square, JPEG).
        max_ssim: Pairs that are more alike are left out.
        max_dark: Frames with a larger share of dark pixels are left out.
        max_jump: Largest mean difference (share of the grey range, 32 x 32 pixels) between two frames in a row; more is a cut.
        max_pairs: Pairs of a video at most.
    """

    seconds: float = 6.0
    size: int = 256
    max_ssim: float = 0.95
    max_dark: float = 0.1
    max_jump: float = 0.2
    max_pairs: int = 32

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: naming the options.
        """
        if self.seconds <= 0 or self.size < 16 or self.max_pairs < 1:
            raise ValueError("video: seconds and max_pairs must be positive, size at least 16")


def read_video(path: Path, name: str, options: VideoOptions) -> tuple[list[UnlabelledPair], dict[str, int], str | None]:
    """Pairs of frames of a video, as one episode.

    Args:
        path: the file.
        name: of the episode.
        options: which frames, and what is left out.

    Returns:
        The pairs (JPEG bytes), counts of pairs and of what was left out, and why the video cannot be read or None.
    """
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


def _spaced_frames(path: Path, options: VideoOptions) -> tuple[list[NDArray[np.uint8]], list[bool]]:
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
            cut = cut or (small is not None and float(np.abs(grey - small).mean()) > 255 * options.max_jump)
            small, since, last = grey, since + 1, frame
            if time >= next_time:
                chosen.append(np.asarray(square(pil.fromarray(frame.to_ndarray(format="rgb24")), options.size)))
                cuts.append(cut)
                cut, since, next_time = False, 0, time + options.seconds
                if len(chosen) > options.max_pairs:
                    break
        if len(chosen) == 1 and since and last is not None:  # shorter than ``seconds``: first and last frame
            chosen.append(np.asarray(square(pil.fromarray(last.to_ndarray(format="rgb24")), options.size)))
            cuts.append(cut)
    return chosen, cuts


def _reason(before: NDArray[np.uint8], after: NDArray[np.uint8], options: VideoOptions) -> str | None:
    """Why a pair is left out, or None."""
    if max(float((frame.mean(-1) < _DARK).mean()) for frame in (before, after)) >= options.max_dark:
        return "dark"
    pil = require("PIL.Image", "visual")
    at_256 = [np.asarray(square(pil.fromarray(frame), 256)) for frame in (before, after)]
    pair = torch.from_numpy(np.stack(at_256)).permute(0, 3, 1, 2).float()  # [2, 3, 256, 256]
    similarity = float(structural_similarity_index_measure(pair[:1], pair[1:], data_range=(0.0, 255.0)))  # type: ignore[arg-type]
    return "too similar" if similarity >= options.max_ssim else None


def _jpeg(frame: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    require("PIL.Image", "visual").fromarray(frame).save(out, format="JPEG", quality=95)
    return out.getvalue()
