"""One-step evaluation of both roles on labelled transitions. Plain torch: no Lightning here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torchmetrics import Metric, MetricCollection

from swirl_lightning.codecs import Codec
from swirl_lightning.metrics import Benchmark, fwm_metrics, idm_metrics
from swirl_lightning.types import Role, SamplingParams, State, TokenScores, Transition
from swirl_lightning.world_model.inference import Inference

Decoding = SamplingParams | Mapping[Role, SamplingParams]
Measures = dict[str, dict[str, float]]
_BEST_OF = "best_of_"
_CHANGED = "/changed"  # suffix of the collections that see changed transitions only
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the models drawn about one transition."""

    transition: Transition  # the truth
    states: tuple[State, ...]  # S predicted next states
    actions: tuple[str, ...]  # S inferred actions
    state_logprob: float  # log P(y | x, z) of the truth, nats
    action_logprob: float  # log Q(z | x, y) of the truth, nats
    verified: Mapping[int, State]  # N to the state that best-of-N chose

    def row(self) -> dict[str, Any]:
        """The prediction as a JSON-ready record; images are named by their size."""
        truth = self.transition
        return {
            "episode": truth.episode,
            "step": truth.step,
            "context": truth.context,
            "state": show_state(truth.state),
            "action": truth.action,
            "next_state": show_state(truth.next_state),
            "predicted_states": [show_state(state) for state in self.states],
            "inferred_actions": list(self.actions),
            "state_logprob": self.state_logprob,
            "action_logprob": self.action_logprob,
            **{f"best_of_{n}": show_state(state) for n, state in self.verified.items()},
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measures of a split, and what they were taken from."""

    measures: Measures  # fwm, idm, copy, best_of_N -> measure -> value
    predictions: tuple[Prediction, ...]  # of this rank's share, in order


def show_state(state: State) -> str:
    """A state to be read: text as it is, an image by its size."""
    return state if isinstance(state, str) else f"<image, {len(state)} bytes>"


def standard_decodings(inference: Inference) -> dict[str, dict[Role, SamplingParams]]:
    """The two decodings that the paper's comparison needs, with each role's own completion length.

    RL can merely sharpen a distribution, so greedy decoding is a baseline of its own beside the paper's sampling
    (temperature 0.75, top-p 0.96; arXiv:2602.06130).
    """
    lengths = {role: inference.sampling[role].max_new_tokens for role in Role}
    return {
        "greedy": {role: SamplingParams(max_new_tokens=n, temperature=0.0) for role, n in lengths.items()},
        "sampled": {role: SamplingParams(max_new_tokens=n, temperature=0.75, top_p=0.96) for role, n in lengths.items()},
    }


def evaluate(inference: Inference, transitions: Sequence[Transition], **options: Any) -> Measures:
    """The measures of :func:`run_benchmark`, which says what ``options`` are."""
    return run_benchmark(inference, transitions, **options).measures


@torch.no_grad()
def run_benchmark(
    inference: Inference,
    transitions: Sequence[Transition],
    *,
    decoding: Decoding,
    samples: int = 1,
    best_of: int | Sequence[int] = 0,
    seed: int = 0,
    batch_size: int = 64,
    benchmark: Benchmark = "text",
    extra: Mapping[str, Metric] | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Predicts next states from true actions and actions from true pairs, and compares.

    Best-of-N draws N next states and keeps the one under which the IDM finds the true action most probable, mean log Q(z|x,y_n)
    per token: test-time verification (arXiv:2602.06130). Smaller N judge the first draws of the largest.

    Args:
        inference: the models.
        transitions: the whole split, equal on every rank.
        decoding: sampling settings, of both roles or a role each.
        samples: predictions per transition and role; measures are means over all of them.
        best_of: one or several N; 0 or empty for none.
        seed: of the draws.
        batch_size: transitions a batch.
        benchmark: adds the measures of tool answers or of pages to those of any text.
        extra: further measures of next states by name. Besides the fields of the others their ``update`` may ask for
            ``rendered`` (predictions as text or PNG bytes) and ``observed`` (next states as they were recorded).
        rank: this process; it takes every ``world_size``-th transition.
        world_size: processes that call together. All do the same number of batches of the same size (sharded models need
            that): what is repeated to fill the last one does not count. Measures are reduced over ranks.
        progress: called with the numbers of finished rollouts and of all.

    Returns:
        Measures of ``fwm``, ``idm``, ``copy`` (next state = state) and every ``best_of_N``. Those of ``fwm`` and ``copy`` come
        a second time as ``changed/MEASURE``, over the transitions of which state and next state differ. A measure that
        nothing could be counted for (``changed_accuracy`` where no unit changed) is left out.

    Raises:
        ValueError: if there is no transition, or greedy decoding makes best-of-N pointless.
    """
    if not transitions:
        raise ValueError("evaluate: there are no transitions in this split")
    params = _per_role(decoding)
    widths = _widths(best_of, params[Role.FWM])
    metrics = _metrics(inference, transitions, widths, benchmark, extra or {}, synced=world_size > 1)
    share = [
        (transitions[min(i, len(transitions) - 1)], i < len(transitions)) for i in _share(len(transitions), rank, world_size)
    ]
    predictions: list[Prediction] = []
    total = len(share) * (2 * samples + max(widths, default=0))
    finished = 0

    def advance(more: int) -> None:
        nonlocal finished
        finished += more
        if progress:
            progress(finished, total)

    for batch in _batches(share, batch_size):
        pairs = [transition for transition, _ in batch]
        drawn = _predict(inference, pairs, params, samples, widths, seed, advance)
        scores = (_score_states(inference, pairs), _score_actions(inference, pairs))
        kept = [i for i, (_, counts) in enumerate(batch) if counts]
        _update(metrics, [drawn[i] for i in kept], [_rows(s, kept) for s in scores], inference.codec, render=bool(extra))
        sums = [s.logprobs.sum(-1).tolist() for s in scores]
        predictions += [replace(drawn[i], state_logprob=sums[0][i], action_logprob=sums[1][i]) for i in kept]
    some_change = any(t.state != t.next_state for t in transitions)
    return Evaluation(_measures(metrics, some_change), tuple(predictions))


def _per_role(decoding: Decoding) -> Mapping[Role, SamplingParams]:
    return dict.fromkeys(Role, decoding) if isinstance(decoding, SamplingParams) else decoding


def _widths(best_of: int | Sequence[int], params: SamplingParams) -> list[int]:
    """The N of best-of-N, ascending."""
    widths = sorted({n for n in ([best_of] if isinstance(best_of, int) else best_of) if n})
    if widths and widths[0] < 2:
        raise ValueError(f"best_of must be at least 2 (or 0 for none), got {widths[0]}")
    if widths and params.temperature == 0:
        raise ValueError("best_of needs a decoding that samples: greedy next states are all alike")
    return widths


def _share(count: int, rank: int, world_size: int) -> range:
    """Positions of a rank; equally many on every rank, so the last may lie past the end."""
    return range(rank, math.ceil(count / world_size) * world_size, world_size)


def _batches(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _metrics(
    inference: Inference,
    transitions: Sequence[Transition],
    widths: Sequence[int],
    benchmark: Benchmark,
    extra: Mapping[str, Metric],
    synced: bool,
) -> dict[str, MetricCollection]:
    codec, text = inference.codec, isinstance(transitions[0].next_state, str)
    device = next(inference.world_model.parameters()).device

    def of_states(scored: bool = False) -> MetricCollection:
        made = fwm_metrics(codec.units, text=text, scored=scored, benchmark=benchmark, sync_on_compute=synced)
        made.add_metrics({name: metric.clone() for name, metric in extra.items()})
        return made

    collections = {
        "fwm": of_states(scored=True),
        "idm": idm_metrics(lambda action: codec.encode_action(str(action)), sync_on_compute=synced),
        "copy": of_states(),
        **{f"{_BEST_OF}{n}": of_states() for n in widths},
    }
    if any(t.state == t.next_state for t in transitions):  # otherwise the two are the same
        collections |= {f"fwm{_CHANGED}": of_states(scored=True), f"copy{_CHANGED}": of_states()}
    return {name: collection.to(device) for name, collection in collections.items()}


def _predict(
    inference: Inference,
    pairs: Sequence[Transition],
    params: Mapping[Role, SamplingParams],
    samples: int,
    widths: Sequence[int],
    seed: int,
    advance: Callable[[int], None],
) -> list[Prediction]:
    """Predictions of a batch, their log-probabilities still open."""
    actions = [pair.action for pair in pairs]
    states = inference.predict_states(pairs, actions, params=params[Role.FWM], samples=samples, seed=seed, progress=advance)
    inferred = inference.infer_actions(pairs, params=params[Role.IDM], samples=samples, seed=seed, progress=advance)
    verified: list[dict[int, State]] = [{} for _ in pairs]
    if widths:
        drawn = inference.predict_states(
            pairs, actions, params=params[Role.FWM], samples=widths[-1], seed=seed, progress=advance
        )
        verified = _verify(inference, pairs, drawn, widths)
    return [
        Prediction(pair, tuple(ys), tuple(zs), math.nan, math.nan, best)
        for pair, ys, zs, best in zip(pairs, states, inferred, verified, strict=True)
    ]


def _verify(
    inference: Inference, pairs: Sequence[Transition], drawn: Sequence[Sequence[State]], widths: Sequence[int]
) -> list[dict[int, State]]:
    """For every pair and N, the draw among the first N from which the IDM reads the true action best."""
    rows = [pair for pair, states in zip(pairs, drawn, strict=True) for _ in states]
    scores = inference.score_actions(rows, [row.action for row in rows], [y for states in drawn for y in states])
    mean = (scores.logprobs.sum(-1) / scores.mask.sum(-1)).view(len(pairs), -1)  # [B, N]
    return [{n: states[int(values[:n].argmax())] for n in widths} for states, values in zip(drawn, mean, strict=True)]


def _score_states(inference: Inference, pairs: Sequence[Transition]) -> TokenScores:
    return inference.score_states(pairs, [pair.action for pair in pairs], [pair.next_state for pair in pairs])


def _score_actions(inference: Inference, pairs: Sequence[Transition]) -> TokenScores:
    return inference.score_actions(pairs, [pair.action for pair in pairs])


def _rows(scores: TokenScores, kept: Sequence[int]) -> TokenScores:
    index = torch.tensor(kept, dtype=torch.long, device=scores.mask.device)
    return TokenScores(scores.logprobs[index], scores.mask[index], scores.entropy[index])


def _update(
    metrics: Mapping[str, MetricCollection],
    predictions: Sequence[Prediction],
    scores: Sequence[TokenScores],
    codec: Codec,
    render: bool,
) -> None:
    changed = [i for i, p in enumerate(predictions) if p.transition.state != p.transition.next_state]
    for name, collection in metrics.items():
        rows = changed if name.endswith(_CHANGED) else range(len(predictions))
        chosen, kept = [predictions[i] for i in rows], [_rows(s, rows) for s in scores]
        _update_one(collection, name.removesuffix(_CHANGED), chosen, kept, codec, render)


def _update_one(
    collection: MetricCollection,
    name: str,
    predictions: Sequence[Prediction],
    scores: Sequence[TokenScores],
    codec: Codec,
    render: bool,
) -> None:
    if name == "idm":
        actions = [(codec.canonical(z), codec.canonical(p.transition.action)) for p in predictions for z in p.actions]
        collection.update(predictions=[z for z, _ in actions], references=[z for _, z in actions], scores=scores[1])
        return
    predicted = [(state, p.transition) for p in predictions for state in _predicted(p, name)]
    collection.update(
        predictions=[codec.canonical(state) for state, _ in predicted],
        references=[codec.canonical(truth.next_state) for _, truth in predicted],
        states=[codec.canonical(truth.state) for _, truth in predicted],
        **({"rendered": [codec.render(state) for state, _ in predicted]} if render else {}),
        **({"observed": [truth.next_state for _, truth in predicted]} if render else {}),
        **({"scores": scores[0]} if name == "fwm" else {}),
    )


def _predicted(prediction: Prediction, name: str) -> Sequence[State]:
    """The next states that a row of the table is about."""
    if name == "fwm":
        return prediction.states
    return [prediction.transition.state if name == "copy" else prediction.verified[int(name.removeprefix(_BEST_OF))]]


def _measures(metrics: Mapping[str, MetricCollection], some_change: bool) -> Measures:
    """Values of every collection; those on changed transitions join their row as ``changed/MEASURE``."""
    values = {name: _values(collection) for name, collection in metrics.items()}
    measures = {name: row for name, row in values.items() if not name.endswith(_CHANGED)}
    for name in ("fwm", "copy") if some_change else ():
        of_changed = values.get(f"{name}{_CHANGED}", measures[name])
        measures[name] = {**measures[name], **{f"changed/{measure}": value for measure, value in of_changed.items()}}
    return measures


def _values(metrics: MetricCollection) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.compute().items()}
    return {name: value for name, value in values.items() if not math.isnan(value)}
