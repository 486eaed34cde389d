"""``swirl label``: the IDM writes actions into a file of state-only transitions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse import auto_cli
from tqdm import tqdm

from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.data.reader import read_transitions, unlabelled
from swirl_lightning.types import Role


def label(
    file: Path,
    idm: Path,
    out: Path,
    columns: dict[str, str] | None = None,
    batch_size: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> None:
    """Infer the action of every transition and write them as JSON lines.

    Each line holds state, next_state, context, episode, step, ``action`` and ``action_logprob`` (nats, whole action).

    Args:
        file: transitions, Parquet or JSONL; actions in it are ignored.
        idm: IDM folder written by ``swirl export``.
        out: JSONL file to write.
        columns: names of your columns, e.g. ``{state: before, next_state: after}``.
        batch_size: transitions per generation batch.
        temperature: 0 takes the most likely action; otherwise actions are sampled.
        seed: seed of sampling.
    """
    inference = inference_from_folders(None, idm)
    pairs = [unlabelled(row) for row in read_transitions(file, columns)]
    params = replace(inference.sampling[Role.IDM], temperature=temperature)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as handle, tqdm(total=len(pairs), desc="label", unit="pair") as bar:
        for begin in range(0, len(pairs), batch_size):
            part = pairs[begin : begin + batch_size]
            actions = [drawn[0] for drawn in inference.infer_actions(part, params=params, seed=seed)]
            logprobs = inference.score_actions(part, actions).logprobs.sum(-1).tolist()
            for pair, action, logprob in zip(part, actions, logprobs, strict=True):
                row: dict[str, object] = {"state": pair.state, "next_state": pair.next_state, "context": pair.context}
                row |= {"episode": pair.episode, "step": pair.step, "action": action, "action_logprob": logprob}
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
            bar.update(len(part))
    print(f"{len(pairs)} actions in {out}")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(label, prog="swirl label", args=list(argv), as_positional=True)
    return 0
