"""``swirl forecast``: an FWM's next states of a split, as a file that ``swirl score`` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jsonargparse import auto_cli
from tqdm import tqdm

from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.commands.options import Columns, named_as
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.evaluation.pictures import as_files
from swirl_lightning.types import Role


def forecast(
    data: str,
    fwm: Path,
    out: Path,
    split: Literal["val", "test"] = "test",
    by: Literal["split", "episode"] = "split",
    columns: Columns | None = None,
    action_pattern: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    limit: int | None = None,
    batch_size: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> None:
    """Predict the next state of every held-out transition and write them as JSON lines.

    Each line holds prediction, reference, state, split, and the action, episode and step that it is about. Images are written
    as PNG files into a folder beside the file, and the lines hold their paths.

    Args:
        data: Transitions, as `swirl fit` reads them.
        fwm: FWM folder written by `swirl export`.
        out: JSONL file to write.
        by: What the line calls split: the split, or the first part of the episode's name (ByteMorph's type of motion, AURORA's
            task, StableToolBench's test file).
        split: Which held-out episodes; drawn as in training, where the data have no splits of their own.
        columns: Names of your columns, as in training, e.g. ``{state: before, next_state: after}``.
        action_pattern: Regular expression with one group: the action, as in training.
        val_fraction: Share of validation episodes, as in training.
        test_fraction: Share of test episodes, as in training.
        limit: At most so many transitions, drawn as in training (``max_val``, ``max_test``).
        batch_size: Transitions per generation batch.
        temperature: 0 takes the most likely next state; otherwise states are sampled.
        seed: Seed of splits and sampling.
    """
    module = TransitionDataModule(
        data,
        columns,
        action_pattern=action_pattern,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        max_val=limit if split == "val" else None,
        max_test=limit if split == "test" else None,
        seed=seed,
    )
    with named_as(path="DATA"):
        module.setup("validate" if split == "val" else "test")
    inference = inference_from_folders(fwm, None)
    rows = module.val if split == "val" else module.test
    params = replace(inference.sampling[Role.FWM], temperature=temperature)
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures = out.with_suffix(".images")
    with out.open("w", encoding="utf-8") as handle, tqdm(total=len(rows), desc="forecast", unit="transition") as bar:
        for begin in range(0, len(rows), batch_size):
            part = rows[begin : begin + batch_size]
            drawn = inference.predict_states(part, [t.action for t in part], params=params, seed=seed)
            for number, (t, states) in enumerate(zip(part, drawn, strict=True), begin):
                line: dict[str, object] = {"prediction": states[0], "reference": t.next_state, "state": t.state}
                if isinstance(t.state, bytes):
                    line = as_files(inference.codec, line, pictures, number)
                line |= {"split": split if by == "split" else t.episode.partition("/")[0]}
                line |= {"action": t.action, "episode": t.episode, "step": t.step}
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")
            bar.update(len(part))
    print(f"{len(rows)} predictions in {out}")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(forecast, prog="swirl forecast", args=list(argv), as_positional=True, parser_class=Parser)
    return 0
