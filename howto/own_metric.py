"""A measure of your own, in the tables and in TensorBoard.

trainer:
  callbacks+:
    - class_path: BenchmarkEvaluation
      init_args:
        extra: { off_by: { class_path: own_metric.OffBy } }
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class OffBy(Metric):
    """Mean distance of predicted from true numbers; what is no number is as far off as the truth is large."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, rendered: Sequence[str], observed: Sequence[str]) -> None:
        """Adds predicted states and what was observed."""
        for predicted, true in zip(rendered, observed, strict=True):
            self.total += abs(int(true) - (int(predicted) if predicted.isdecimal() else 0))
            self.count += 1

    def compute(self) -> Tensor:
        """The mean distance."""
        return self.total / self.count
