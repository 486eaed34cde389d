"""The checkpoints that a run resumes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from swirl_lightning.callbacks.preemption import Preemption
from typing_extensions import override

from swirl_lightning.files import clear_temporaries, discard, sync_folder
from swirl_lightning.internals import batches_that_stepped, validates_now


class RunCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt`` in the run folder: after every few batches, before and after a phase is evaluated.

    ``--ckpt_path last`` resumes from it. A checkpoint is whole and on disk before an older one is removed, so that a run killed
    at any moment has one to go on from.

    Args:
        every_n_batches: Batches between two saves.
        keep: How many of the last checkpoints stay. From 2 on they are ``step-N.ckpt``, and ``last.ckpt`` is a link to the
            newest.
        dirpath: Where to; None is ``checkpoints`` in the run folder.
    """

    def __init__(self, every_n_batches: int = 100, keep: int = 1, dirpath: str | None = None) -> None:
        if keep < 1:
            raise ValueError(f"checkpoint.keep must be at least 1, got {keep}")
        super().__init__(
            dirpath=dirpath,
            save_last=True,
            save_top_k=0,
            every_n_train_steps=every_n_batches,
            enable_version_counter=False,
        )
        self.every_n_batches, self.keep = every_n_batches, keep
        self._preemption: Preemption | None = None
        self._stop_at: int | None = None
        self._stopping = False
        self._epoch_open = False  # what is being saved has the end of its epoch still before it

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # With Trainer(max_steps=...) Lightning 2.6 repeats the last epoch when it resumes from an end of epoch: stop by flag
        if stage == "fit" and trainer.max_steps != -1:
            self._stop_at, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if trainer.is_global_zero:
            clear_temporaries(self._folder, "*.ckpt")
        self._preemption = next((c for c in trainer.callbacks if isinstance(c, Preemption)), None)  # type: ignore[attr-defined]
        if self._preemption is not None:
            self._preemption.save_open_epoch = self.save_open_epoch
            self._preemption.checkpoint = str(self._folder / "last.ckpt")

    @property
    def _folder(self) -> Path:
        return Path(str(self.dirpath))

    # ------------------------------------------------------------------ when

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not (trainer.fit_loop.restarted_mid_epoch and trainer.is_last_batch):  # there, an epoch waits for its end
            self._stop(trainer)
        if self._preemption is not None:
            self._preemption.leave_if_asked(trainer)
            self._preemption.settled = trainer.world_size == 1

    def _stop(self, trainer: L.Trainer) -> None:
        if self._stop_at is not None and trainer.global_step >= self._stop_at:
            rank_zero_info(f"stopped: trainer.max_steps={self._stop_at} reached")
            trainer.should_stop = True

    @override
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        # stopping waits until here: Lightning hands a step's values to the loggers after on_train_batch_end
        if self._preemption is not None:
            if trainer.world_size == 1:
                self._preemption.settled |= self._last_global_step_saved == trainer.global_step
            if self._stopping:
                self._preemption.leave(trainer)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # From a checkpoint of an epoch's last batch Lightning 2.6 resumes wrongly: it skips as many batches of the next epoch
        # as the finished one had, and that epoch's on_train_epoch_start. The end of the epoch is saved a moment later.
        self._stop(trainer)
        if trainer.is_last_batch:
            return
        self._stopping = self._preemption is not None and self._preemption.asked(trainer)
        if self._stopping or trainer.should_stop or trainer.global_step % self.every_n_batches == 0:
            self._save(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop(trainer)
        asked = self._preemption is not None and self._preemption.asked(trainer)
        last = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
        if trainer.is_last_batch and (asked or not last):  # stopped inside the epoch, its end would be saved, the rest lost
            self._save(trainer)
        if self._preemption is not None:
            if asked:
                self._preemption.leave(trainer)
            # one rank of several that left in the middle of the next step would leave the others in its collectives
            self._preemption.settled = trainer.world_size == 1

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_last_batch:
            self._save(trainer)  # after what other callbacks write at the end: a run killed in there does it again

    def save_open_epoch(self, trainer: L.Trainer) -> None:
        """Saves before the epoch's end has been dealt with: a run that resumes from it calls all ``on_train_epoch_end``."""
        self._epoch_open = True
        try:
            self._save(trainer)
        finally:
            self._epoch_open = False
        if self._preemption is not None:
            self._preemption.settled = True

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self._epoch_open:
            return
        loop = checkpoint["loops"]["fit_loop"]
        for counted in loop["epoch_progress"].values():  # Lightning counts the epoch before it calls the hooks
            counted["processed"] -= 1
        for loader in loop["state_dict"]["combined_loader"]:  # no batch is left, also where limit_train_batches left some out
            loader["handed_out"] = len(trainer.train_dataloader)  # type: ignore[arg-type]
        if validates_now(trainer):
            batches_that_stepped(loop, -1)  # skips validation, which it counts as a batch

    # ------------------------------------------------------------------ how

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:  # type: ignore[attr-defined]
            return
        last = self._folder / "last.ckpt"
        self.last_model_path = str(last)
        if self.keep == 1:
            self._save_checkpoint(trainer, str(last))
        else:
            path = self._folder / f"step-{trainer.global_step:08d}.ckpt"
            self._save_checkpoint(trainer, str(path))
            if trainer.is_global_zero:
                _link(last, path)
                written = sorted(self._folder.glob("step-*.ckpt"), key=lambda file: (file.stat().st_mtime_ns, file.name))
                for old in written[: -self.keep]:
                    discard(old)


def _link(link: Path, target: Path) -> None:
    """Makes or moves a link; there is one at any instant, and it is on disk afterwards."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    discard(temporary)
    try:
        temporary.symlink_to(target.name)
        os.replace(temporary, link)
    finally:
        discard(temporary)
    sync_folder(link.parent)
