"""Callbacks of swirl-lightning, one a file; README.md beside this file says what each does and in which order they act."""

from swirl_lightning.callbacks.benchmark_evaluation import BenchmarkEvaluation, QuickEvaluation
from swirl_lightning.callbacks.export_models import ExportModels
from swirl_lightning.callbacks.image_samples import ImageSamples
from swirl_lightning.callbacks.latent_action_health import LatentActionHealth
from swirl_lightning.callbacks.learning_watch import LearningWatch
from swirl_lightning.callbacks.phase_freezing import PhaseFreezing
from swirl_lightning.callbacks.prediction_file import PredictionFile
from swirl_lightning.callbacks.preemption import Preemption
from swirl_lightning.callbacks.rollout_sampler import RolloutSampler
from swirl_lightning.callbacks.run_checkpoint import RunCheckpoint
from swirl_lightning.callbacks.run_progress import RunProgress
from swirl_lightning.callbacks.step_log import StepLog

from swirl_lightning.algorithm.phase_end import PhaseEnd

__all__ = [
    "BenchmarkEvaluation",
    "ExportModels",
    "ImageSamples",
    "LatentActionHealth",
    "LearningWatch",
    "PhaseEnd",
    "PhaseFreezing",
    "PredictionFile",
    "Preemption",
    "QuickEvaluation",
    "RolloutSampler",
    "RunCheckpoint",
    "RunProgress",
    "StepLog",
]
