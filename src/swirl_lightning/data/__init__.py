"""Data: transitions on disk, splits by episode, batches of an epoch, and recorders of real simulators."""

from swirl_lightning.data.datamodule import TransitionDataModule
from swirl_lightning.data.environment import ENVIRONMENTS, Environment, Recorder
from swirl_lightning.data.reader import TransitionTable, read_transitions
from swirl_lightning.data.schema import write_transitions

__all__ = [
    "ENVIRONMENTS",
    "Environment",
    "Recorder",
    "TransitionDataModule",
    "TransitionTable",
    "read_transitions",
    "write_transitions",
]
