"""``swirl world-prediction``: an FWM's roll-outs of WorldPrediction-Bench's plans, for ``swirl score images``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jsonargparse import auto_cli
from tqdm import tqdm

from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.environments.visual.world_prediction import frame_at, read_plans
from swirl_lightning.evaluation.pictures import as_files
from swirl_lightning.types import Role, State, UnlabelledPair


def run(
    file: Path,
    fwm: Path,
    out: Path,
    turns: int = 6,
    missing: Literal["raise", "skip"] = "raise",
    limit: int | None = None,
    batch_size: int = 16,
    temperature: float = 0.0,
    seed: int = 0,
) -> None:
    """Roll the right plan of every sample out, each prediction fed back, and write all images.

    A line holds prediction, state (the prediction of the turn before), action, and as split the data set and the turn; there is
    no reference. `swirl score images OUT --judge.base_url ...` then reports data sets and turns.

    Args:
        file: The benchmark's JSON file, with `videos/<dataset>/` beside it.
        fwm: FWM folder written by `swirl export`.
        out: JSONL file to write; images go into a folder beside it.
        turns: Turns of a plan at most.
        missing: Raise where a video is not there, or skip the sample and count it.
        limit: At most so many samples.
        batch_size: Samples at once.
        temperature: 0 takes the most likely next image; otherwise images are sampled.
        seed: Seed of sampling.
    """
    inference = inference_from_folders(fwm, None)
    plans, counts = read_plans(file, turns, missing)
    plans = plans[:limit]
    if not plans:
        raise ValueError(f"{file}: no sample is left to roll out; {dict(counts)}")
    params = replace(inference.sampling[Role.FWM], temperature=temperature)
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures, number = out.with_suffix(".images"), 0
    with out.open("w", encoding="utf-8") as handle, tqdm(total=sum(len(p.actions) for p in plans), unit="turn") as bar:
        for begin in range(0, len(plans), batch_size):
            part = plans[begin : begin + batch_size]
            states: list[State] = [frame_at(plan.video, plan.seconds) for plan in part]
            for turn in range(turns):
                active = [i for i, plan in enumerate(part) if turn < len(plan.actions)]
                pairs = [UnlabelledPair(states[i], states[i], episode=part[i].sample, step=turn) for i in active]
                actions = [part[i].actions[turn] for i in active]
                drawn = inference.predict_states(pairs, actions, params=params, seed=seed)
                for i, action, (predicted,) in zip(active, actions, drawn, strict=True):
                    images = as_files(inference.codec, {"prediction": predicted, "state": states[i]}, pictures, number)
                    where = {"split": f"{part[i].dataset}/turn {turn + 1}", "sample": part[i].sample}
                    handle.write(json.dumps({**images, "action": action, **where}, ensure_ascii=False) + "\n")
                    states[i], number = predicted, number + 1
                bar.update(len(active))
    left_out = "".join(f"; {count} {what}" for what, count in counts.items())
    print(f"{number} predictions of {len(plans)} samples in {out}{left_out}")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(run, prog="swirl world-prediction", args=list(argv), as_positional=True, parser_class=Parser)
    return 0
