"""Recording a world: its episodes as Parquet, with splits and a manifest of what made them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from swirl_lightning.data.schema import MANIFEST, TRANSITIONS, write_transitions
from swirl_lightning.data.splits import split_episodes
from swirl_lightning.environments.recording.jobs import JOURNAL, JobRecorder
from swirl_lightning.environments.registry import Presplit, Recorder, recorder_options
from swirl_lightning.types import Transition, UnlabelledPair

OPTIONS = "options"
"""Field of the manifest: everything that decides what is recorded."""


@dataclass(frozen=True)
class Splits:
    """How episodes are split where a world has no splits of its own.

    Attributes:
        val_fraction: Share of validation episodes.
        test_fraction: Share of test episodes.
        split_seed: Assigns episodes to splits.
    """

    val_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0


def record(recorder: Recorder, out: Path, splits: Splits = Splits()) -> Counter[str]:  # frozen
    """Runs a recorder and writes its transitions; what the folder held of an earlier recording is replaced.

    Args:
        recorder: makes episodes; where it knows splits of its own, fractions matter only for what it leaves open.
        out: folder to write.
        splits: of what the recorder leaves open.

    Returns:
        Transitions and episodes by split.
    """
    counts: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    presplit = isinstance(recorder, Presplit)
    if isinstance(recorder, JobRecorder):
        recorder.journal = out / JOURNAL  # an interrupted recording goes on where it was

    def rows() -> Iterator[tuple[Transition | UnlabelledPair, str | None]]:
        for episode in tqdm(recorder.record(), total=recorder.episodes(), desc="record", unit="episode"):
            if not episode:
                counts["empty episodes"] += 1
                continue
            name = episode[0].episode
            split = recorder.split_of(name) if isinstance(recorder, Presplit) else None
            if split is None:
                shares = {"val_fraction": splits.val_fraction, "test_fraction": 0.0 if presplit else splits.test_fraction}
                split = split_episodes([name], **shares, seed=splits.split_seed)[name]
            counts[f"{split} episodes"] += 1
            counts[f"{split} transitions"] += len(episode)
            for transition in episode:
                if isinstance(transition, Transition):
                    actions[" ".join(transition.action.split()[:2])] += 1
                yield transition, split

    def manifest() -> dict[str, object]:
        counted = {"counts": dict(counts), "actions": dict(actions.most_common(100))}
        return {**recorder.manifest(), **counted, OPTIONS: recording_options(recorder, splits)}

    try:
        write_transitions(out, rows(), manifest)
    except ValueError as error:
        if counts.keys() != {"empty episodes"}:
            raise
        raise ValueError(f"{error}; every episode was left out: {recorder.manifest()}") from error
    (out / JOURNAL).unlink(missing_ok=True)
    return counts


def recording_options(recorder: Recorder, splits: Splits) -> dict[str, Any]:
    """Everything that decides what is recorded, as JSON holds it."""
    return {"recorder": type(recorder).__name__, **recorder_options(recorder), **asdict(splits)}


def is_recorded(recorder: Recorder, folder: Path, splits: Splits) -> bool:
    """Whether a folder holds a finished recording, made by this recorder with these options.

    Args:
        recorder: what would be run.
        folder: where ``record`` writes.
        splits: of what the recorder leaves open.

    Raises:
        ValueError: naming the options that differ, if it holds a recording that was made with others.
    """
    if not (folder / MANIFEST).is_file() or not (folder / TRANSITIONS).is_file():
        return False
    options = recording_options(recorder, splits)
    known = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get(OPTIONS)
    if known == options:
        return True
    if known is None:
        raise ValueError(
            f"{folder} holds a recording without its options, of an earlier version: read it as it is with "
            "data.class_path: TransitionDataModule, or give another data.path to record anew"
        )
    differing = [name for name in {**known, **options} if known.get(name) != options.get(name)]
    listed = "; ".join(f"{name} was {known.get(name)!r}, now {options.get(name)!r}" for name in differing)
    raise ValueError(
        f"{folder} holds a recording with other options ({listed}): give them as they were, or another data.path to record anew"
    )
