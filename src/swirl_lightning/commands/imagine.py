"""``swirl imagine``: the FWM rolls a world out over several steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse import auto_cli

from swirl_lightning.benchmarks import show_state
from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.data.reader import read_transitions, unlabelled
from swirl_lightning.types import Role, State, UnlabelledPair


def imagine(
    fwm: Path,
    state: str | None = None,
    actions: list[str] | None = None,
    idm: Path | None = None,
    demonstration: Path | None = None,
    columns: dict[str, str] | None = None,
    context: str = "",
    temperature: float = 0.0,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Imagine the states that follow, feeding each prediction back.

    Give a state and a list of actions; or a demonstration (a file with one episode without actions) and an IDM, which
    then proposes the actions that the FWM replays.

    Args:
        fwm: FWM folder written by ``swirl export``.
        state: first state; with a demonstration, default: its first state.
        actions: actions to take, in order.
        idm: IDM folder, to infer actions from the demonstration.
        demonstration: transitions of one episode, Parquet or JSONL.
        columns: names of the demonstration's columns.
        context: context of the prompts.
        temperature: 0 takes the most likely next state; otherwise states are sampled.
        seed: seed of sampling.
        out: also write the roll-out as JSON.
    """
    if (actions is None) == (demonstration is None):
        raise ValueError("give either --actions, or --demonstration together with --idm")
    if demonstration is not None and idm is None:
        raise ValueError("--demonstration needs --idm: who else should say which actions happened?")
    inference = inference_from_folders(fwm, idm)
    truth: list[State] = []
    if demonstration is not None:
        pairs = [unlabelled(row) for row in read_transitions(demonstration, columns)]
        pairs = [pair for pair in pairs if pair.episode == pairs[0].episode]
        greedy = replace(inference.sampling[Role.IDM], temperature=0.0)
        actions = [drawn[0] for drawn in inference.infer_actions(pairs, params=greedy)]
        truth = [pair.next_state for pair in pairs]
        state = state if state is not None else str(pairs[0].state)
        context = context or pairs[0].context
    if state is None:
        raise ValueError("--state is missing: where does the roll-out begin?")
    assert actions is not None
    params = replace(inference.sampling[Role.FWM], temperature=temperature)
    current: State = state
    steps = [{"step": 0, "action": None, "state": str(current)}]
    print(f"   0  {show_state(current)}")
    for i, action in enumerate(actions):
        here = UnlabelledPair(current, "", context, step=i)
        current = inference.predict_states([here], [action], params=params, seed=seed)[0][0]
        agrees = f"   (as observed: {current == truth[i]})" if truth else ""
        print(f"{'':6}{action}\n{i + 1:4}  {show_state(current)}{agrees}")
        steps.append({"step": i + 1, "action": action, "state": str(current)})
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(steps, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(imagine, prog="swirl imagine", args=list(argv), as_positional=False)
    return 0
