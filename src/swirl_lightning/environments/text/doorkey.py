"""MiniGrid's DoorKey rooms as text with a fixed slot for everything: the quickstart's world.

    context     size 6 6 ; door 3 1 ; goal 4 4
    state       agent 2 4 west ; key 2 3 ; door locked

The agent turns and walks, takes the key, drops it, unlocks, opens and closes the door. What never changes within an episode is
context, not state: a model that predicts states then spends its capacity on what actions do. A state always has the same slots
in the same order (a carried key is ``key in hand``).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from typing_extensions import override

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.registry import require
from swirl_lightning.environments.text.minigrid import DIRECTIONS, DROP, FORWARD, LEFT, PICKUP, RIGHT, TOGGLE, MiniGridRecorder
from swirl_lightning.evaluation.planning import Outcome, PlanningTask

MOVES = {
    **{"turn left": LEFT, "turn right": RIGHT, "move forward": FORWARD, "take key": PICKUP, "drop key": DROP},
    **dict.fromkeys(("unlock door", "open door", "close door"), TOGGLE),
}
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


class DoorKeyTask(PlanningTask):
    """DoorKey rooms in which the agent is to get to the goal.

    Seed k is the room that MiniGrid makes of ``2 ** 40 + k``, beyond the seeds of recordings. There are only 48 rooms of 5 x 5,
    which any recording holds, so larger ones are played.

    A state's value is minus the moves that are left where turns cost nothing: to the key, to the door, through it, to the goal.

    Args:
        rooms: Environment ids, used in turn.
    """

    def __init__(self, rooms: Sequence[str] = ROOMS[1:]) -> None:
        require("minigrid", "minigrid")
        self._rooms, self._make = rooms, require("gymnasium", "minigrid").make
        self._text = DoorKeyRecorder()
        self._games: dict[int, _Game] = {}

    @override
    def play(self, seed: int, actions: Sequence[str]) -> Outcome:
        game = self._games.get(seed)
        if game is None or game.played != list(actions[: len(game.played)]):  # otherwise it goes on where it stands
            room = self._rooms[seed % len(self._rooms)]
            env = game.env if game else self._make(room, agent_view_size=3).unwrapped  # views are not looked at
            env.reset(seed=2**40 + seed)
            game = self._games[seed] = _Game(env)
        for action in actions[len(game.played) :]:
            _, gained, game.reached, _, _ = game.env.step(MOVES[action])
            game.reward += float(gained)
            game.played.append(action)
        described = self._text.describe(game.env), self._text.context(game.env)
        return Outcome(*described, game.reached, game.reached, game.reward)

    @override
    def read(self, answer: str) -> str | None:
        return answer if _STATE.fullmatch(answer) else None

    @override
    def actions(self, state: str, context: str) -> Sequence[str]:
        """Steps that do something, the only ones that a recording holds: nobody walks into a wall."""
        room = _room(state, context)
        turns = ["turn left", "turn right"]
        if room.ahead == room.key:
            return [*turns, "take key"]
        if room.ahead == room.door:
            unlock = ["unlock door"] if room.key is None else []
            return turns + {"locked": unlock, "closed": ["open door"], "open": ["move forward", "close door"]}[room.condition]
        x, y = room.ahead
        if x in (0, room.size[0] - 1, room.door[0]) or y in (0, room.size[1] - 1):
            return turns
        return [*turns, "move forward", *(["drop key"] if room.key is None and room.ahead != room.goal else [])]

    @override
    def value(self, state: str, context: str) -> float:
        room = _room(state, context)
        if room.agent[0] >= room.door[0]:
            return -_moves(room.agent, room.goal)
        places = [room.door, room.goal]
        if room.condition == "locked" and room.key is not None:
            places.insert(0, room.key)
        hands = {"locked": len(places) - 1, "closed": 1, "open": 0}[room.condition]  # to take the key, to work the door
        return -hands - sum(map(_moves, [room.agent, *places], places))


@dataclass
class _Game:
    """An episode being played."""

    env: Any
    played: list[str] = field(default_factory=list)
    reached: bool = False
    reward: float = 0.0


_Place = tuple[int, int]
_NUMBERS = r"(\d+) (\d+)"
_STATE = re.compile(rf"agent {_NUMBERS} ({'|'.join(DIRECTIONS)}) ; key (?:{_NUMBERS}|in hand) ; door (locked|closed|open)")


class _Room(NamedTuple):
    """A state with its context, as numbers."""

    agent: _Place
    ahead: _Place
    key: _Place | None  # None: in hand
    condition: str  # of the door
    size: _Place
    door: _Place
    goal: _Place


@lru_cache(maxsize=1 << 16)  # the same states again and again
def _room(state: str, context: str) -> _Room:
    match = _STATE.fullmatch(state)
    assert match is not None, state
    x, y = int(match[1]), int(match[2])
    east, south = ((1, 0), (0, 1), (-1, 0), (0, -1))[DIRECTIONS.index(match[3])]
    size, door, goal = [(int(i), int(j)) for i, j in re.findall(_NUMBERS, context)]
    key = None if match[4] is None else (int(match[4]), int(match[5]))
    return _Room((x, y), (x + east, y + south), key, match[6], size, door, goal)


def _moves(one: _Place, other: _Place) -> int:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])
