"""What transitions are like before anything is trained: repeats, no-ops, actions, and what the states can tell at best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from swirl_lightning.data.change import change
from swirl_lightning.data.rows import Rows as LazyRows
from swirl_lightning.types import Transition, UnlabelledPair, seeded_generator

Rows = Sequence[Transition] | Sequence[UnlabelledPair]
_AT_ONCE = 1024
_CHANGES = 1000  # pairs of which the changed share is measured


@dataclass
class SplitSurvey:
    """What one split is like.

    Attributes:
        transitions: of the split.
        looked_at: of them; the shares are about these.
        episodes: of those looked at.
        no_ops: share whose next state is the state: what copying the state gets right.
        repeats: share that was there before, with the same context, states and action.
        unchanged: mean share of a state that stays as it is.
        images: states are images.
        longest: positions of the transitions with the longest states.
    """

    transitions: int
    looked_at: int
    episodes: int = 0
    no_ops: float = 0.0
    repeats: float = 0.0
    unchanged: float = 0.0
    images: bool = False
    longest: list[int] = field(default_factory=list, repr=False)


@dataclass
class Ambiguity:
    """How well an answer can be told from what is given.

    Attributes:
        ambiguous: share of the transitions for which the data hold several answers.
        ceiling: accuracy of always giving the answer that is most often right, the best that any model can reach on them.
        seen_again: share whose question the data ask more than once; the others count as told apart.
    """

    ambiguous: float
    ceiling: float
    seen_again: float


@dataclass
class Survey:
    """What all splits are like.

    Attributes:
        splits: by name.
        labelled: share of the transitions that have an action.
        actions: of the labelled transitions, by how often they occur.
        idm: can the action be told from the context and both states?
        fwm: can the next state be told from the context, the state and the action?
        seen_in_training: share of the test transitions that training holds as well, in other episodes.
        image: whether states are images.
    """

    splits: dict[str, SplitSurvey]
    labelled: float
    actions: Counter[str]
    idm: Ambiguity | None
    fwm: Ambiguity | None
    seen_in_training: float | None

    @property
    def images(self) -> bool:
        """Whether states are images."""
        return any(split.images for split in self.splits.values())


def survey(splits: Mapping[str, Rows], most: int | None = None) -> Survey:
    """Looks at every split.

    Args:
        splits: labelled, state_only, val and test, or some of them.
        most: look at so many transitions of a split, evenly spread; None for all.

    Returns:
        What they are like.
    """
    actions: Counter[str] = Counter()
    keys: dict[str, Any] = {}
    surveys: dict[str, SplitSurvey] = {}
    for name, rows in splits.items():
        keys[name], surveys[name] = _look(rows, most, actions)
    labelled = [keys[name] for name in splits if len(splits[name]) and isinstance(splits[name][0], Transition)]
    known = np.concatenate(labelled, axis=1) if labelled else None  # [3, transitions with actions]
    total = sum(len(rows) for rows in splits.values())
    with_actions = sum(len(rows) for rows in splits.values() if len(rows) and isinstance(rows[0], Transition))
    pair, forward, both, _ = (None,) * 4 if known is None else known
    trained = [keys[name] for name in ("labelled", "state_only") if name in keys]
    seen = None
    if "test" in keys and keys["test"].shape[1] and trained:
        seen = float(np.isin(keys["test"][0], np.concatenate(trained, axis=1)[0]).mean())
    return Survey(
        surveys,
        with_actions / max(total, 1),
        actions,
        None if known is None else ambiguity(pair, both),
        None if known is None else ambiguity(forward, both),
        seen,
    )


def spread(size: int, most: int | None) -> range | list[int]:
    """Positions of at most so many of ``size`` things, drawn evenly from all of them, in order."""
    if most is None or size <= most:
        return range(size)
    import torch

    chosen: list[int] = torch.randperm(size, generator=seeded_generator(size))[:most].sort().values.tolist()
    return chosen


def taken(rows: Rows, positions: Sequence[int]) -> Sequence[Transition | UnlabelledPair]:
    """Some rows, at once where that is quicker than one by one."""
    return rows.take(positions) if isinstance(rows, LazyRows) else [rows[at] for at in positions]


def _look(rows: Rows, most: int | None, actions: Counter[str]) -> tuple[Any, SplitSurvey]:
    """Hashes of (context, state, next state), of (context, state, action), of all and of whether it is a no-op."""
    chosen = spread(len(rows), most)
    made = SplitSurvey(len(rows), len(chosen))
    keys = np.empty((4, len(chosen)), np.int64)
    lengths = np.empty(len(chosen), np.int64)
    episodes: set[int] = set()
    for begin in range(0, len(chosen), _AT_ONCE):
        for at, row in enumerate(taken(rows, chosen[begin : begin + _AT_ONCE]), begin):
            action = row.action if isinstance(row, Transition) else None
            if action is not None:
                actions[action] += 1
            question = (row.context, row.state)
            keys[:, at] = (
                hash((question, row.next_state)),
                hash((question, action)),
                hash((question, row.next_state, action)),
                row.state == row.next_state,
            )
            lengths[at] = len(row.state) + len(row.next_state)
            episodes.add(hash(row.episode))
    if len(chosen):
        made.images = isinstance(rows[chosen[0]].state, bytes)
        made.episodes, made.no_ops = len(episodes), float(keys[3].mean())
        made.repeats = 1 - len(np.unique(keys[2])) / len(chosen)
        some = taken(rows, spread(len(rows), _CHANGES))
        made.unchanged = 1 - sum(change(row.state, row.next_state) for row in some) / len(some)
        made.longest = [chosen[at] for at in np.argsort(-lengths, kind="stable")[:20]]
    return keys, made


def ambiguity(questions: Any, answers: Any) -> Ambiguity:
    """How well answers can be told from questions.

    Args:
        questions: a number a transition, equal where what is given is equal, int64 [n].
        answers: a number a transition, equal where question and answer are equal, int64 [n].

    Returns:
        Shares of the n transitions.
    """
    order = np.lexsort((answers, questions))
    given, answered = questions[order], answers[order]
    new_question = np.concatenate([[True], given[1:] != given[:-1]])
    new_answer = new_question | np.concatenate([[True], answered[1:] != answered[:-1]])
    begins = np.flatnonzero(new_answer)
    times = np.diff(np.append(begins, len(given)))  # each answer of each question
    firsts = np.flatnonzero(new_question[begins])
    best = np.maximum.reduceat(times, firsts)
    asked = np.add.reduceat(times, firsts)
    several = np.diff(np.append(firsts, len(times))) > 1
    size = len(given)
    return Ambiguity(float(asked[several].sum() / size), float(best.sum() / size), float(asked[asked > 1].sum() / size))
