"""The checkpoint that a run resumes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override


class RunCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt`` in the run folder, written every few batches and after every phase.

    ``--ckpt_path last`` resumes from it. One step of the module is one batch, so no save is skipped
    (Lightning's ``every_n_train_steps`` tests ``global_step % n``).

    Args:
        every_n_batches: batches between two saves.
        dirpath: where to; None is ``checkpoints`` in the run folder.
    """

    def __init__(self, every_n_batches: int = 100, dirpath: str | None = None) -> None:
        super().__init__(
            dirpath=dirpath,
            save_last=True,
            save_top_k=0,
            every_n_train_steps=every_n_batches,
            enable_version_counter=False,
        )
        self._stop_at: int | None = None

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # With Trainer(max_steps=...) Lightning 2.6 repeats the last epoch when it resumes from an end of epoch: stop by flag
        if stage == "fit" and trainer.max_steps != -1:
            self._stop_at, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        if self._stop_at is not None and trainer.global_step >= self._stop_at:
            rank_zero_info(f"stopped: trainer.max_steps={self._stop_at} reached")
            trainer.should_stop = True

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._stop(trainer)
        # From a checkpoint of an epoch's last batch Lightning 2.6 resumes wrongly: it skips as many batches of the next epoch
        # as the finished one had, and that epoch's on_train_epoch_start. The end of the epoch is saved a moment later.
        if trainer.is_last_batch:
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.should_stop and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_last_batch:  # stopped inside the epoch: its end would be saved, and the rest never be seen
            return
        if not self._should_skip_saving_checkpoint(trainer) or self._last_global_step_saved == trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
