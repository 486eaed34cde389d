"""A rollout engine of your own: whatever draws groups of completions. This one lets the model draw, and counts.

model:
  engine: { class_path: own_engine.CountingEngine, init_args: { report: drawn.txt } }
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from swirl_lightning import RolloutEngine, RolloutRequest, TransformersEngine
from swirl_lightning.types import Trajectory


@dataclass
class CountingEngine(RolloutEngine):
    """Counts the tokens that were drawn.

    Args:
        report: file that says how many.
    """

    report: Path
    drawn: int = 0

    def generate(self, model: PreTrainedModel, request: RolloutRequest) -> Trajectory:
        """Draws as ``TransformersEngine`` does; an engine of other weights or rounding sets ``importance_cap``, too."""
        trajectory = TransformersEngine().generate(model, request)
        self.drawn += int(trajectory.mask.sum())
        self.report.write_text(f"{self.drawn} tokens\n", encoding="utf-8")
        return trajectory
