"""WorldPrediction-Bench: videos of people at work, cut into segments with an action each, and the right plan of each sample.

Published as JSON ``{dataset: {sample: {ground_truth, candidates, action_segments}}}``, videos at ``videos/<dataset>/<name>``.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from swirl_lightning.data.columns import DataError
from swirl_lightning.hints import require


@dataclass(frozen=True, slots=True)
class Plan:
    """The right plan of a sample: what is done from the first segment's middle on."""

    dataset: str
    sample: str
    video: Path
    seconds: float  # of the frame that the plan starts from
    actions: tuple[str, ...]


def read_plans(file: Path, turns: int, missing: Literal["raise", "skip"] = "raise") -> tuple[list[Plan], Counter[str]]:
    """Plans of a benchmark's file, cut to so many turns, and counts of what was left out.

    Args:
        file: the JSON file, with ``videos/`` beside it.
        turns: actions of a plan at most.
        missing: what to do where a video is not there: ``raise``, or ``skip`` and count it.

    Raises:
        DataError: naming sample and field of what is wrong.
        FileNotFoundError: if a video is not there.
    """
    try:
        datasets = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: malformed JSON ({error})") from error
    plans, counts = [], Counter[str]()
    for dataset, samples in _items(datasets, f"{file}"):
        for uid, sample in _items(samples, f"{file}, {dataset}"):
            plan = _plan(file, dataset, uid, sample, turns)
            if not plan.video.is_file():
                if missing == "raise":
                    raise FileNotFoundError(f"{file}, {dataset}, {uid}: there is no video {plan.video} (--missing skip)")
                counts[f"{dataset}: samples without video"] += 1
                continue
            plans.append(plan)
    return plans, counts


def _items(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise DataError(f"{place}: must be an object, got {type(value).__name__}")
    yield from value.items()


def _plan(file: Path, dataset: str, uid: str, sample: Any, turns: int) -> Plan:
    place = f"{file}, {dataset}, {uid}"
    try:
        candidates, number = sample["candidates"], sample["ground_truth"]
        if not 1 <= number <= len(candidates):
            raise DataError(f"{place}: ground_truth is {number!r}, but there are {len(candidates)} candidates, counted from 1")
        segments = [sample["action_segments"][segment] for segment in candidates[number - 1]][:turns]
        first = segments[0]
        middle = (float(first["segment_start_time"]) + float(first["segment_end_time"])) / 2
        actions = tuple(str(segment["action_label"]) for segment in segments)
        return Plan(dataset, uid, file.parent / "videos" / dataset / Path(first["video"]).name, middle, actions)
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"{place}: {type(error).__name__}: {error} is missing or of a wrong kind") from error


def frame_at(video: Path, seconds: float) -> bytes:
    """The frame that a video shows at a time, or its last one, as PNG.

    Raises:
        DataError: if the file is no video.
    """
    av = require("av", "visual")
    shown = None
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            container.seek(int(seconds / stream.time_base), stream=stream)  # to the key frame before it
            for frame in container.decode(stream):
                if shown is not None and frame.time is not None and frame.time > seconds:
                    break
                shown = frame
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{video}: not a readable video ({error})") from error
    if shown is None:
        raise DataError(f"{video}: no frame at {seconds:.1f} s")
    out = io.BytesIO()
    shown.to_image().save(out, format="PNG")
    return out.getvalue()
