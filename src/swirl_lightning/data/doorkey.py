"""MiniGrid's DoorKey rooms as text with a fixed slot for everything: the quickstart's world.

    agent 2 4 west ; key 2 3 ; door 3 1 locked ; goal 4 4

The agent turns and walks, takes the key, drops it, unlocks, opens and closes the door. A state always has the same slots in
the same order (a carried key is ``key in hand``), so that even a tiny language model spends its capacity on what actions do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swirl_lightning.data.minigrid import DIRECTIONS, DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE, MiniGridRecorder

ROOMS = ("MiniGrid-DoorKey-5x5-v0", "MiniGrid-DoorKey-6x6-v0", "MiniGrid-DoorKey-8x8-v0")


@dataclass
class DoorKeyRecorder(MiniGridRecorder):
    """Records DoorKey episodes; options as of the MiniGrid recorder.

    Attributes:
        wander: probability of walking on where the way is free, rather than turning.
    """

    env_ids: Sequence[str] = ROOMS
    wander: float = 0.6

    def describe(self, env: Any) -> str:
        """The simulator's full state as text, one slot a thing."""
        slots = {"key": "in hand"}
        for j in range(env.grid.height):
            for i in range(env.grid.width):
                thing = env.grid.get(i, j)
                if thing is None or thing.type not in ("key", "door", "goal"):
                    continue
                slots[thing.type] = f"{i} {j}"
                if thing.type == "door":
                    slots["door"] += " open" if thing.is_open else " locked" if thing.is_locked else " closed"
        x, y = env.agent_pos
        agent = f"agent {x} {y} {DIRECTIONS[env.agent_dir]}"
        return " ; ".join([agent, *(f"{name} {slots[name]}" for name in ("key", "door", "goal"))])

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
