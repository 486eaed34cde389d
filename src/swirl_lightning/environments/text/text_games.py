"""What recorders of text games share: gold paths and walks, and which of their steps become transitions.

A game is played twice: the simulator's own solution (gold path), and random walks that start after a random part of it.
A simulator's file says how it is started, which levels there are and how one is played; everything else is here.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, ClassVar, Literal

from swirl_lightning.environments.recording.jobs import JobRecorder, JobResult
from swirl_lightning.environments.recording.simulators import JavaSimulator, run_side_by_side
from swirl_lightning.types import Transition

Target = Literal["observation", "full"]
NoOps = Literal["keep", "drop", "mark"]
UNCHANGED = "Nothing visible changes.\n"
TRIES = 10  # actions that a walk draws for a step, at most, while the game does not understand them


class Game(ABC):
    """A level being played.

    Attributes:
        task: What is to be done, in words.
        path: The simulator's own solution; may be empty.
        state: What can be seen now.
        done: Won or lost; no further step is played.
    """

    task: str
    path: Sequence[str]
    state: str
    done: bool = False

    @abstractmethod
    def step(self, action: str) -> str | None:
        """Plays an action; the game's answer, or None where it did not understand."""

    @abstractmethod
    def draw(self, rng: random.Random) -> str | None:
        """A random action for here; None where there is none."""


@dataclass
class TextGameRecorder(JobRecorder):
    """Records the simulator's own solutions (gold paths) and random walks of its levels, on its official splits.

    Attributes:
        gold: Record the gold path of every level.
        explore: Random walks of every level.
        explore_from: A walk starts after a random part of the ``gold`` path, or at the level's ``start``.
        explore_steps: Steps of a walk.
        max_gold_steps: Record at most so many steps of a gold path, evenly chosen; null for all. All are played.
        target: ``observation`` predicts the game's answer only; ``full`` also what can be seen after it.
        no_ops: Steps after which what can be seen reads as before: ``keep``, ``drop``, or ``mark`` (the next state begins
            with "Nothing visible changes."). They are counted in the manifest in any case.
        seed: Seed of the random walks.
        workers: Simulators side by side, a JVM each.
        timeout: Seconds that one answer of the simulator may take.
    """

    package: ClassVar[str]
    """Distribution that brings the simulator."""
    at_least: ClassVar[Mapping[str, int]] = {}
    """Options of the simulator's own that are null, or no less than this."""

    gold: bool = True
    explore: int = 1
    explore_from: Literal["gold", "start"] = "gold"
    explore_steps: int = 20
    max_gold_steps: int | None = 40
    target: Target = "observation"
    no_ops: NoOps = "keep"
    seed: int = 0
    workers: int = 2
    timeout: float = 60.0
    _splits: dict[str, str] = field(default_factory=dict, init=False, repr=False)  # job -> split

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: naming the option.
        """
        for name, least in {**self.at_least, "max_gold_steps": 1, "explore_steps": 1, "workers": 1}.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{self.package}: {name} must be at least {least}, got {value}")
        if self.timeout <= 0 or self.explore < 0 or not (self.gold or self.explore):
            raise ValueError(f"{self.package}: timeout must be positive, and gold or explore must be on")

    @abstractmethod
    def _open(self) -> JavaSimulator:
        """Starts a simulator."""

    @abstractmethod
    def _levels(self, simulator: JavaSimulator) -> Iterable[tuple[str, str]]:
        """Levels (``name/number``) with their official splits.

        Raises:
            ValueError: for an option that the simulator does not know.
        """

    @abstractmethod
    def _start(self, simulator: JavaSimulator, name: str, number: int, split: str) -> Game:
        """A level at its beginning."""

    def jobs(self) -> Sequence[str]:
        """One job a gold path and a walk: ``name/number/gold``, ``name/number/walk-0``."""
        if not self._splits:
            kinds = [*(["gold"] if self.gold else []), *(f"walk-{k}" for k in range(self.explore))]
            simulator = self._open()
            try:
                self._splits = {f"{level}/{kind}": split for level, split in self._levels(simulator) for kind in kinds}
            finally:
                simulator.close()
        return list(self._splits)

    def split_of(self, episode: str) -> str | None:
        """The official split of an episode's level."""
        return self._splits[episode]

    def manifest(self) -> dict[str, Any]:
        """Simulator, version, options and counts."""
        name = {"simulator": self.package, "version": version(self.package)}
        return {**name, **self.options(), "recorder_counts": dict(self.counts)}

    def run(self, jobs: Sequence[str]) -> Iterator[tuple[str, JobResult]]:
        """Runs jobs on several simulators."""
        return run_side_by_side(jobs, self._open, self._episode, self.workers)

    def _episode(self, simulator: JavaSimulator, job: str) -> JobResult:
        name, number, kind = job.split("/")
        game = self._start(simulator, name, int(number), self._splits[job])
        log = GameLog(job, game, self.target, self.no_ops)
        if not game.path:
            log.counts["levels without a gold path"] += 1
        if kind == "gold":
            keep = {i for i, _ in spread(list(enumerate(game.path)), self.max_gold_steps)}
            for i, action in enumerate(game.path):
                if not log.play(action, keep=i in keep):
                    break
        else:
            rng = random.Random(f"{self.seed}/{job}")
            played = rng.randrange(max(1, len(game.path))) if self.explore_from == "gold" else 0
            for action in game.path[:played]:
                log.play(action, keep=False)
            self._walk(game, log, rng)
        return JobResult(log.kept, dict(log.counts))

    def _walk(self, game: Game, log: GameLog, rng: random.Random) -> None:
        taken = 0
        for _ in range(TRIES * self.explore_steps):
            if taken == self.explore_steps or game.done or (action := game.draw(rng)) is None:
                return
            taken += log.play(action, keep=True)


