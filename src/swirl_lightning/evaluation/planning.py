"""An agent that looks ahead in a world model: every state within a few steps, the best of them, one step towards it.

The agent sees the true state before each of its steps and plans anew. Its model says what actions do; what may be tried in a
state and how good a state is, a task reads out of the text, by one rule for all models. A task of one's own is a subclass of
``PlanningTask``.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from swirl_lightning.types import Role, UnlabelledPair
from swirl_lightning.world_model.inference import Inference


class Outcome(NamedTuple):
    """What a simulator says after some actions."""

    state: str  # as the models see it
    context: str  # what the models know besides
    reached: bool = False  # the goal
    ended: bool = False  # no action does anything any more: won or lost
    reward: float = 0.0  # of all actions, the simulator's own


class PlanningTask(ABC):
    """A simulator with a goal. ``read``, ``actions`` and ``value`` may look at their arguments only, never at the simulator."""

    @abstractmethod
    def play(self, seed: int, actions: Sequence[str]) -> Outcome:
        """The simulator after these actions from the start of an episode; the same arguments give the same outcome.

        Args:
            seed: which episode; none of those that models are trained on.
            actions: all actions since its start.
        """

    @abstractmethod
    def read(self, answer: str) -> str | None:
        """The state that an FWM's answer gives, None where it is no state."""

    @abstractmethod
    def actions(self, state: str, context: str) -> Sequence[str]:
        """What may be tried in a state; at least one action, unless the episode has ended there."""

    @abstractmethod
    def value(self, state: str, context: str) -> float:
        """How good a state is; highest at the goal."""

    def close(self) -> None:  # noqa: B027  # most have nothing to end
        """Ends what the simulator started."""


class Query(NamedTuple):
    """A step whose next state is asked for."""

    seed: int  # of the episode
    actions: tuple[str, ...]  # since its start, played or imagined; the last one is the step's
    state: str  # before it
    context: str


Predict = Callable[[Sequence[Query]], Iterable[str]]


@dataclass
class Memory:
    """A model that is asked once for each step.

    Attributes:
        predict: The model: N steps to N answers.
        markov: A state with its context says all there is, so that episodes share answers.
        calls: How often the model was asked.
    """

    predict: Predict
    markov: bool = True
    calls: int = field(default=0, init=False)
    known: dict[tuple[int | None, str, str, str], str] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, queries: Sequence[Query]) -> list[str]:
        """Answers to N steps; those that are not known yet are asked in one call."""
        keys = [(None if self.markov else q.seed, q.context, q.state, q.actions[-1]) for q in queries]
        new = {key: query for key, query in zip(keys, queries, strict=True) if key not in self.known}
        if new:
            self.calls += 1
            self.known.update(zip(new, self.predict(list(new.values())), strict=True))
        return [self.known[key] for key in keys]


def learned(inference: Inference, batch_size: int = 256) -> Memory:
    """The most likely next states of an FWM.

    Args:
        inference: the FWM.
        batch_size: steps at a time.
    """
    greedy = replace(inference.sampling[Role.FWM], temperature=0.0)

    def predict(queries: Sequence[Query]) -> Iterable[str]:
        for begin in range(0, len(queries), batch_size):
            part = queries[begin : begin + batch_size]
            pairs = [UnlabelledPair(query.state, "", query.context) for query in part]  # no next state: it is what is asked for
            for states in inference.predict_states(pairs, [query.actions[-1] for query in part], params=greedy):
                yield str(states[0])

    return Memory(predict)


def simulated(task: PlanningTask) -> Memory:
    """The simulator itself, played from the start of the episode: the best model that there can be."""
    return Memory(lambda queries: (task.play(query.seed, query.actions).state for query in queries), markov=False)


class Node(NamedTuple):
    """A state that look-ahead finds."""

    state: str
    path: tuple[str, ...] = ()  # shortest way there, of imagined actions
    expected: str | None = None  # state after the first of them


def look_ahead(task: PlanningTask, model: Memory, starts: Sequence[Query], depth: int) -> list[list[Node]]:
    """Every distinct state within ``depth`` imagined steps, breadth first; one call of the model a depth.

    Args:
        task: says what may be tried, and reads answers.
        model: says what happens.
        starts: N episodes where they stand, with the actions played so far.
        depth: steps to look ahead; 0 finds nothing.

    Returns:
        N lists of states, nearest first, without those where the episodes stand.
    """
    found = [{start.state: Node(start.state)} for start in starts]
    edges = [list(nodes.values()) for nodes in found]
    for _ in range(depth):
        tried = [
            (i, node, action)
            for i, start in enumerate(starts)
            for node in edges[i]
            for action in task.actions(node.state, start.context)
        ]
        answers = model([_step(starts[i], node, action) for i, node, action in tried])
        edges = [[] for _ in starts]
        for (i, node, action), answer in zip(tried, answers, strict=True):
            state = task.read(answer)
            if state is not None and state not in found[i]:
                found[i][state] = Node(state, (*node.path, action), node.expected or state)
                edges[i].append(found[i][state])
    return [list(nodes.values())[1:] for nodes in found]


def _step(start: Query, node: Node, action: str) -> Query:
    return Query(start.seed, (*start.actions, *node.path, action), node.state, start.context)


@dataclass
class Episode:
    """An episode as the agent played it.

    Attributes:
        seed: Which one.
        actions: What was played.
        reached: The goal.
        reward: The simulator's own.
        best: Highest value of the states that it came to.
        foreseen: Steps whose next state was as the plan had it.
    """

    seed: int
    actions: list[str] = field(default_factory=list)
    reached: bool = False
    reward: float = 0.0
    best: float = -math.inf
    foreseen: int = 0


def play_episodes(task: PlanningTask, model: Memory, seeds: Sequence[int], *, depth: int, max_steps: int) -> list[Episode]:
    """Plays episodes side by side: look ahead, one step towards the best state found, and again.

    The best state has the highest value, then the shortest way; ties are drawn, seeded by the episode. Where nothing is
    found, an action is drawn: with depth 0 the agent is a random one.

    Args:
        task: the simulator and its goal.
        model: what the agent plans with.
        seeds: of N episodes.
        depth: steps to look ahead.
        max_steps: an episode that has not ended by then is over.

    Returns:
        N episodes.
    """
    episodes = [Episode(seed) for seed in seeds]
    draws = {seed: random.Random(seed) for seed in seeds}
    going = [(episode, task.play(episode.seed, ())) for episode in episodes]
    for _ in range(max_steps):
        starts = [Query(episode.seed, tuple(episode.actions), now.state, now.context) for episode, now in going]
        still = []
        for (episode, now), nodes in zip(going, look_ahead(task, model, starts, depth), strict=True):
            choice = _best(task, nodes, now, draws[episode.seed])
            episode.actions.append(choice.path[0])
            after = task.play(episode.seed, tuple(episode.actions))
            episode.foreseen += after.state == choice.expected
            episode.reached, episode.reward = after.reached, after.reward
            episode.best = max(episode.best, task.value(after.state, after.context))
            if not (after.reached or after.ended):
                still.append((episode, after))
        going = still
    return episodes


def _best(task: PlanningTask, nodes: Sequence[Node], now: Outcome, draw: random.Random) -> Node:
    if not nodes:
        return Node("", (draw.choice(task.actions(now.state, now.context)),))
    worth = [(task.value(node.state, now.context), -len(node.path)) for node in nodes]
    return draw.choice([node for node, one in zip(nodes, worth, strict=True) if one == max(worth)])
