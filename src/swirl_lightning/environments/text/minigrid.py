"""MiniGrid (Farama) as a text world: what stands where, in the simulator's own full grid.

A state names the agent, then every object in reading order, then what the agent carries::

    agent 2 4 west ; yellow door 3 1 locked ; yellow key 2 3 ; goal 4 4

Actions are phrases that name what they act on: ``move forward``, ``pick up the yellow key``, ``unlock the yellow door``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.registry import require
from swirl_lightning.types import Transition

DIRECTIONS = ("east", "south", "west", "north")
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)
FAMILIES = (
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-DoorKey-6x6-v0",
    "MiniGrid-Fetch-5x5-N2-v0",
    "MiniGrid-Fetch-6x6-N2-v0",
    "MiniGrid-PutNear-6x6-N2-v0",
    "MiniGrid-GoToObject-6x6-N2-v0",
)
PARAPHRASES = {
    "turn left": ("turn left", "rotate left", "face left"),
    "turn right": ("turn right", "rotate right", "face right"),
    "move forward": ("move forward", "go ahead", "step forward"),
    "pick up": ("pick up", "take", "grab"),
    "take": ("take", "grab", "pick up"),
    "drop": ("drop", "put down", "release"),
    "open": ("open", "pull open"),
    "close": ("close", "shut"),
    "unlock": ("unlock", "use the key on"),
    "turn": ("turn to", "rotate to", "face"),
    "move": ("move", "go", "step"),
}


@dataclass
class MiniGridRecorder:
    """Records episodes of several MiniGrid families, with a policy that seeks objects and otherwise wanders.

    Attributes:
        env_ids: Environment ids, used in turn.
        n_episodes: Episodes in all.
        max_steps: Simulator steps of an episode.
        seed: Seed of worlds and policy; episode k of a seed is always the same.
        interact: Probability of acting on an object that the agent faces.
        put_down: Probability of dropping what is carried onto a free cell ahead.
        headings: How movements are named: ``relative`` to the agent (``turn left``, ``move forward``) or by ``compass``
            (``turn north``, ``move east``).
        no_ops: Steps that change nothing: ``drop`` (counted in the manifest; no IDM can name them) or ``keep``.
        wording: ``plain``, or ``varied`` for one of several paraphrases, which makes the wording of actions ambiguous.
        slip: Probability that the simulator executes a random movement instead of the recorded action.
    """

    env_ids: Sequence[str] = FAMILIES
    n_episodes: int = 400
    max_steps: int = 40
    seed: int = 0
    interact: float = 0.85
    put_down: float = 0.3
    headings: Literal["relative", "compass"] = "relative"
    no_ops: Literal["drop", "keep"] = "drop"
    wording: Literal["plain", "varied"] = "plain"
    slip: float = 0.0
    dropped_no_ops: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: naming the option.
        """
        if not self.env_ids or self.n_episodes < 1 or self.max_steps < 1:
            raise ValueError("minigrid: env_ids, n_episodes and max_steps must name at least one each")
        for name in ("slip", "interact", "put_down"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"minigrid: {name} is a probability, got {getattr(self, name)}")

    def episodes(self) -> int:
        """Number of episodes that ``record`` yields."""
        return self.n_episodes

    def manifest(self) -> dict[str, Any]:
        """Simulator, version and options."""
        return {
            "simulator": "minigrid",
            "version": version("minigrid"),
            "env_ids": list(self.env_ids),
            "episodes": self.n_episodes,
            "max_steps": self.max_steps,
            "seed": self.seed,
            "interact": self.interact,
            "put_down": self.put_down,
            "headings": self.headings,
            "wording": self.wording,
            "slip": self.slip,
            "no_ops": self.no_ops,
            "dropped_no_ops": self.dropped_no_ops,
        }

    def record(self) -> Iterator[list[Transition]]:
        """Yields episodes; those without a single kept step are empty lists."""
        require("minigrid", "minigrid")
        gymnasium = require("gymnasium", "minigrid")
        self.dropped_no_ops = 0
        for k in range(self.n_episodes):
            env = gymnasium.make(self.env_ids[k % len(self.env_ids)]).unwrapped
            world_seed = self.seed * 1_000_003 + k
            env.reset(seed=world_seed)
            yield self._episode(env, f"{self.env_ids[k % len(self.env_ids)]}/{world_seed}", random.Random(world_seed))
            env.close()

    def _episode(self, env: Any, name: str, rng: random.Random) -> list[Transition]:
        kept: list[Transition] = []
        context = self.context(env)
        for step in range(self.max_steps):
            action = self.choose(env, rng)
            before, phrase = self.describe(env), self._word(self.phrase(env, action), rng)
            executed = rng.choice((LEFT, RIGHT, FORWARD)) if rng.random() < self.slip else action
            _, _, ended, cut, _ = env.step(executed)
            after = self.describe(env)
            if after == before and self.no_ops == "drop":
                self.dropped_no_ops += 1
            else:
                kept.append(Transition(before, after, phrase, context, name, step))
            if ended or cut:
                break
        return kept

    def context(self, env: Any) -> str:
        """What does not change within an episode and is not predicted."""
        return ""

    def describe(self, env: Any) -> str:
        """The simulator's full state as text."""
        return describe(env)

    def phrase(self, env: Any, action: int) -> str:
        """What an action means in the present state of the simulator."""
        return action_phrase(env, action, self.headings)

    def choose(self, env: Any, rng: random.Random) -> int:
        """The behaviour policy."""
        facing = env.grid.get(*env.front_pos)
        kind = None if facing is None else facing.type
        if kind in ("key", "ball", "box") and not env.carrying and rng.random() < self.interact:
            return PICKUP
        if kind == "door" and rng.random() < self.interact:
            return TOGGLE
        if env.carrying and facing is None and rng.random() < self.put_down:
            return DROP
        choice = rng.choice((LEFT, RIGHT, FORWARD, FORWARD, FORWARD))
        if choice == FORWARD and kind in ("lava", "goal"):  # would end the episode
            choice = rng.choice((LEFT, RIGHT))
        return choice

    def _word(self, phrase: str, rng: random.Random) -> str:
        if self.wording == "plain":
            return phrase
        verb = next((verb for verb in PARAPHRASES if phrase.startswith(verb)), phrase.split()[0])
        return rng.choice(PARAPHRASES[verb]) + phrase.removeprefix(verb)


