"""Data: transitions on disk, splits by episode, batches of an epoch."""

from swirl_lightning.data.datamodule import TransitionDataModule
from swirl_lightning.data.reader import TransitionTable, read_transitions
from swirl_lightning.data.schema import write_transitions

__all__ = [
    "TransitionDataModule",
    "TransitionTable",
    "read_transitions",
    "write_transitions",
]
