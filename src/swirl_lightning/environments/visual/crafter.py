"""Crafter as images: an open world with resources, tools, creatures and nights, of which an agent sees its surroundings.

Much of what a picture shows does not depend on the action: creatures walk by chance, and the nights are noisy.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from swirl_lightning.codecs.image_pixels import to_png
from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.hints import require
from swirl_lightning.types import Transition


@dataclass
class CrafterRecorder:
    """Records random walks: mostly movements, and ``do`` (collect, hit, drink, eat) where the agent stands before something.

    Attributes:
        n_episodes: Episodes, each in a world of its own.
        max_steps: Most steps of an episode.
        size: Size of a picture's side, pixels.
        seed: Seed of worlds and walks.
        act: Probability of ``do``; the rest are movements, but for one step in ten, which is any action.
        no_ops: Steps that change no pixel: ``drop`` or ``keep``; counted either way.
    """

    n_episodes: int = 50
    max_steps: int = 100
    size: int = 64
    seed: int = 0
    act: float = 0.3
    no_ops: Literal["drop", "keep"] = "drop"
    counts: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: naming the option.
        """
        if min(self.n_episodes, self.max_steps) < 1 or self.size < 9:
            raise ValueError(
                "crafter: n_episodes and max_steps must be at least 1, size at least 9 pixels (the view has 9 tiles)"
            )
        if not 0 <= self.act <= 1:
            raise ValueError(f"crafter: act is a probability, got {self.act}")

    def episodes(self) -> int:
        """Number of episodes that ``record`` yields."""
        return self.n_episodes

    def manifest(self) -> dict[str, Any]:
        """Simulator, version, options and counts."""
        options = {name: getattr(self, name) for name in ("n_episodes", "max_steps", "size", "seed", "act", "no_ops")}
        return {"simulator": "crafter", "version": version("crafter"), **options, **self.counts}

    def record(self) -> Iterator[list[Transition]]:
        """Yields episodes; one in which nothing changed is an empty list."""
        crafter = require("crafter", "crafter")
        self.counts = {"steps": 0, "no_ops": 0}
        for number in range(self.n_episodes):
            seed = self.seed * 1_000_003 + number
            env = crafter.Env(size=(self.size, self.size), seed=seed)
            yield self._episode(env, f"crafter/{seed}", random.Random(seed))

    def _episode(self, env: Any, name: str, rng: random.Random) -> list[Transition]:
        kept: list[Transition] = []
        names = list(env.action_names)
        moves, before = [action for action in names if action.startswith("move_")], env.reset()
        _put_in_order(env._world)
        for step in range(self.max_steps):
            drawn = rng.random()
            action = rng.choice(names[1:]) if drawn < 0.1 else "do" if rng.random() < self.act else rng.choice(moves)
            after, _, ended, _ = env.step(names.index(action))
            same = bool((after == before).all())
            self.counts["steps"] += 1
            self.counts["no_ops"] += same
            if not same or self.no_ops == "keep":
                words = action.replace("_", " ")
                kept.append(Transition(to_png(before), to_png(after), words, episode=name, step=step))
            before = after
            if ended:
                break
        return kept


class CrafterDataModule(WorldDataModule):
    """Crafter's open world as pictures, random walks.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(
        self,
        recorder: CrafterRecorder = CrafterRecorder(),  # noqa: B008  # holds options only
        path: str = "data/crafter",
        **transitions: Any,
    ) -> None:
        super().__init__(recorder, path, **transitions)


class _Ordered(dict[Any, None]):
    """A set in the order of insertion."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]


def _put_in_order(world: Any) -> None:
    """Crafter draws creatures out of sets, which are in the order of memory addresses: this leaves those draws to the seed."""
    chunks: defaultdict[Any, _Ordered] = defaultdict(_Ordered)
    for thing in world.objects:
        chunks[world.chunk_key(thing.pos)].add(thing)
    world._chunks = chunks
