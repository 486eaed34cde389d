"""TextWorldExpress (arXiv:2208.01174), the simulator itself: cooking, coins, maps, sorting and other small text games.

A state is the room and the inventory before the action; the next state is what the game answers (``target: observation``), or
the answer with both after it (``full``). Games without rooms (``simonsays``) have no such description: there a state is what
the game said last. The same options give the same transitions.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from typing_extensions import override

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.recording.simulators import JavaSimulator
from swirl_lightning.environments.text.text_games import Game, TextGameRecorder, spread
from swirl_lightning.evaluation.planning import Outcome, PlanningTask
from swirl_lightning.hints import did_you_mean

FILES = ("twc_objects.folds.json", "cooking_world.json")
ENTRY = "textworldexpress.runtime.PythonInterface"
SPLITS = {"train": ("train", "getSeedsTrain"), "val": ("dev", "getSeedsDev"), "test": ("test", "getSeedsTest")}
NOT_EXPLORED = {"look around", "inventory", "task", "help"}  # change nothing


@dataclass
class TextWorldExpressRecorder(TextGameRecorder):
    """Records the simulator's own solutions (gold paths) and random walks of its games, on the official folds of seeds.

    Attributes:
        games: Names of games; empty for all.
        seeds: Seeds of each game in the training fold, spread evenly over its thousand; null for all.
        eval_seeds: The same in the dev fold (our ``val``) and in the test fold.
        params: Parameters of a game, e.g. ``{coin: "numLocations=3,includeDoors=0"}``; others keep the simulator's own.
    """

    package: ClassVar[str] = "textworld-express"
    at_least: ClassVar[Mapping[str, int]] = {"seeds": 1, "eval_seeds": 1}

    games: Sequence[str] = ()
    seeds: int | None = 10
    eval_seeds: int | None = 5
    params: Mapping[str, str] = field(default_factory=dict)

    def _open(self) -> JavaSimulator:
        return JavaSimulator("textworld_express", "textworld-express.jar", ENTRY, "textworldexpress", self.timeout, FILES)

    def _levels(self, simulator: JavaSimulator) -> Iterator[tuple[str, str]]:
        known = simulator.ask("getGameNames")
        games = list(self.games or known)
        for option, names in (("games", games), ("params", self.params)):
            if strange := [name for name in names if name not in known]:
                raise ValueError(f"{self.package}: {option}: there is no {strange[0]!r}{did_you_mean(strange[0], known)}")
        for game in games:
            self._load(simulator, game)
        for game in games:
            for split, (_, method) in SPLITS.items():
                for seed in spread(simulator.ask(method), self.seeds if split == "train" else self.eval_seeds):
                    yield f"{game}/{seed}", split

    def _load(self, simulator: JavaSimulator, game: str) -> None:
        if message := simulator.ask("load", game, self.params.get(game, "")):
            raise ValueError(f"{self.package}: params: {game} with {self.params.get(game, '')!r}: {message}")

    def _start(self, simulator: JavaSimulator, name: str, number: int, split: str) -> _Game:
        self._load(simulator, name)
        return _Game(simulator, json.loads(simulator.ask("generateNewGameJSON", number, SPLITS[split][0], True)))


class TextWorldExpressDataModule(WorldDataModule):
    """TextWorldExpress's small text games: gold paths and walks.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(
        self,
        recorder: TextWorldExpressRecorder = TextWorldExpressRecorder(),  # noqa: B008  # holds options only
        path: str = "data/textworldexpress",
        **transitions: Any,
    ) -> None:
        super().__init__(recorder, path, **transitions)


class _Game(Game):
    def __init__(self, simulator: JavaSimulator, first: Mapping[str, Any]) -> None:
        self._simulator = simulator
        self.path = [str(action) for action in simulator.ask("getGoldActionSequence")]
        self.task = str(simulator.ask("getTaskDescription")).strip()
        self._take(first)

    def _take(self, result: Mapping[str, Any]) -> str:
        self._actions: list[str] = result["validActions"]
        self.won, self.score = bool(result["tasksuccess"]), float(result["score"])
        self.done = self.won or bool(result["taskfailure"])
        answer = str(result["observation"]).strip()
        self.state = "\n".join(str(result[part]).strip() for part in ("look", "inventory")).strip() or answer
        return answer

    def step(self, action: str) -> str:
        return self._take(json.loads(self._simulator.ask("stepJSON", action)))

    def draw(self, rng: random.Random) -> str | None:
        actions = sorted(set(self._actions) - NOT_EXPLORED)
        return rng.choice(actions) if actions else None


class SortingTask(PlanningTask):
    """The game ``sorting``: all things into the box, the smallest quantity first; a wrong order loses.

    Seed k is the test fold's level k, which no recording has in its training split. Models must have been trained with
    ``target: full``, so that their answers end with what can be seen. A state's value is the number of things in the box, -1
    where their order is wrong.

    Args:
        timeout: Seconds that one answer of the simulator may take.
    """

    def __init__(self, timeout: float = 60.0) -> None:
        self._recorder = TextWorldExpressRecorder(games=["sorting"], timeout=timeout)
        self._simulator: JavaSimulator | None = None

    @override
    def play(self, seed: int, actions: Sequence[str]) -> Outcome:
        if self._simulator is None:
            self._simulator = self._recorder._open()
            self._levels: list[int] = self._simulator.ask(SPLITS["test"][1])
        game = self._recorder._start(self._simulator, "sorting", self._levels[seed], "test")
        for action in actions:
            game.step(action)
        return Outcome(game.state, game.task, game.won, game.done, game.score)

    @override
    def read(self, answer: str) -> str | None:
        found = _SEEN.search(answer)
        return found[0] if found else None

    @override
    def actions(self, state: str, context: str) -> Sequence[str]:
        """To take what lies about, and to put what is carried into the box."""
        about, _, carried = _things(state)
        return [*(f"take {thing}" for thing in about), *(f"put {thing} in box" for thing in carried)]

    @override
    def value(self, state: str, context: str) -> float:
        about, inside, carried = (list(map(_quantity, things)) for things in _things(state))
        ordered = inside == sorted(inside) and not (inside and min([*about, *carried], default=inside[-1]) < inside[-1])
        return len(inside) if ordered else -1

    @override
    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()


_SEEN = re.compile(r"You are in the .*\bInventory:.*", re.DOTALL)
_THING = re.compile(r"\d+(?:mg|kg|g|ml|l) of \w+")
_UNITS = {"mg": 1e-6, "g": 1e-3, "kg": 1.0, "ml": 1e-3, "l": 1.0}


def _things(state: str) -> tuple[list[str], list[str], list[str]]:
    """Quantities that lie about, are in the box, and are carried."""
    seen, _, carried = state.partition("Inventory:")
    inside = re.search(r"box, that contains ([^.]*)", seen)
    kept = _THING.findall(inside[1]) if inside else []
    return [thing for thing in _THING.findall(seen) if thing not in kept], kept, _THING.findall(carried)


def _quantity(thing: str) -> float:
    number, unit = re.findall(r"\d+|[a-z]+", thing)[:2]
    return int(number) * _UNITS[unit]
