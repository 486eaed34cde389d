"""The base of callbacks that look at the models when a phase is over."""

from __future__ import annotations

from abc import abstractmethod

import lightning as L
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule

START, WARMUP = "start", "warmup"
"""Labels of what the phases start from: of a run without warm-up, and after it."""


class PhaseEnd(Callback):
    """Calls :meth:`on_phase_end` after the last warm-up epoch (label ``warmup``) and after every phase (``swirl-1-fwm``, ...).

    Without a warm-up it is called before the first batch, too (``start``), where :attr:`looks_at_start` is set.
    """

    looks_at_start = False

    @abstractmethod
    def on_phase_end(self, trainer: L.Trainer, module: SwirlModule, label: str) -> None:
        """Looks at the models.

        Args:
            trainer: of the run.
            module: with the models as they are after the phase.
            label: name of that state.
        """

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SwirlModule)
        if self.looks_at_start and pl_module.schedule.warmup_epochs == 0 and trainer.global_step == 0:
            self.on_phase_end(trainer, pl_module, START)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SwirlModule)
        if pl_module.schedule.ends_phase(trainer.current_epoch):
            self.on_phase_end(trainer, pl_module, pl_module.schedule.label(trainer.current_epoch))
