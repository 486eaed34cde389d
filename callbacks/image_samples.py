"""What the models believe, in pictures: fixed samples, looked at after the warm-up and after every phase."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
from swirl_lightning.callbacks.loggers import log_image
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.phase_end import PhaseEnd
from swirl_lightning.codecs.image_pixels import to_png
from swirl_lightning.evaluation.pictures import Cell, animation, grid
from swirl_lightning.types import State, Transition, UnlabelledPair


class ImageSamples(PhaseEnd):
    """Draws validation pairs as pictures, into TensorBoard (``pictures/``) and ``pictures/`` in the run folder.

    One row a pair: state x, the IDM's action | true next state y | a group of predictions under that action, each with the
    IDM's mean log-probability of the action per token (the reward of Phase I). And a long roll-out: the FWM's own predictions
    fed back, under the true actions of an episode, above what was observed, as a strip and a GIF.

    Args:
        pairs: Rows of the picture.
        members: Predictions of a row.
        steps: Length of a long roll-out; 0 for none.
        side: Side of an image in the picture, pixels.
    """

    def __init__(self, pairs: int = 6, members: int = 4, steps: int = 6, side: int = 128) -> None:
        if min(pairs, members, side) < 1 or steps < 0:
            raise ValueError("ImageSamples: pairs, members and side must be at least 1, steps at least 0")
        self.pairs, self.members, self.steps, self.side = pairs, members, steps, side

    @override
    def on_phase_end(self, trainer: L.Trainer, module: SwirlModule, label: str) -> None:
        transitions = list(module.splits.val)
        if not transitions or not isinstance(transitions[0].state, bytes):
            raise ValueError("ImageSamples needs validation pairs whose states are images; take it out of trainer.callbacks")
        spread = [transitions[i * len(transitions) // self.pairs] for i in range(min(self.pairs, len(transitions)))]
        pictures = {"groups": self.groups(module, spread)}
        episode = longest_run(transitions)[: self.steps]
        if self.steps and episode:
            pictures["rollout"] = self.rollout(module, episode)
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in pictures.items():
            drawn = grid(rows, self.side)
            (folder / f"{name}-{label}.png").write_bytes(to_png(drawn))
            log_image(trainer, f"pictures/{name}", drawn, folder.name)
        if "rollout" in pictures:
            frames = [image for image, _ in pictures["rollout"][0]]
            (folder / f"rollout-{label}.gif").write_bytes(animation(frames, 2 * self.side))

    def groups(self, module: SwirlModule, pairs: list[Transition]) -> list[list[Cell]]:
        """Rows of x | y | predictions; equal calls draw equal samples."""
        inference, render = module.inference, _renderer(module)
        actions = [drawn[0] for drawn in inference.infer_actions(pairs, seed=module.run_seed)]
        predicted = inference.predict_states(pairs, actions, samples=self.members, seed=module.run_seed)
        repeated = [pair for pair in pairs for _ in range(self.members)]
        named = [action for action in actions for _ in range(self.members)]
        scores = inference.score_actions(repeated, named, [y for group in predicted for y in group])
        reward = (scores.logprobs.sum(-1) / scores.mask.sum(-1)).view(len(pairs), self.members).tolist()
        rows: list[list[Cell]] = []
        for pair, action, group, rewards in zip(pairs, actions, predicted, reward, strict=True):
            row = [(render(pair.state), f"x: {action}\n(true: {pair.action})"), (render(pair.next_state), "true y")]
            order = sorted(range(self.members), key=lambda k: -rewards[k])
            same = [module.codec.canonical(y) == module.codec.canonical(pair.next_state) for y in group]
            row += [(render(group[k]), f"reward {rewards[k]:.2f}" + ("\n= y" if same[k] else "")) for k in order]
            rows.append(row)
        return rows

    def rollout(self, module: SwirlModule, episode: list[Transition]) -> list[list[Cell]]:
        """Two rows: what the FWM imagines, feeding itself; what was observed."""
        inference, render = module.inference, _renderer(module)
        current: State = episode[0].state
        imagined = [(render(current), "start")]
        for transition in episode:
            here = UnlabelledPair(current, "", transition.context, transition.episode, transition.step)
            current = inference.predict_states([here], [transition.action], seed=module.run_seed)[0][0]
            imagined.append((render(current), transition.action))
        observed = [(render(episode[0].state), "observed"), *((render(t.next_state), t.action) for t in episode)]
        return [imagined, observed]


def longest_run(transitions: list[Transition]) -> list[Transition]:
    """The longest run of consecutive steps of one episode."""
    runs: list[list[Transition]] = []
    for transition in sorted(transitions, key=lambda t: (t.episode, t.step)):
        last = runs[-1][-1] if runs else None
        if last is not None and last.episode == transition.episode and last.next_state == transition.state:
            runs[-1].append(transition)
        else:
            runs.append([transition])
    return max(runs, key=len, default=[])


def _renderer(module: SwirlModule) -> Callable[[State], bytes]:
    def render(state: State) -> bytes:
        shown = module.codec.render(state)
        assert isinstance(shown, bytes)
        return shown

    return render
