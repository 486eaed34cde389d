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
from importlib.metadata import version
from typing import Any

from swirl_lightning.data.jobs import JobRecorder, JobResult
from swirl_lightning.data.simulators import JavaSimulator, run_side_by_side
from swirl_lightning.data.text_games import GameLog, NoOps, Target, check_walks, spread

PACKAGE, EXTRA = "textworld_express", "textworldexpress"
JAR = "textworld-express.jar"
FILES = ("twc_objects.folds.json", "cooking_world.json")
ENTRY = "textworldexpress.runtime.PythonInterface"
SPLITS = {"train": ("train", "getSeedsTrain"), "val": ("dev", "getSeedsDev"), "test": ("test", "getSeedsTest")}
NOT_EXPLORED = {"look around", "inventory", "task", "help"}  # change nothing


@dataclass
class TextWorldExpressRecorder(JobRecorder):
    """Records the simulator's own solutions (gold paths) and random exploration, on the official folds of seeds.

    Attributes:
        games: names of games; empty for all.
        seeds: seeds of each game in the training fold, spread evenly over its thousand; null for all.
        eval_seeds: the same in the dev fold (our ``val``) and in the test fold.
        params: parameters of a game, e.g. ``{coin: "numLocations=3,includeDoors=0"}``; others keep the simulator's own.
        gold: record the gold path of every seed.
        explore: random walks of every seed; each starts after a random part of the gold path.
        explore_steps: steps of a walk.
        max_gold_steps: record at most so many steps of a gold path, evenly chosen; null for all. All are played.
        target: ``observation`` predicts the game's answer only; ``full`` also the room and the inventory after it.
        no_ops: steps after which room and inventory read as before: ``keep``, ``drop``, or ``mark`` (the next state begins
            with "Nothing visible changes."). They are counted in the manifest in any case.
        seed: of the random walks.
        workers: simulators side by side, a JVM each.
        timeout: seconds that one answer of the simulator may take.
    """

    games: Sequence[str] = ()
    seeds: int | None = 10
    eval_seeds: int | None = 5
    params: Mapping[str, str] = field(default_factory=dict)
    gold: bool = True
    explore: int = 1
    explore_steps: int = 20
    max_gold_steps: int | None = 40
    target: Target = "observation"
    no_ops: NoOps = "keep"
    seed: int = 0
    workers: int = 2
    timeout: float = 60.0
    _jobs: dict[str, str] = field(default_factory=dict, init=False, repr=False)  # job -> split

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: naming the option.
        """
        check_walks(self, "textworldexpress", "seeds", "eval_seeds")

    def _open(self) -> JavaSimulator:
        return JavaSimulator(PACKAGE, JAR, ENTRY, EXTRA, self.timeout, FILES)

    def jobs(self) -> Sequence[str]:
        """One job a gold path and a walk: ``game/seed/gold``, ``game/seed/walk-0``.

        Raises:
            ValueError: for a game or a parameter that the simulator does not know.
        """
        if not self._jobs:
            simulator = self._open()
            try:
                known = simulator.ask("getGameNames")
                games = list(self.games or known)
                for option, names in (("games", games), ("params", self.params)):
                    if strange := [name for name in names if name not in known]:
                        raise ValueError(
                            f"textworldexpress: {option}: there is no {strange[0]!r}; there are {', '.join(known)}"
                        )
                for game in games:
                    self._load(simulator, game)
                counts = {"train": self.seeds, "val": self.eval_seeds, "test": self.eval_seeds}
                seeds = {split: spread(simulator.ask(method), counts[split]) for split, (_, method) in SPLITS.items()}
            finally:
                simulator.close()
            kinds = [*(["gold"] if self.gold else []), *(f"walk-{k}" for k in range(self.explore))]
            self._jobs = {
                f"{game}/{seed}/{kind}": split for game in games for split in SPLITS for seed in seeds[split] for kind in kinds
            }
        return list(self._jobs)

    def split_of(self, episode: str) -> str | None:
        """The official fold of an episode's seed."""
        return self._jobs[episode]

    def manifest(self) -> dict[str, Any]:
        """Simulator, version, options and counts."""
        name = {"simulator": "textworld-express", "version": version("textworld-express")}
        return {**name, **self.options(), "recorder_counts": dict(self.counts)}

    def run(self, jobs: Sequence[str]) -> Iterator[tuple[str, JobResult]]:
        """Runs jobs on several simulators."""
        return run_side_by_side(jobs, self._open, self._episode, self.workers)

    def _load(self, simulator: JavaSimulator, game: str) -> None:
        if message := simulator.ask("load", game, self.params.get(game, "")):
            raise ValueError(f"textworldexpress: params: {game} with {self.params.get(game, '')!r}: {message}")

    def _episode(self, simulator: JavaSimulator, job: str) -> JobResult:
        game, seed, kind = job.split("/")
        self._load(simulator, game)
        fold = SPLITS[self._jobs[job]][0]
        first = json.loads(simulator.ask("generateNewGameJSON", int(seed), fold, True))
        path = [str(action) for action in simulator.ask("getGoldActionSequence")]
        episode = _Episode(self, simulator, job, first)
        if not path:
            episode.log.counts["seeds without a gold path"] += 1
        if kind == "gold":
            keep = {i for i, _ in spread(list(enumerate(path)), self.max_gold_steps)}
            for i, action in enumerate(path):
                episode.step(action, keep=i in keep)
        else:
            rng = random.Random(f"{self.seed}/{job}")
            for action in path[: rng.randrange(max(1, len(path)))]:
                episode.step(action, keep=False)
            for _ in range(self.explore_steps):
                actions = sorted(set(episode.actions) - NOT_EXPLORED)
                if episode.done or not actions:
                    break
                episode.step(rng.choice(actions), keep=True)
        return JobResult(episode.log.kept, dict(episode.log.counts))


class _Episode:
    """Plays actions."""

    def __init__(
        self, recorder: TextWorldExpressRecorder, simulator: JavaSimulator, job: str, first: Mapping[str, Any]
    ) -> None:
        self.simulator = simulator
        self._take(first)
        task = str(simulator.ask("getTaskDescription")).strip()
        self.log = GameLog(job, task, self._state(first), recorder.target, recorder.no_ops)

    def _take(self, result: Mapping[str, Any]) -> None:
        self.actions: list[str] = result["validActions"]
        self.done = bool(result["tasksuccess"] or result["taskfailure"])

    @staticmethod
    def _state(result: Mapping[str, Any]) -> str:
        seen = "\n".join(str(result[part]).strip() for part in ("look", "inventory")).strip()
        return seen or str(result["observation"]).strip()

    def step(self, action: str, *, keep: bool) -> None:
        """Plays an action; nothing happens after the end."""
        if self.done:
            return
        result = json.loads(self.simulator.ask("stepJSON", action))
        self._take(result)
        self.log.add(action, str(result["observation"]).strip(), self._state(result), keep=keep)
