"""How probable a model finds the truth."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import override

from swirl_lightning.metrics.text import MeanOf
from swirl_lightning.types import TokenScores


class LogProb(MeanOf):
    """Mean log-probability in nats, at temperature 1.

    Args:
        per: ``sequence`` averages whole sequences; ``token`` divides the sum over all sequences by all scored tokens.
        **kwargs: of ``torchmetrics.Metric``.
    """

    def __init__(self, per: Literal["sequence", "token"] = "sequence", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.per = per

    @override
    def update(self, scores: TokenScores) -> None:
        self.total += (scores.logprobs * scores.mask).sum().to(self.total)
        self.count += int(scores.mask.sum()) if self.per == "token" else len(scores.mask)
