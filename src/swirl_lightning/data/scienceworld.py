"""ScienceWorld (arXiv:2203.07540), the simulator itself: a house in which elementary-school science can be done, as text.

A state is what ``look around`` and ``inventory`` say before the action; the next state is what the simulator answers
(``target: observation``), or the answer with both descriptions after it (``target: full``).

The simulator draws some things itself, without a seed that could be set (which of several plants a gold path takes), so two
recordings with the same options may differ in some steps. Its server is asked directly: the wheel's own ``step`` also
enumerates every valid action, which is most of the work.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from swirl_lightning.data.jobs import JobRecorder, JobResult
from swirl_lightning.data.simulators import JavaSimulator, run_side_by_side
from swirl_lightning.data.text_games import GameLog, NoOps, Target, check_walks, spread

ENTRY = "scienceworld.runtime.pythonapi.PythonInterface"
SPLITS = {"train": "getVariationsTrain", "val": "getVariationsDev", "test": "getVariationsTest"}
REFUSED = ("No known action matches", "Ambiguous request", "Unknown action")
NOT_EXPLORED = {"reset", "task", "inventory", "look around", "wait"}  # change nothing, or everything
OFTEN = {"go": 6, "open": 4, "pick": 4, "move": 4, "put": 3, "pour": 2, "activate": 2, "use": 2}  # verbs that change the world


@dataclass
class ScienceWorldRecorder(JobRecorder):
    """Records the simulator's own solutions (gold paths) and random exploration, on the official splits of variations.

    Attributes:
        tasks: names of tasks; empty for all 30.
        variations: variations of each task in each split, spread evenly; null for all.
        gold: record the gold path of every variation.
        explore: random walks of every variation; each starts after a random part of the gold path.
        explore_steps: steps of a walk.
        max_gold_steps: record at most so many steps of a gold path, evenly chosen; null for all. All are played.
        target: ``observation`` predicts the simulator's answer only; ``full`` also the room and the inventory after it.
        no_ops: steps after which room and inventory read as before: ``keep``, ``drop``, or ``mark`` (the next state begins
            with "Nothing visible changes."). They are counted in the manifest in any case.
        simplifications: the simulator's simplifications, comma-separated; ``easy`` for all.
        seed: of the random walks.
        workers: simulators side by side, a JVM each.
        timeout: seconds that one answer of the simulator may take.
    """

    tasks: Sequence[str] = ()
    variations: int | None = 3
    gold: bool = True
    explore: int = 1
    explore_steps: int = 20
    max_gold_steps: int | None = 40
    target: Target = "observation"
    no_ops: NoOps = "keep"
    simplifications: str = ""
    seed: int = 0
    workers: int = 2
    timeout: float = 60.0
    _jobs: dict[str, str] = field(default_factory=dict, init=False, repr=False)  # job -> split

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: naming the option.
        """
        check_walks(self, "scienceworld", "variations")

    def _open(self) -> JavaSimulator:
        return JavaSimulator("scienceworld", "scienceworld.jar", ENTRY, "scienceworld", self.timeout)

    def jobs(self) -> Sequence[str]:
        """One job a gold path and a walk: ``task/variation/gold``, ``task/variation/walk-0``.

        Raises:
            ValueError: for a task that the simulator does not know.
        """
        if not self._jobs:
            simulator = self._open()
            try:
                known = simulator.ask("getTaskNames")
                for task in self.tasks or known:
                    if task not in known:
                        raise ValueError(f"scienceworld: tasks: there is no {task!r}; there are {', '.join(known)}")
                    simulator.ask("load", task, 0, "", False)
                    for split, method in SPLITS.items():
                        for variation in spread(simulator.ask(method), self.variations):
                            kinds = [*(["gold"] if self.gold else []), *(f"walk-{k}" for k in range(self.explore))]
                            self._jobs |= {f"{task}/{variation}/{kind}": split for kind in kinds}
            finally:
                simulator.close()
        return list(self._jobs)

    def split_of(self, episode: str) -> str | None:
        """The official split of an episode's variation."""
        return self._jobs[episode]

    def manifest(self) -> dict[str, Any]:
        """Simulator, version, options and counts."""
        name = {"simulator": "scienceworld", "version": version("scienceworld")}
        return {**name, **self.options(), "recorder_counts": dict(self.counts)}

    def run(self, jobs: Sequence[str]) -> Iterator[tuple[str, JobResult]]:
        """Runs jobs on several simulators."""
        return run_side_by_side(jobs, self._open, self._episode, self.workers)

    def _episode(self, simulator: JavaSimulator, job: str) -> JobResult:
        task, variation, kind = job.split("/")
        simulator.ask("load", task, int(variation), self.simplifications, True)
        path = [str(action) for action in simulator.ask("getGoldActionSequence")]
        episode = _Episode(self, simulator, job)
        if kind == "gold":
            keep = {i for i, _ in spread(list(enumerate(path)), self.max_gold_steps)}
            for i, action in enumerate(path):
                if not episode.step(action, keep=i in keep) or episode.done:
                    break
        else:
            rng = random.Random(f"{self.seed}/{job}")
            for action in path[: rng.randrange(max(1, len(path)))]:
                episode.step(action, keep=False)
            self._walk(episode, rng)
        return JobResult(episode.log.kept, dict(episode.log.counts))

    def _walk(self, episode: _Episode, rng: random.Random) -> None:
        """Random actions: a kind of action, then things that are here; what the simulator does not understand is drawn anew."""
        simulator, taken = episode.simulator, 0
        for _ in range(10 * self.explore_steps):
            if taken == self.explore_steps or episode.done:
                return
            templates = [t for t in simulator.ask("getPossibleActions") if t not in NOT_EXPLORED and not t.startswith("reset")]
            things = simulator.ask("getPossibleObjects")
            template = rng.choices(templates, [OFTEN.get(t.split()[0], 1) for t in templates])[0]
            action = " ".join(str(rng.choice(things)) if word == "OBJ" else word for word in template.split())
            taken += episode.step(action, keep=True)


class _Episode:
    """Plays actions."""

    def __init__(self, recorder: ScienceWorldRecorder, simulator: JavaSimulator, job: str) -> None:
        self.simulator, self.done = simulator, False
        context = str(simulator.ask("getTaskDescription"))
        simulator.ask("reset")
        simulator.ask("step", "look around")
        self.log = GameLog(job, context, self._look(), recorder.target, recorder.no_ops)

    def _look(self) -> str:
        return f"{self.simulator.ask('freeActionLook')}\n{self.simulator.ask('freeActionInventory')}".strip()

    def step(self, action: str, *, keep: bool) -> bool:
        """Plays an action; False where the simulator did not understand it."""
        answer = str(self.simulator.ask("step", action)).strip()
        if answer.startswith(REFUSED):
            self.log.counts["refused actions"] += 1
            if answer.startswith("Ambiguous request"):
                self.simulator.ask("step", "")  # cancels the question
            return False
        self.done = bool(self.simulator.ask("getCompleted"))
        self.log.add(action, answer, self._look(), keep=keep)
        return True
