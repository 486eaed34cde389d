"""Benchmarks: data, protocol and measures in one call."""

from swirl_lightning.evaluation.evaluate import (
    Evaluation,
    Prediction,
    evaluate,
    run_benchmark,
    show_state,
    standard_decodings,
)

__all__ = ["Evaluation", "Prediction", "evaluate", "run_benchmark", "show_state", "standard_decodings"]
