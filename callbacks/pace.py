"""How long the rest of a run takes, by what its phases took so far."""

from __future__ import annotations

import time
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
    _epochs: dict[Phase, float] = field(default_factory=dict)  # seconds of the last epoch of each phase
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
        self._epochs[schedule.phase(epoch)] = self._seconds_per_step(steps) * steps
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
        step = self._seconds_per_step(done)
        known = self._epochs | {schedule.phase(epoch): step * steps}
        later = [schedule.phase(number) for number in range(epoch + 1, epochs)]
        pauses = sum(schedule.ends_phase(number) for number in range(epoch, epochs)) * self._between
        seconds = step * (steps - done) + sum(known.get(phase, 0.0) for phase in later) + pauses
        return seconds, all(phase in known for phase in later)

    def _seconds_per_step(self, done: int) -> float:
        return (self.clock() - self._began) / max(1, done - self._first)


def time_left(seconds: float, exact: bool) -> str:
    """Seconds as a person reads them: ``0:12:30 left``."""
    return f"{'' if exact else 'over '}{timedelta(seconds=round(seconds))} left"
