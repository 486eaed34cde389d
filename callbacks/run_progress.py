"""Where a run stands: one line, redrawn on a terminal, written every half minute elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from swirl_lightning.callbacks.pace import Pace, time_left
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.types import Phase

_REDRAWN = 0.2  # seconds between two pictures of the line on a terminal


class RunProgress(ProgressBar):
    """Says phase, iteration, step, time left of the whole run, the phase's reward, KL and NLL, and held-out measures.

    ``swirl fit`` adds it in the place of Lightning's bar; ``trainer.enable_progress_bar: false`` turns it off. The time left is
    the least where a phase is still to come that none was timed of.

    Args:
        every: Seconds between two lines where the output is no terminal.
    """

    def __init__(self, every: float = 30.0) -> None:
        super().__init__()
        self.every = every
        self.held_out: dict[str, str] = {}  # split: its last measures, in words; filled by who measures them
        self._shown, self._pace = True, Pace()
        self._line: Progress | None = None
        self._redirected: list[tuple[logging.StreamHandler[Any], Any]] = []
        self._last = time.monotonic()

    @override
    def disable(self) -> None:
        self._shown = False

    @override
    def enable(self) -> None:
        self._shown = True

    # ------------------------------------------------------------------ what it says

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pace = Pace()
        self._pace.starts(trainer.fit_loop.batch_idx + 1)  # a run that resumes inside an epoch starts no epoch

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pace.starts(0)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SwirlModule)
        epoch, steps, done = trainer.current_epoch, int(trainer.num_training_batches), batch_idx + 1
        if self._due():
            schedule = pl_module.schedule
            left = self._pace.left(schedule, trainer.max_epochs or schedule.total_epochs, epoch, done, steps)
            before, of = (epoch, schedule.warmup_epochs) if pl_module.phase is Phase.WARMUP else (0, 1)
            place = (before * steps + done, of * steps)
            iteration = f", iteration {pl_module.iteration} of {schedule.iterations}" if pl_module.iteration else ""
            text = f"{schedule.label(epoch)}{iteration}: step {place[0]} of {place[1]}, {time_left(*left)}"
            self._say("; ".join([text, *_values(pl_module.last_values), *self._measures()]), place[0] / place[1])
        if done == steps:
            self._pace.ends(pl_module.schedule, epoch, steps)

    def counting(self, what: str) -> Callable[[int, int], None]:
        """A function that is told how many rollouts of how many are done, of what is measured between two phases."""

        def count(done: int, total: int) -> None:
            if self._due():
                self._say("; ".join([f"{what}: rollout {done} of {total}", *self._measures()]), done / total)

        return count

    @override
    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **options: Any) -> None:
        self._count_batches("validate", trainer.num_val_batches[0], *args)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            found = {name: trainer.callback_metrics.get(name) for name in ("val/fwm_nll", "val/idm_nll")}
            self.held_out["val_nll"] = ", ".join(f"{name} {float(v):.3f}" for name, v in found.items() if v is not None)

    @override
    def on_test_batch_end(self, trainer: L.Trainer, *args: Any, **options: Any) -> None:
        self._count_batches("test", trainer.num_test_batches[0], *args)

    @override
    def on_predict_batch_end(self, trainer: L.Trainer, *args: Any, **options: Any) -> None:
        self._count_batches("predict", trainer.num_predict_batches[0], *args)

    def _count_batches(self, what: str, total: float, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        if self._due():
            self._say(f"{what}: batch {batch_idx + 1} of {total}", (batch_idx + 1) / total)

    def _measures(self) -> list[str]:
        return [text for text in self.held_out.values() if text]

    # ------------------------------------------------------------------ how

    def _due(self) -> bool:
        """Whether a line is wanted now."""
        if not self._shown:
            return False
        return time.monotonic() - self._last >= (_REDRAWN if sys.stderr.isatty() or self._line else self.every)

    def _say(self, text: str, share: float) -> None:
        self._last = time.monotonic()
        if self._line is None and not sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)
            return
        if self._line is None:
            self._open()
        assert self._line is not None
        self._line.update(self._line.task_ids[0], description=text, completed=share)

    def _open(self) -> None:
        """Begins the line; what others print or log from now on appears above it."""
        before = sys.stderr
        columns = (BarColumn(20), TextColumn("{task.description}", markup=False, table_column=Column(ratio=1)))
        self._line = Progress(*columns, console=Console(stderr=True), transient=True, expand=True, refresh_per_second=4)
        self._line.add_task("", total=1.0)
        self._line.start()
        for logger in list(logging.root.manager.loggerDict.values()):
            for handler in getattr(logger, "handlers", ()):
                if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                    self._redirected.append((handler, handler.setStream(sys.stderr)))

    def _close(self) -> None:
        if self._line is None:
            return
        self._line.stop()
        self._line = None
        for handler, stream in self._redirected:
            handler.setStream(stream)
        self._redirected = []

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._close()


def _values(values: Mapping[str, float]) -> list[str]:
    """Reward, divergence and likelihoods of a step, in words."""
    shown = {n: v for n, v in values.items() if n in ("reward", "posterior_reward", "kl") or n.rpartition("_")[2] == "nll"}
    return [", ".join(f"{name} {value:.3f}" for name, value in shown.items())] if shown else []
