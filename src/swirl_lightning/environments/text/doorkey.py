"""MiniGrid's DoorKey rooms as text with a fixed slot for everything: the quickstart's world.

    context     size 6 6 ; door 3 1 ; goal 4 4
    state       agent 2 4 west ; key 2 3 ; door locked

The agent turns and walks, takes the key, drops it, unlocks, opens and closes the door. What never changes within an episode is
context, not state: a model that predicts states then spends its capacity on what actions do. A state always has the same slots
in the same order (a carried key is ``key in hand``).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.text.minigrid import DIRECTIONS, DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE, MiniGridRecorder

ROOMS = ("MiniGrid-DoorKey-5x5-v0", "MiniGrid-DoorKey-6x6-v0", "MiniGrid-DoorKey-8x8-v0")


@dataclass
class DoorKeyRecorder(MiniGridRecorder):
    """Records DoorKey episodes; options as of the MiniGrid recorder.

    Attributes:
        wander: Probability of walking on where the way is free, rather than turning.
    """

    env_ids: Sequence[str] = ROOMS
    wander: float = 0.6

    def context(self, env: Any) -> str:
        """What stays as it is: the room and where its door and goal are."""
        places = {thing.type: f"{thing.type} {i} {j}" for i, j, thing in _things(env) if thing.type in ("door", "goal")}
        return f"size {env.grid.width} {env.grid.height} ; {places['door']} ; {places['goal']}"

    def describe(self, env: Any) -> str:
        """What actions change: agent, key and the door's condition."""
        key, door = "in hand", ""
        for i, j, thing in _things(env):
            if thing.type == "key":
                key = f"{i} {j}"
            elif thing.type == "door":
                door = "open" if thing.is_open else "locked" if thing.is_locked else "closed"
        x, y = env.agent_pos
        return f"agent {x} {y} {DIRECTIONS[env.agent_dir]} ; key {key} ; door {door}"

    def phrase(self, env: Any, action: int) -> str:
        """What an action means in the present state of the simulator."""
        if action in (LEFT, RIGHT, FORWARD):
            return ("turn left", "turn right", "move forward")[action]
        if action in (PICKUP, DROP):
            return "take key" if action == PICKUP else "drop key"
        door = env.grid.get(*env.front_pos)
        return f"{'close' if door.is_open else 'unlock' if door.is_locked else 'open'} door"

    def choose(self, env: Any, rng: random.Random) -> int:
        """Takes the key and works the door where it can, otherwise wanders."""
        ahead = env.grid.get(*env.front_pos)
        kind = None if ahead is None else ahead.type
        if kind == "key" and not env.carrying and rng.random() < self.interact:
            return PICKUP
        if kind == "door" and (env.carrying or not ahead.is_locked) and rng.random() < self.interact:
            return TOGGLE
        if env.carrying and kind is None and rng.random() < self.put_down:
            return DROP
        free = kind is None or (kind == "door" and ahead.is_open)
        return FORWARD if free and rng.random() < self.wander else rng.choice((LEFT, RIGHT))


class DoorKeyDataModule(WorldDataModule):
    """MiniGrid's DoorKey rooms as text, a fixed slot a thing: the quickstart's world.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(
        self,
        recorder: DoorKeyRecorder = DoorKeyRecorder(),  # noqa: B008  # holds options only
        path: str = "data/doorkey",
        **transitions: Any,
    ) -> None:
        super().__init__(recorder, path, **transitions)


def _things(env: Any) -> Iterator[tuple[int, int, Any]]:
    for j in range(env.grid.height):
        for i in range(env.grid.width):
            if (thing := env.grid.get(i, j)) is not None:
                yield i, j, thing
