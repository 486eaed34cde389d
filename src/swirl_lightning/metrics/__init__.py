"""Measures of predicted states and inferred actions; they reduce over ranks."""

from swirl_lightning.metrics.collections import Benchmark, fwm_metrics, idm_metrics, score_metrics
from swirl_lightning.metrics.intervals import mean_interval, relative_gain, student_t_quantile, wilson_interval
from swirl_lightning.metrics.likelihood import LogProb
from swirl_lightning.metrics.overlap import CharacterBleu, CorpusBleu, RougeL, SentenceBleu
from swirl_lightning.metrics.text import ChangedAccuracy, CopyRate, ExactMatch, TokenAccuracy, words
from swirl_lightning.metrics.tools import ErrorAccuracy, FieldF1, JsonValidity, ToolBleu, tool_response_text
from swirl_lightning.metrics.web import ChangedElementF1, DomEditDistance

__all__ = [
    "Benchmark",
    "ChangedAccuracy",
    "ChangedElementF1",
    "CharacterBleu",
    "CopyRate",
    "CorpusBleu",
    "DomEditDistance",
    "ErrorAccuracy",
    "ExactMatch",
    "FieldF1",
    "JsonValidity",
    "LogProb",
    "RougeL",
    "SentenceBleu",
    "TokenAccuracy",
    "ToolBleu",
    "fwm_metrics",
    "idm_metrics",
    "mean_interval",
    "relative_gain",
    "score_metrics",
    "student_t_quantile",
    "tool_response_text",
    "wilson_interval",
    "words",
]
