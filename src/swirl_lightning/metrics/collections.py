"""The measures of each role, as one collection a role."""

from __future__ import annotations

from typing import Any

from torchmetrics import Metric, MetricCollection

from swirl_lightning.metrics.likelihood import LogProb
from swirl_lightning.metrics.overlap import CharacterBleu, CorpusBleu, RougeL, SentenceBleu
from swirl_lightning.metrics.text import ChangedAccuracy, CopyRate, ExactMatch, TokenAccuracy, Tokenize, words


def fwm_metrics(
    tokenize: Tokenize = words,
    *,
    text: bool = True,
    scored: bool = True,
    character_bleu: bool = False,
    **kwargs: Any,
) -> MetricCollection:
    """Measures of predicted next states.

    Args:
        tokenize: positions of the token accuracy, usually ``codec.encode_state``.
        text: states are text; of images BLEU and ROUGE-L are left out, and what changes is counted in tokens.
        scored: whether log-probabilities of the truth will be given.
        character_bleu: add StableToolBench's BLEU.
        **kwargs: of every metric, e.g. ``sync_on_compute=False``.

    Returns:
        A collection whose ``update`` takes ``predictions``, ``references``, ``states`` and, if ``scored``, ``scores``.
    """
    metrics: dict[str, Metric] = {
        **_agreement(tokenize, text, scored, character_bleu, kwargs),
        "changed_accuracy": ChangedAccuracy(words if text else tokenize, **kwargs),
        "copy_rate": CopyRate(**kwargs),
    }
    return _collect(metrics)


def idm_metrics(
    tokenize: Tokenize = words, *, scored: bool = True, character_bleu: bool = False, **kwargs: Any
) -> MetricCollection:
    """Measures of inferred actions.

    Args:
        tokenize: positions of the token accuracy, usually ``codec.encode_action``.
        scored: whether log-probabilities of the truth will be given.
        character_bleu: add StableToolBench's BLEU.
        **kwargs: of every metric, e.g. ``sync_on_compute=False``.

    Returns:
        A collection whose ``update`` takes ``predictions``, ``references`` and, if ``scored``, ``scores``.
    """
    return _collect(_agreement(tokenize, True, scored, character_bleu, kwargs))


def _agreement(tokenize: Tokenize, text: bool, scored: bool, character_bleu: bool, kwargs: dict[str, Any]) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {
        "exact_match": ExactMatch(**kwargs),
        "token_accuracy": TokenAccuracy(tokenize, **kwargs),
    }
    if text:
        metrics |= {
            "bleu": CorpusBleu(**kwargs),
            "sentence_bleu": SentenceBleu(**kwargs),
            "rouge_l": RougeL(**kwargs),
        }
        if character_bleu:
            metrics["character_bleu"] = CharacterBleu(**kwargs)
    if scored:
        metrics |= {"logprob": LogProb("sequence", **kwargs), "logprob_per_token": LogProb("token", **kwargs)}
    return metrics


def _collect(metrics: dict[str, Metric]) -> MetricCollection:
    # compute groups merge metrics whose states happen to be equal after the first batch: two means that are both 3 of 8
    return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]
