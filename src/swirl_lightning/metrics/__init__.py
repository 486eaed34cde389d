"""Measures of predicted states and inferred actions; they reduce over ranks."""

from swirl_lightning.metrics.collections import fwm_metrics, idm_metrics
from swirl_lightning.metrics.intervals import mean_interval, relative_gain, student_t_quantile
from swirl_lightning.metrics.likelihood import LogProb
from swirl_lightning.metrics.overlap import CharacterBleu, CorpusBleu, RougeL, SentenceBleu, tool_response_text
from swirl_lightning.metrics.text import ChangedAccuracy, CopyRate, ExactMatch, TokenAccuracy, words

__all__ = [
    "ChangedAccuracy",
    "CharacterBleu",
    "CopyRate",
    "CorpusBleu",
    "ExactMatch",
    "LogProb",
    "RougeL",
    "SentenceBleu",
    "TokenAccuracy",
    "fwm_metrics",
    "idm_metrics",
    "mean_interval",
    "relative_gain",
    "student_t_quantile",
    "tool_response_text",
    "words",
]
