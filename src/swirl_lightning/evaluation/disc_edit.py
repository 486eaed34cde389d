"""DiscEdit (AURORA-Bench): does a model tell an edit that changes nothing much from one that changes something? Plain torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swirl_lightning.types import SamplingParams, UnlabelledPair
from swirl_lightning.world_model.inference import Inference


@dataclass(frozen=True, slots=True)
class Choice:
    """An image and two edits: under ``pos`` it is to stay nearly as it is, under ``neg`` it is to change."""

    image: bytes
    pos: str
    neg: str
    task: str


def disc_edit(
    inference: Inference,
    choices: Sequence[Choice],
    *,
    samples: int,
    params: SamplingParams,
    seed: int = 0,
    batch_size: int = 16,
    progress: Callable[[int], object] | None = None,
) -> list[dict[str, float]]:
    """Compares what a token model does under both edits, in two ways.

    Args:
        inference: the FWM.
        choices: N of them.
        samples: drawn under each edit.
        params: how.
        seed: of the draws.
        batch_size: choices at once.
        progress: called with the number of finished choices.

    Returns:
        For each choice 1, 0, or 0.5 for a tie: ``sampled``, do samples under ``pos`` change a smaller mean share of the tokens
        than those under ``neg``; ``likelihood``, is the unchanged image more likely under ``pos``. And the shares,
        ``changed_pos`` and ``changed_neg``.
    """
    results = []
    for begin in range(0, len(choices), batch_size):
        part = choices[begin : begin + batch_size]
        pairs = [UnlabelledPair(c.image, c.image, episode=f"disc-edit/{begin + i}") for i, c in enumerate(part)]
        both = [(pair, edit) for pair, c in zip(pairs, part, strict=True) for edit in (c.pos, c.neg)]
        twice, edits = [pair for pair, _ in both], [edit for _, edit in both]
        unchanged = inference.score_states(twice, edits, [pair.state for pair in twice]).logprobs.sum(-1).view(-1, 2)
        drawn = inference.predict_states(twice, edits, params=params, samples=samples, seed=seed)
        shares = [_changed(inference, pair.state, states) for pair, states in zip(twice, drawn, strict=True)]
        for i in range(len(part)):
            pos, neg = shares[2 * i], shares[2 * i + 1]
            likely = float(unchanged[i, 0] - unchanged[i, 1])
            results.append(
                {"sampled": _better(neg - pos), "likelihood": _better(likely), "changed_pos": pos, "changed_neg": neg}
            )
        if progress is not None:
            progress(len(part))
    return results


def _changed(inference: Inference, state: str | bytes, predictions: Sequence[str | bytes]) -> float:
    """Mean share of a state's tokens that predictions change."""
    before = inference.codec.encode_state(state)
    total = 0.0
    for prediction in predictions:
        after = inference.codec.encode_state(prediction)
        longest = max(len(before), len(after))
        total += (longest - sum(a == b for a, b in zip(before, after, strict=False))) / longest
    return total / len(predictions)


def _better(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)
