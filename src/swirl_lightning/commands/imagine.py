"""``swirl imagine``: the FWM rolls a world out over several steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse import auto_cli

from swirl_lightning.codecs import Codec, ImageCodec
from swirl_lightning.codecs.image_pixels import to_png
from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.commands.options import Columns, named_as
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.evaluation import show_state
from swirl_lightning.evaluation.pictures import animation, grid
from swirl_lightning.types import Role, State, UnlabelledPair


def imagine(
    fwm: Path,
    state: str | None = None,
    actions: list[str] | None = None,
    idm: Path | None = None,
    demonstration: str | None = None,
    columns: Columns | None = None,
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
        state: First state; the path of an image file in a visual world; with a demonstration, default: its first state.
        actions: Actions to take, in order.
        idm: IDM folder, to infer actions from the demonstration.
        demonstration: Transitions of one episode, or its states alone, as `swirl fit` reads them; the first episode is taken.
        columns: Names of the demonstration's columns.
        context: Context of the prompts.
        temperature: 0 takes the most likely next state; otherwise states are sampled.
        seed: Seed of sampling.
        out: Also write the roll-out: JSON of text; of images a folder with numbered PNG files, a strip and a GIF.
    """
    if (actions is None) == (demonstration is None):
        raise ValueError("give either --actions, or --demonstration together with --idm")
    if demonstration is not None and idm is None:
        raise ValueError("--demonstration needs --idm: who else should say which actions happened?")
    pairs: list[UnlabelledPair] = []
    if demonstration is not None:
        with named_as(path="--demonstration"):
            pairs = list(read_transitions(demonstration, columns, actions=False).pairs())
        pairs = [pair for pair in pairs if pair.episode == pairs[0].episode]
    inference = inference_from_folders(fwm, idm)
    images = isinstance(inference.codec, ImageCodec)
    truth: list[State] = []
    current: State | None = None
    if state is not None:
        current = _read_image(Path(state)) if images else state
    if pairs:
        greedy = replace(inference.sampling[Role.IDM], temperature=0.0)
        actions = [drawn[0] for drawn in inference.infer_actions(pairs, params=greedy)]
        truth = [pair.next_state for pair in pairs]
        current = pairs[0].state if current is None else current
        context = context or pairs[0].context
    if current is None:
        raise ValueError("--state is missing: where does the roll-out begin?")
    assert actions is not None
    params = replace(inference.sampling[Role.FWM], temperature=temperature)
    steps: list[tuple[str, State]] = [("", current)]
    print(f"   0  {show_state(current)}")
    for i, action in enumerate(actions):
        here = UnlabelledPair(current, "", context, step=i)
        current = inference.predict_states([here], [action], params=params, seed=seed)[0][0]
        agrees = ""
        if truth:
            agrees = f"   (as observed: {inference.codec.canonical(current) == inference.codec.canonical(truth[i])})"
        print(f"{'':6}{action}\n{i + 1:4}  {show_state(current)}{agrees}")
        steps.append((action, current))
    if out is not None and images:
        _write_images(inference.codec, steps, truth, out)
    elif out is not None:
        rows = [{"step": i, "action": action or None, "state": state} for i, (action, state) in enumerate(steps)]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_image(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"--state: there is no image {str(path)!r}; this model speaks images, so name a file")
    return path.read_bytes()


def _write_images(codec: Codec, steps: Sequence[tuple[str, State]], truth: Sequence[State], out: Path) -> None:
    """Numbered PNG files, ``strip.png`` (what was observed below, if given) and ``rollout.gif``."""
    out.mkdir(parents=True, exist_ok=True)
    rendered = [codec.render(state) for _, state in steps]
    pictures = [image for image in rendered if isinstance(image, bytes)]
    for i, image in enumerate(pictures):
        (out / f"{i:03}.png").write_bytes(image)
    captions = [action or "start" for action, _ in steps]
    rows = [list(zip(pictures, captions, strict=True))]
    if truth:
        observed = [pictures[0], *(image for image in truth if isinstance(image, bytes))]
        rows.append([(image, "observed") for image in observed])
    (out / "strip.png").write_bytes(to_png(grid(rows)))
    (out / "rollout.gif").write_bytes(animation(pictures))
    print(f"written to {out}: {len(pictures)} images, strip.png, rollout.gif")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(imagine, prog="swirl imagine", args=list(argv), as_positional=False, parser_class=Parser)
    return 0
