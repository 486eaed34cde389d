"""TextWorldExpress (arXiv:2208.01174), the simulator itself: cooking, coins, maps, sorting and other small text games.

A state is the room and the inventory before the action; the next state is what the game answers (``target: observation``), or
the answer with both after it (``full``). Games without rooms (``simonsays``) have no such description: there a state is what
the game said last. The same options give the same transitions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.recording.simulators import JavaSimulator
from swirl_lightning.environments.text.text_games import Game, TextGameRecorder, spread
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

    def _start(self, simulator: JavaSimulator, name: str, number: int, split: str) -> Game:
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
        self.done = bool(result["tasksuccess"] or result["taskfailure"])
        answer = str(result["observation"]).strip()
        self.state = "\n".join(str(result[part]).strip() for part in ("look", "inventory")).strip() or answer
        return answer

    def step(self, action: str) -> str:
        return self._take(json.loads(self._simulator.ask("stepJSON", action)))

    def draw(self, rng: random.Random) -> str | None:
        actions = sorted(set(self._actions) - NOT_EXPLORED)
        return rng.choice(actions) if actions else None