class MiniGridDataModule(WorldDataModule):
    """MiniGrid's grid worlds as compact text.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(
        self,
        recorder: MiniGridRecorder = MiniGridRecorder(),  # noqa: B008  # holds options only
        path: str = "data/minigrid",
        **transitions: Any,
    ) -> None:
        super().__init__(recorder, path, **transitions)


def describe(env: Any) -> str:
    """The simulator's full state as text: agent, objects in reading order, what is carried."""
    x, y = env.agent_pos
    parts = [f"agent {x} {y} {DIRECTIONS[env.agent_dir]}"]
    for j in range(env.grid.height):
        for i in range(env.grid.width):
            thing = env.grid.get(i, j)
            if thing is None or thing.type == "wall":
                continue
            if thing.type == "door":
                condition = "open" if thing.is_open else "locked" if thing.is_locked else "closed"
                parts.append(f"{thing.color} door {i} {j} {condition}")
            elif thing.type in ("goal", "lava"):
                parts.append(f"{thing.type} {i} {j}")
            else:
                parts.append(f"{thing.color} {thing.type} {i} {j}")
    if env.carrying:
        parts.append(f"holding {env.carrying.color} {env.carrying.type}")
    return " ; ".join(parts)


def action_phrase(env: Any, action: int, headings: Literal["relative", "compass"] = "relative") -> str:
    """What an action means in the present state of the simulator."""
    if headings == "compass" and action in (LEFT, RIGHT, FORWARD):
        quarter = {LEFT: -1, RIGHT: 1, FORWARD: 0}[action]
        verb = "move" if action == FORWARD else "turn"
        return f"{verb} {DIRECTIONS[(env.agent_dir + quarter) % 4]}"
    if action in (LEFT, RIGHT, FORWARD):
        return ("turn left", "turn right", "move forward")[action]
    if action == DROP:
        return f"drop the {env.carrying.color} {env.carrying.type}"
    facing = env.grid.get(*env.front_pos)
    thing = f"the {facing.color} {facing.type}"
    if action == PICKUP:
        return f"pick up {thing}"
    return f"{'close' if facing.is_open else 'unlock' if facing.is_locked else 'open'} {thing}"
