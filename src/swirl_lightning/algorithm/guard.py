"""Held-out labelled pairs decide after each phase whether it is kept: an iteration that hurts is undone, and said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from swirl_lightning.types import Role, Transition
from swirl_lightning.world_model.inference import Inference


@dataclass(frozen=True)
class GuardSettings:
    """When a phase is undone. Validation pairs decide, never test ones.

    The rule compares pair by pair with the best that was kept: a phase is undone where its sum of differences is below zero by
    more than ``margin`` standard errors, of answers by more than ``margin * sqrt(broken + mended)``. With one standard
    error, a phase that changes nothing is undone by chance one time in six, and then nothing is lost.

    Attributes:
        margin: Standard errors; 0 undoes any loss.
        measure: Right answers, greedy (``exact_match``), or log-probability of the true answers (``likelihood``), which says
            more where answers are long and never right as a whole.
        limit: Validation pairs looked at; None for all.
    """

    margin: float = 1.0
    measure: Literal["exact_match", "likelihood"] = "exact_match"
    limit: int | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the field.
        """
        if not self.margin >= 0:
            raise ValueError(f"guard.margin must be >= 0, got {self.margin}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"guard.limit must be at least 1, got {self.limit}")


@dataclass
class PhaseGuard:
    """Remembers how good the best kept models are, pair by pair.

    Attributes:
        settings: The rule.
        inference: Asks the models.
        pairs: Labelled validation transitions.
        patience: As many phases in a row, undone, and nothing helps any more.
        agree: Makes the ranks hold one measure, whatever another machine's rounding.
        say: Tells the user.
    """

    settings: GuardSettings
    inference: Inference
    pairs: Sequence[Transition]
    patience: int
    agree: Callable[[list[float]], list[float]]
    say: Callable[[str], None]
    _best: dict[Role, list[float]] = field(default_factory=dict)
    _undone: int = 0  # phases in a row

    @property
    def finished(self) -> bool:
        """Whether nothing helps any more."""
        return self._undone >= self.patience

    def begin(self, policy: Role) -> None:
        """Measures what the phase of a policy is about to change, where that is not known yet."""
        for role in self.inference.world_model.moved_with(policy):
            if role not in self._best:
                self._best[role] = self._measure(role)

    def end(self, policy: Role, label: str) -> dict[str, float]:
        """Keeps a phase, or undoes it and says so.

        Args:
            policy: the role that it trained.
            label: the phase's name.

        Returns:
            What was measured, to be logged.
        """
        world_model = self.inference.world_model
        after = {role: self._measure(role) for role in world_model.moved_with(policy)}
        kept = not any(is_worse(self._best[role], values, self.settings.margin) for role, values in after.items())
        if kept:
            self._undone = 0
            self._best |= {role: values for role, values in after.items() if sum(values) >= sum(self._best[role])}
        else:
            self._undone += 1
            world_model.undo(policy)
            name = self.settings.measure.replace("_", " ")
            words = [f"{r.upper()} {name} {_mean(self._best[r]):.3f} -> {_mean(values):.3f}" for r, values in after.items()]
            self.say(f"{label} is undone; on {len(self.pairs)} validation pairs: {', '.join(words)}")
            if self.finished:
                self.say(f"the last {self._undone} phases were undone: the run ends with what it has")
        return {"guard/kept": float(kept), **{f"guard/{role.value}": _mean(values) for role, values in after.items()}}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": {role.value: values for role, values in self._best.items()}, "undone": self._undone}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state``."""
        self._best = {Role(role): list(values) for role, values in state["best"].items()}
        self._undone = state["undone"]

    def _measure(self, role: Role) -> list[float]:
        pairs = self.pairs
        if self.settings.measure == "exact_match":
            return self.agree([float(right) for right in self.inference.right_answers(role, pairs)])
        return self.agree(self.inference.answer_logprobs(role, pairs))


def warn_without_pairs(settings: GuardSettings | None, pairs: Sequence[Transition], say: Callable[[str], None]) -> None:
    """Says that a guard is off where nothing could decide."""
    if settings is not None and not pairs:
        say("model.guard is off: the data have no validation pairs that could decide (data.val_fraction)")


def is_worse(before: Sequence[float], after: Sequence[float], margin: float) -> bool:
    """Whether ``after`` lost more than ``margin`` standard errors of the paired difference, which is taken to be zero."""
    differences = [b - a for a, b in zip(before, after, strict=True)]
    return sum(differences) < -margin * math.sqrt(sum(d * d for d in differences))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