class GameLog:
    """Plays an episode, keeps its transitions, and counts what was left out or marked.

    Args:
        episode: Its name.
        game: At its beginning.
        target: The next state is the game's answer (``observation``), or the answer with what can be seen after it (``full``).
        no_ops: Steps after which what can be seen reads as before: ``keep``, ``drop``, or ``mark`` (the next state begins with
            ``UNCHANGED``).
    """

    def __init__(self, episode: str, game: Game, target: Target, no_ops: NoOps) -> None:
        self.episode, self.game = episode, game
        self.target, self.no_ops = target, no_ops
        self.kept: list[Transition] = []
        self.counts: Counter[str] = Counter()
        self._step = 0

    def play(self, action: str, *, keep: bool) -> bool:
        """Plays an action; nothing happens after the end.

        Args:
            action: what is done.
            keep: make the step a transition; otherwise it is only counted.

        Returns:
            Whether a step was played: False after the end, or where the game did not understand the action.
        """
        if self.game.done:
            return False
        before = self.game.state
        answer = self.game.step(action)
        if answer is None:
            self.counts["refused actions"] += 1
            return False
        self._add(before, action, answer, keep)
        self._step += 1
        return True

    def _add(self, before: str, action: str, answer: str, keep: bool) -> None:
        if not keep:
            self.counts["steps played, not recorded"] += 1
            return
        state = self.game.state
        same = before == state
        self.counts["no-op steps"] += same
        if same and self.no_ops == "drop":
            self.counts["no-op steps dropped"] += 1
            return
        after = answer if self.target == "observation" else f"{answer}\n{state}".strip()
        if same and self.no_ops == "mark":
            after = UNCHANGED + after
        context, episode = self.game.task, self.episode
        self.kept.append(Transition(before, after, action, context=context, episode=episode, step=self._step))


def spread(values: Sequence[Any], count: int | None) -> list[Any]:
    """Evenly spaced members, all of them where there are no more than ``count``."""
    if count is None or len(values) <= count:
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]
