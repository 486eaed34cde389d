"""ScienceWorld (arXiv:2203.07540), the simulator itself: a house in which elementary-school science can be done, as text.

A state is what ``look around`` and ``inventory`` say before the action; the next state is what the simulator answers
(``target: observation``), or the answer with both descriptions after it (``target: full``).

The simulator draws some things itself, without a seed that could be set (which of several plants a gold path takes), so two
recordings with the same options may differ in some steps. Its server is asked directly: the wheel's own ``step`` also
enumerates every valid action, which is most of the work.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.recording.simulators import JavaSimulator
from swirl_lightning.environments.text.text_games import Game, TextGameRecorder, spread
from swirl_lightning.hints import did_you_mean

ENTRY = "scienceworld.runtime.pythonapi.PythonInterface"
SPLITS = {"train": "getVariationsTrain", "val": "getVariationsDev", "test": "getVariationsTest"}
REFUSED = ("No known action matches", "Ambiguous request", "Unknown action")
NOT_EXPLORED = {"reset task", "task", "inventory", "look around", "wait"}  # change nothing, or everything
# verbs that change the world
OFTEN: Mapping[str, float] = {"pick": 6, "move": 6, "put": 4, "open": 4, "activate": 3, "go": 2, "pour": 2, "use": 2}


@dataclass
class ScienceWorldRecorder(TextGameRecorder):
    """Records the simulator's own solutions (gold paths) and random walks, on the official splits of variations.

    Attributes:
        tasks: Names of tasks; empty for all 30.
        variations: Training variations of each task, spread evenly; null for all.
        eval_variations: The same in the dev split (our ``val``) and in the test split; 0 for none, where walks are
            split instead (``data.columns: {split: null}``).
        simplifications: The simulator's simplifications, comma-separated; ``easy`` for all.
        verbs: What walks do, with weights (``{go: 8, open: 2}``); null for everything, what changes the world more often.
    """

    package: ClassVar[str] = "scienceworld"
    at_least: ClassVar[Mapping[str, int]] = {"variations": 1, "eval_variations": 0}

    tasks: Sequence[str] = ()
    variations: int | None = 3
    eval_variations: int | None = 3
    simplifications: str = ""
    verbs: Mapping[str, float] | None = None

    def _open(self) -> JavaSimulator:
        return JavaSimulator("scienceworld", "scienceworld.jar", ENTRY, "scienceworld", self.timeout)

    def _levels(self, simulator: JavaSimulator) -> Iterator[tuple[str, str]]:
        known = simulator.ask("getTaskNames")
        for task in self.tasks or known:
            if task not in known:
                raise ValueError(f"{self.package}: tasks: there is no {task!r}{did_you_mean(task, known)}")
            simulator.ask("load", task, 0, self.simplifications, False)  # some bring verbs of their own
            self._check_verbs({template.split()[0] for template in _templates(simulator)})
            for split, method in SPLITS.items():
                count = self.variations if split == "train" else self.eval_variations
                for variation in spread(simulator.ask(method), count):
                    yield f"{task}/{variation}", split

    def _start(self, simulator: JavaSimulator, name: str, number: int, split: str) -> Game:
        simulator.ask("load", name, number, self.simplifications, True)
        return _Game(simulator, self.verbs)

    def _check_verbs(self, known: Collection[str]) -> None:
        if self.verbs is not None and not self.verbs:
            raise ValueError(f"{self.package}: verbs: name one at least, or null for all")
        for verb, weight in (self.verbs or {}).items():
            if verb not in known:
                raise ValueError(f"{self.package}: verbs: there is no {verb!r}{did_you_mean(verb, sorted(known))}")
            if not 0 < weight < math.inf:
                raise ValueError(f"{self.package}: verbs: the weight of {verb!r} must be positive and finite, got {weight}")


class ScienceWorldDataModule(WorldDataModule):
    """ScienceWorld's rooms and science as text: gold paths and walks.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(
        self,
        recorder: ScienceWorldRecorder = ScienceWorldRecorder(),  # noqa: B008  # holds options only
        path: str = "data/scienceworld",
        **transitions: Any,
    ) -> None:
        super().__init__(recorder, path, **transitions)


def _templates(simulator: JavaSimulator) -> list[str]:
    return [str(template) for template in simulator.ask("getPossibleActions") if template not in NOT_EXPLORED]


class _Game(Game):
    def __init__(self, simulator: JavaSimulator, verbs: Mapping[str, float] | None = None) -> None:
        self._simulator, self._verbs = simulator, verbs
        self.path = [str(action) for action in simulator.ask("getGoldActionSequence")]
        self.task = str(simulator.ask("getTaskDescription"))
        simulator.ask("reset")
        simulator.ask("step", "look around")
        self._look()

    def _look(self) -> None:
        self.state = f"{self._simulator.ask('freeActionLook')}\n{self._simulator.ask('freeActionInventory')}".strip()

    def step(self, action: str) -> str | None:
        answer = str(self._simulator.ask("step", action)).strip()
        if answer.startswith(REFUSED):
            if answer.startswith("Ambiguous request"):
                self._simulator.ask("step", "")  # cancels the question
            return None
        self.done = bool(self._simulator.ask("getCompleted"))
        self._look()
        return answer

    def draw(self, rng: random.Random) -> str:
        """A kind of action, then things that are here; only through doors can one go."""
        templates = _templates(self._simulator)
        often = OFTEN if self._verbs is None else self._verbs
        other = 1 if self._verbs is None else 0
        weights = [often.get(template.split()[0], other) for template in templates]
        things = [str(thing) for thing in self._simulator.ask("getPossibleObjects")]
        doors = [thing for thing in things if "door" in thing] or things
        template = rng.choices(templates, weights)[0]
        choices = doors if template.startswith("go ") else things
        return " ".join(rng.choice(choices) if word == "OBJ" else word for word in template.split())
