"""Several steps on: the FWM's own predictions fed back under the true actions, measured turn by turn. Plain torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torchmetrics import Metric

from swirl_lightning.metrics.text import ExactMatch
from swirl_lightning.types import SamplingParams, State, Transition, UnlabelledPair
from swirl_lightning.world_model.inference import Inference

Window = Sequence[Transition]


def consecutive(transitions: Iterable[Transition], turns: int, limit: int | None = None) -> list[Window]:
    """Stretches of consecutive steps of one episode that do not overlap.

    Args:
        transitions: of any episodes, in any order.
        turns: steps of a stretch.
        limit: at most so many, evenly spread over all there are.

    Returns:
        Stretches of ``turns`` transitions each.
    """
    if turns < 1:
        raise ValueError(f"turns must be at least 1, got {turns}")
    found: list[Window] = []
    run: list[Transition] = []
    for transition in sorted(transitions, key=lambda t: (t.episode, t.step)):
        follows = run and (run[-1].episode, run[-1].step + 1) == (transition.episode, transition.step)
        if not follows or run[-1].next_state != transition.state:
            run = []
        run.append(transition)
        if len(run) == turns:
            found.append(tuple(run))
            run = []
    if limit is not None and len(found) > limit:
        found = [found[i * len(found) // limit] for i in range(limit)]
    return found


def run_turns(
    inference: Inference,
    windows: Sequence[Window],
    *,
    params: SamplingParams,
    extra: Mapping[str, Metric] | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> list[dict[str, float]]:
    """Rolls every stretch out from its first state and compares each turn with what was observed (as WorldPrediction-Bench).

    Args:
        inference: the FWM.
        windows: N stretches of equal length T.
        params: how next states are drawn.
        extra: measures by name whose ``update`` takes ``rendered`` (text or PNG bytes) and ``observed``.
        seed: of the draws.
        batch_size: stretches at a time.

    Returns:
        T dictionaries: ``exact_match`` and what ``extra`` names, of the predictions after 1 to T turns.
    """
    codec = inference.codec
    turns = len(windows[0])
    measures: list[dict[str, Metric]] = [
        {"exact_match": ExactMatch(), **{name: metric.clone() for name, metric in (extra or {}).items()}} for _ in range(turns)
    ]
    for begin in range(0, len(windows), batch_size):
        batch = windows[begin : begin + batch_size]
        current: list[State] = [window[0].state for window in batch]
        for turn in range(turns):
            truth = [window[turn] for window in batch]
            here = [
                UnlabelledPair(state, "", t.context, t.episode, t.step) for state, t in zip(current, truth, strict=True)
            ]  # no next state: it is what is asked for
            drawn = inference.predict_states(here, [t.action for t in truth], params=params, seed=seed)
            current = [states[0] for states in drawn]
            observed = [t.next_state for t in truth]
            for name, metric in measures[turn].items():
                if name == "exact_match":
                    metric.update(*([codec.canonical(state) for state in states] for states in (current, observed)))
                else:
                    metric.update(rendered=[codec.render(state) for state in current], observed=observed)
    return [{name: float(metric.compute()) for name, metric in of_turn.items()} for of_turn in measures]
