"""``swirl plan``: an agent that looks ahead in a world model, and whether it reaches its goal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from tqdm import tqdm

import swirl_lightning.environments  # short class names of tasks: the classes must be imported
from swirl_lightning.commands.loading import exported_folders, inference_from_folders
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.evaluation.planning import Episode, Memory, PlanningTask, learned, play_episodes, simulated
from swirl_lightning.metrics import mean_interval, wilson_interval
from swirl_lightning.types import Role

assert swirl_lightning.environments
SIMULATOR, RANDOM = "true simulator", "random"
SHOWN = {
    "reached": "reaches the goal",
    "steps": "steps",
    "reward": "reward",
    "best": "best value",
    "foreseen": "next state as planned",
}
Record = dict[str, Any]  # of one model at one depth: row, model, depth, measures, episodes


def plan(
    task: PlanningTask,
    models: dict[str, str] | None = None,
    depth: int | list[int] = 4,
    episodes: int = 50,
    max_steps: int = 60,
    seed: int = 0,
    of: str | None = None,
    out: Path | None = None,
) -> None:
    """Let an agent look ahead in each model, and print how often it reaches the goal.

    The agent sees the true state before every step, imagines all states within some steps, and goes towards the best one. Two
    rows are added: the same agent with the true simulator as its model, the best there can be, and one that acts at random.

    Args:
        task: Simulator and goal, e.g. ``DoorKeyTask``, or a ``PlanningTask`` of your own.
        models: FWM folders written by ``swirl export``, or run folders, by the name of their row. A pattern with a ``*`` stands
            for several models of one row, e.g. one a seed: ``{sft: runs/study/doorkey/seed-*/warmup}``.
        depth: Steps to look ahead; a table for each of a list.
        episodes: Episodes of every model, the same ones.
        max_steps: Steps after which an episode is over.
        seed: Of the first episode; the others follow.
        of: Row whose differences to every other one are shown, paired by what ``*`` stands for.
        out: Also write every episode as JSON.
    """
    depths = [depth] if isinstance(depth, int) else depth
    if min(episodes, max_steps, *depths) < 1:
        raise ValueError(f"plan: depth, episodes and max_steps must be at least 1, got {depth}, {episodes} and {max_steps}")
    rows = {name: exported_folders(pattern, Role.FWM) for name, pattern in (models or {}).items()}
    if of is not None and of not in rows:
        raise ValueError(f"plan: of names no row: {of!r} is not among {', '.join(rows) or 'models, which are none'}")
    records: list[Record] = []
    with closing(task), tqdm(total=len(depths) * (2 + sum(map(len, rows.values()))), desc="plan", unit="model") as bar:
        for row, name, model in _models(task, rows):
            for each in depths:
                seeds, ahead = range(seed, seed + episodes), 0 if row == RANDOM else each
                played = play_episodes(task, model, seeds, depth=ahead, max_steps=max_steps)
                records.append({"row": row, "model": name, "depth": each, **measured(played, max_steps)})
                records[-1]["episodes"] = [asdict(episode) for episode in played]
                bar.update(1)
            unreadable = sum(task.read(answer) is None for answer in model.known.values())
            tqdm.write(f"{row} {name}: {len(model.known)} predictions in {model.calls} calls, {unreadable} are no state")
    for each in depths:
        found = [record for record in records if record["depth"] == each]
        print(f"\nlooking {each} ahead, {episodes} episodes of {max_steps} steps at most\n\n{as_markdown(found)}")
        if of is not None:
            print(f"\n{differences_as_markdown(found, of)}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


def _models(task: PlanningTask, rows: Mapping[str, Mapping[str, Path]]) -> Iterator[tuple[str, str, Memory]]:
    """Row, what ``*`` stands for, and the model; one model is loaded at a time."""
    for row, folders in rows.items():
        for name, folder in folders.items():
            yield row, name, learned(inference_from_folders(folder, None))
    yield SIMULATOR, "", simulated(task)
    yield RANDOM, "", simulated(task)


def measured(played: Sequence[Episode], max_steps: int) -> dict[str, float]:
    """Means over episodes; an episode without its goal counts with all steps that it could have had."""
    steps = sum(len(episode.actions) for episode in played)
    return {
        "reached": sum(episode.reached for episode in played) / len(played),
        "steps": sum(len(episode.actions) if episode.reached else max_steps for episode in played) / len(played),
        "reward": sum(episode.reward for episode in played) / len(played),
        "best": sum(episode.best for episode in played) / len(played),
        "foreseen": sum(episode.foreseen for episode in played) / steps,
    }


def as_markdown(records: Sequence[Record]) -> str:
    """A row a method, with 95 % intervals: over its models, or of the share of episodes where there is one model."""
    lines = ["| model | models | " + " | ".join(SHOWN.values()) + " |", "|---" * (len(SHOWN) + 2) + "|"]
    for row in dict.fromkeys(record["row"] for record in records):
        of_row = [record for record in records if record["row"] == row]
        cells = []
        for measure in SHOWN:
            mean, low, high = mean_interval([record[measure] for record in of_row])
            if len(of_row) == 1 and measure == "reached":
                low, high = wilson_interval(mean, len(of_row[0]["episodes"]))
            cells.append(_cell(mean, low, high))
        lines.append("| " + " | ".join([row, str(len(of_row)), *cells]) + " |")
    return "\n".join(lines)


def differences_as_markdown(records: Sequence[Record], of: str) -> str:
    """How much more one row has than each other that has models of the same names, with 95 % intervals over them."""
    lines = [f"| {of} minus | " + " | ".join(SHOWN.values()) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    ours = {record["model"]: record for record in records if record["row"] == of}
    for row in dict.fromkeys(record["row"] for record in records if record["row"] not in (of, SIMULATOR, RANDOM)):
        pairs = [(ours[r["model"]], r) for r in records if r["row"] == row and r["model"] in ours]
        cells = [""] * len(SHOWN)
        if pairs:
            gains = [[one[measure] - other[measure] for one, other in pairs] for measure in SHOWN]
            cells = [_cell(*mean_interval(values), sign="+") for values in gains]
        lines.append("| " + " | ".join([row, *cells]) + " |")
    return "\n".join(lines)


def _cell(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{mean:{sign}.3f}" + ("" if math.isnan(low) else f" [{low:{sign}.3f}, {high:{sign}.3f}]")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(plan, prog="swirl plan", args=list(argv), as_positional=False, parser_class=Parser)
    return 0
