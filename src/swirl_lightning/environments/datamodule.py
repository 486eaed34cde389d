"""The base of all worlds: a DataModule that records what is missing, then is a TransitionDataModule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock
from typing_extensions import override

from swirl_lightning.data.datamodule import TransitionDataModule
from swirl_lightning.environments.recording.record import Splits, is_recorded, record
from swirl_lightning.environments.registry import Recorder


class WorldDataModule(TransitionDataModule):
    """A world: its recorder makes the transitions that are not there yet; then they are split as those of any file.

    The first run records, on one process, whole or not at all; later runs find the recording and check that it was made with
    the same options. A world of your own is a recorder and a subclass of a few lines, as beside the recorders here and in
    ``howto/own_world.py``: its ``__init__`` says of what type the recorder is, so that YAML and ``--help`` know its options.

    Args:
        recorder: Makes episodes.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``. ``val_fraction`` and ``test_fraction`` are kept in the recording,
            where the world has no splits of its own.
    """

    def __init__(self, recorder: Recorder, path: str, **transitions: Any) -> None:
        super().__init__(path, **transitions)
        self.recorder, self.folder = recorder, Path(path)
        self.prepare_data_per_node = False  # the recording lies where every node reads it, as checkpoints do

    @override
    def prepare_data(self) -> None:
        """Records what is missing; an interrupted recording goes on.

        Raises:
            ValueError: naming the options that differ, if the folder holds a recording that was made with others.
        """
        folder, splits = self.folder, Splits(self.val_fraction, self.test_fraction)
        if is_recorded(self.recorder, folder, splits):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):  # several runs may begin at once
            if not is_recorded(self.recorder, folder, splits):
                record(self.recorder, folder, splits)
