"""How long the rest of a run takes, by what its phases took so far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from swirl_lightning.algorithm.schedule import PhaseSchedule
from swirl_lightning.types import Phase


@dataclass
class Pace:
    """Times the epochs of each phase, and what comes between two phases.

    Attributes:
        clock: Seconds since whenever.
    """

    clock: Callable[[], float] = time.monotonic
    _seconds: dict[Phase, float] = field(default_factory=dict)  # of the timed steps of finished epochs
    _timed: Counter[Phase] = field(default_factory=Counter)  # how many those are
    _steps: dict[Phase, int] = field(default_factory=dict)  # steps of an epoch
    _between: float = 0.0  # seconds of the last evaluation and export after a phase
    _began: float = 0.0  # when the epoch's first timed step did
    _first: int = 0  # steps of the epoch before that one: a run that resumes inside an epoch did not time them
    _phase_ended: float | None = None

    def starts(self, done: int) -> None:
        """Steps begin to be timed, ``done`` steps after the start of their epoch."""
        self._began, self._first = self.clock(), done
        if self._phase_ended is not None:
            self._between, self._phase_ended = self._began - self._phase_ended, None

    def ends(self, schedule: PhaseSchedule, epoch: int, steps: int) -> None:
        """An epoch of ``steps`` steps is over; what follows is not part of it."""
        phase = schedule.phase(epoch)
        self._seconds[phase] = self._seconds.get(phase, 0.0) + self.clock() - self._began
        self._timed[phase] += steps - self._first
        self._steps[phase] = steps
        if schedule.ends_phase(epoch):
            self._phase_ended = self.clock()

    def left(self, schedule: PhaseSchedule, epochs: int, epoch: int, done: int, steps: int) -> tuple[float, bool]:
        """Seconds that the rest of the run takes.

        Args:
            schedule: which phase an epoch belongs to.
            epochs: of the whole run.
            epoch: the current one.
            done: its finished steps, at least one of them timed.
            steps: its steps.

        Returns:
            Seconds, and whether every phase to come was timed: otherwise they are the least.
        """
        now = schedule.phase(epoch)
        seconds = self._seconds | {now: self._seconds.get(now, 0.0) + self.clock() - self._began}
        timed = self._timed + Counter({now: done - self._first})
        later = [schedule.phase(number) for number in range(epoch + 1, epochs)]
        known = {phase: seconds[phase] / timed[phase] for phase in timed}  # seconds a step
        to_come = Counter({now: steps - done})
        for phase in later:
            to_come[phase] += steps if phase is now else self._steps.get(phase, 0)
        pauses = sum(schedule.ends_phase(number) for number in range(epoch, epochs)) * self._between
        rest = sum(known.get(phase, 0.0) * count for phase, count in to_come.items()) + pauses
        return rest, all(phase in known for phase in later)


def time_left(seconds: float, exact: bool) -> str:
    """Seconds as a person reads them: ``0:12:30 left``."""
    return f"{'' if exact else 'over '}{timedelta(seconds=round(seconds))} left"
