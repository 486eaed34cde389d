"""``swirl turns``: how far a world model gets on its own predictions, turn by turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import auto_cli

from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.commands.options import Columns, named_as
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.conversion.export import read_recipe
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.evaluation.turns import consecutive, run_turns
from swirl_lightning.types import Role, SamplingParams


def turns(
    models: dict[str, Path],
    data: str | list[str],
    split: str = "test",
    steps: int = 6,
    limit: int | None = 100,
    columns: Columns | None = None,
    action_pattern: str | None = None,
    reader: str | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Roll stretches of episodes out under their true actions, each prediction fed back, and print a row a model.

    Args:
        models: FWM folders written by ``swirl export``, by the name of their row.
        data: Labelled transitions, as `swirl fit` reads them.
        split: Use the episodes of this split, where the data have splits.
        steps: Steps of a stretch.
        limit: Most stretches, evenly spread; null for all.
        columns: Names of the data's columns, as in training.
        action_pattern: Regular expression with one group: the action, as in training.
        reader: ``module:function`` that reads the parts of a world out of an image: counts predictions that show the right
            world instead of those with exactly the right tokens.
        temperature: 0 takes the most likely next state; otherwise states are sampled.
        seed: Seed of sampling.
        out: Also write every measure as JSON.
    """
    for folder in models.values():
        read_recipe(folder, Role.FWM)
    with named_as(path="--data"):
        table = read_transitions(data, columns, action_pattern=action_pattern)
    rows = [row for row, given in enumerate(table.column("split")) if given in (None, split)]
    windows = consecutive(table.transitions(rows), steps, limit)
    if not windows:
        raise ValueError(f"{data}: no episode of split {split!r} has {steps} consecutive steps; take fewer --steps")
    extra = {}
    if reader is not None:
        from swirl_lightning.metrics.images import DecodedSuccess

        extra = {"world_right": DecodedSuccess(reader)}
    shown = next(iter(extra), "exact_match")
    print(f"{shown}, {len(windows)} stretches of {steps} steps, split {split}\n")
    print("| model | " + " | ".join(f"turn {turn + 1}" for turn in range(steps)) + " |\n" + "|---" * (steps + 1) + "|")
    report = {}
    for name, folder in models.items():
        inference = inference_from_folders(Path(folder), None)
        length = inference.sampling[Role.FWM].max_new_tokens
        params = SamplingParams(max_new_tokens=length, temperature=temperature)
        report[name] = run_turns(inference, windows, params=params, extra=extra, seed=seed)
        print(f"| {name} | " + " | ".join(f"{of_turn[shown]:.3f}" for of_turn in report[name]) + " |", flush=True)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        result = {"split": split, "stretches": len(windows), "models": report}
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(turns, prog="swirl turns", args=list(argv), as_positional=False, parser_class=Parser)
    return 0
