"""What recorders of text games share: which steps become transitions, and how much of the world the next state says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from swirl_lightning.types import Transition

Target = Literal["observation", "full"]
NoOps = Literal["keep", "drop", "mark"]
UNCHANGED = "Nothing visible changes.\n"


class GameLog:
    """Keeps the transitions of an episode, and counts what was left out or marked.

    Args:
        episode: its name.
        context: the task.
        state: what can be seen at the start.
        target: the next state is the game's answer (``observation``), or the answer with what can be seen after it (``full``).
        no_ops: steps after which what can be seen reads as before: ``keep``, ``drop``, or ``mark`` (the next state begins with
            ``UNCHANGED``).
    """

    def __init__(self, episode: str, context: str, state: str, target: Target, no_ops: NoOps) -> None:
        self.episode, self.context, self.state = episode, context, state
        self.target, self.no_ops = target, no_ops
        self.kept: list[Transition] = []
        self.counts: Counter[str] = Counter()
        self._step = 0

    def add(self, action: str, answer: str, state: str, *, keep: bool = True) -> None:
        """Adds a step that was played.

        Args:
            action: what was done.
            answer: what the game said.
            state: what can be seen now.
            keep: make it a transition; otherwise it is only counted.
        """
        before, self.state = self.state, state
        step, self._step = self._step, self._step + 1
        if not keep:
            self.counts["steps played, not recorded"] += 1
            return
        same = before == state
        self.counts["no-op steps"] += same
        if same and self.no_ops == "drop":
            self.counts["no-op steps dropped"] += 1
            return
        after = answer if self.target == "observation" else f"{answer}\n{state}".strip()
        if same and self.no_ops == "mark":
            after = UNCHANGED + after
        self.kept.append(Transition(before, after, action, context=self.context, episode=self.episode, step=step))


def spread(values: Sequence[Any], count: int | None) -> list[Any]:
    """Evenly spaced members, all of them where there are no more than ``count``."""
    if count is None or len(values) <= count:
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]


def check_walks(recorder: Any, world: str, *at_least_one: str) -> None:
    """Checks the options that recorders of gold paths and walks have in common.

    Args:
        recorder: has ``gold``, ``explore``, ``explore_steps``, ``max_gold_steps``, ``workers`` and ``timeout``.
        world: name for messages.
        *at_least_one: further options that must be at least 1, or None.

    Raises:
        ValueError: naming the option.
    """
    for name in (*at_least_one, "max_gold_steps", "explore_steps", "workers"):
        if (value := getattr(recorder, name)) is not None and value < 1:
            raise ValueError(f"{world}: {name} must be at least 1, got {value}")
    if recorder.timeout <= 0 or recorder.explore < 0 or not (recorder.gold or recorder.explore):
        raise ValueError(f"{world}: timeout must be positive, and gold or explore must be on")
