"""The measures of each role and benchmark, as one collection."""

from __future__ import annotations

from typing import Any, Literal

from torchmetrics import Metric, MetricCollection

from swirl_lightning.metrics.likelihood import LogProb
from swirl_lightning.metrics.overlap import CorpusBleu, RougeL, SentenceBleu
from swirl_lightning.metrics.text import ChangedAccuracy, CopyRate, ExactMatch, TokenAccuracy, Tokenize, words
from swirl_lightning.metrics.tools import ErrorAccuracy, FieldF1, JsonValidity, ToolBleu
from swirl_lightning.metrics.web import ChangedElementF1, DomEditDistance

Benchmark = Literal["text", "tools", "web"]
"""What states are: any text, answers of tools (MirrorAPI, BFCL), pages."""


def fwm_metrics(
    tokenize: Tokenize = words,
    *,
    text: bool = True,
    scored: bool = True,
    benchmark: Benchmark = "text",
    **kwargs: Any,
) -> MetricCollection:
    """Measures of predicted next states.

    Args:
        tokenize: positions of the token accuracy, usually ``codec.encode_state``.
        text: states are text; of images BLEU and ROUGE-L are left out, and what changes is counted in tokens.
        scored: whether log-probabilities of the truth will be given.
        benchmark: adds the measures of tool answers or of pages.
        **kwargs: of every metric, e.g. ``sync_on_compute=False``.

    Returns:
        A collection whose ``update`` takes ``predictions``, ``references``, ``states`` and, if ``scored``, ``scores``.
    """
    metrics: dict[str, Metric] = {
        **_agreement(tokenize, text, scored, kwargs),
        **(_answers(benchmark, kwargs) if text else {}),
        **_changes(benchmark, words if text else tokenize, kwargs),
    }
    return _collect(metrics)


def idm_metrics(tokenize: Tokenize = words, *, scored: bool = True, **kwargs: Any) -> MetricCollection:
    """Measures of inferred actions.

    Args:
        tokenize: positions of the token accuracy, usually ``codec.encode_action``.
        scored: whether log-probabilities of the truth will be given.
        **kwargs: of every metric, e.g. ``sync_on_compute=False``.

    Returns:
        A collection whose ``update`` takes ``predictions``, ``references`` and, if ``scored``, ``scores``.
    """
    return _collect(_agreement(tokenize, True, scored, kwargs))


def score_metrics(benchmark: Benchmark, *, states: bool) -> MetricCollection:
    """Measures of anyone's predictions, without a model.

    Args:
        benchmark: what is predicted.
        states: whether the states before are known.

    Returns:
        A collection whose ``update`` takes ``predictions``, ``references`` and, with ``states``, ``states``.
    """
    metrics = {**_agreement(words, True, False, {}), **_answers(benchmark, {})}
    return _collect({**metrics, **_changes(benchmark, words, {})} if states else metrics)


def _agreement(tokenize: Tokenize, text: bool, scored: bool, kwargs: dict[str, Any]) -> dict[str, Metric]:
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
    if scored:
        metrics |= {"logprob": LogProb("sequence", **kwargs), "logprob_per_token": LogProb("token", **kwargs)}
    return metrics


def _answers(benchmark: Benchmark, kwargs: dict[str, Any]) -> dict[str, Metric]:
    if benchmark == "tools":
        return {
            "tool_bleu": ToolBleu(**kwargs),
            "field_f1": FieldF1(**kwargs),
            "json_valid": JsonValidity(**kwargs),
            "error_accuracy": ErrorAccuracy(**kwargs),
        }
    return {"dom_edit_distance": DomEditDistance(**kwargs)} if benchmark == "web" else {}


def _changes(benchmark: Benchmark, units: Tokenize, kwargs: dict[str, Any]) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {"changed_accuracy": ChangedAccuracy(units, **kwargs), "copy_rate": CopyRate(**kwargs)}
    return {**metrics, "changed_element_f1": ChangedElementF1(**kwargs)} if benchmark == "web" else metrics


def _collect(metrics: dict[str, Metric]) -> MetricCollection:
    # compute groups merge metrics whose states happen to be equal after the first batch: two means that are both 3 of 8
    return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]
