"""SIGTERM, and SLURM's request to requeue: the run is saved between two steps, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.distributed.watch import StoppedAloneError
from swirl_lightning.internals import cluster_environment


class Preemption(Callback):
    """Ends a run that is told to stop, so that ``--ckpt_path last`` goes on as if it had never stopped.

    On SIGTERM (a machine taken back, a pod moved, a job at its limit) the step under way is finished, :class:`RunCheckpoint`
    saves, and the process exits with status 143, as one that the signal ended. After each step the ranks agree whether any of
    them was told to stop. Where everything is saved already, during the evaluation after a phase or (in a single process) right
    after a regular checkpoint, it exits at once.
    SLURM's requeue signal (``SLURMEnvironment(requeue_signal=...)``, SIGUSR1) does the same and asks for the job again.

    Its handlers take the place of Lightning's, which talk to other ranks and save a checkpoint from inside the handler, in the
    middle of whatever a step is doing. ``swirl fit`` adds this callback by itself, before all others.
    """

    def __init__(self) -> None:
        self.settled = True  # everything done so far is in the checkpoint
        self.save_open_epoch: Callable[[L.Trainer], None] | None = None  # RunCheckpoint's
        self.checkpoint = ""  # path of what to resume from
        self._trainer: L.Trainer | None = None
        self._signal: int | None = None  # the first that came

    # ------------------------------------------------------------------ listening

    def _listen(self, trainer: L.Trainer) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._trainer, self._signal, self.settled = trainer, None, True
        signal.signal(signal.SIGTERM, self._on_signal)  # Lightning puts back what was there before, in its teardown
        if (requeue := self._requeue_signal(trainer)) is not None:
            signal.signal(requeue, self._on_signal)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.save_open_epoch is not None:
            self._listen(trainer)
            if trainer.received_sigterm:  # a moment ago, by Lightning's handler
                self.leave(trainer)

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._listen(trainer)

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen(trainer)

    @override
    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen(trainer)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        assert self._trainer is not None
        if self._signal is None:
            self._signal = number
            launcher = self._trainer.strategy.launcher
            if launcher is not None:
                launcher.kill(number)  # type: ignore[arg-type]  # the ranks that this process started
        if self.settled:
            self.leave(self._trainer, agreed=self._trainer.world_size == 1)

    # ------------------------------------------------------------------ stopping

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.settled = False

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves a phase before it is evaluated, which may take long: a resumed run evaluates again."""
        assert isinstance(pl_module, SwirlModule)
        ended = trainer.is_last_batch and pl_module.schedule.ends_phase(trainer.current_epoch)
        if self.save_open_epoch is not None and ended:
            self.save_open_epoch(trainer)
            self.leave_if_asked(trainer)

    def asked(self, trainer: L.Trainer) -> bool:
        """Whether any rank was told to stop; all ranks must call it."""
        return trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False)

    def leave_if_asked(self, trainer: L.Trainer) -> None:
        """Ends all ranks where any of them was told to stop."""
        if self.asked(trainer):
            self.leave(trainer)

    def leave(self, trainer: L.Trainer, *, agreed: bool = True) -> None:
        """Ends this process.

        Args:
            trainer: of the run.
            agreed: all ranks leave now; otherwise those that are not told to stop learn of it from this one's end.

        Raises:
            SystemExit: with 128 + the signal's number; 0 from a rank that Lightning's launcher started, which would otherwise
                kill the rank that started it.
        """
        number = signal.Signals(self._signal or signal.SIGTERM)
        if trainer.is_global_zero:
            saved = f"go on with --ckpt_path last ({self.checkpoint})"
            place = saved if os.path.exists(self.checkpoint) else "nothing was saved yet, start again"
            _say(f"{number.name}: stopped after {trainer.global_step} steps; {place}")
            if number == self._requeue_signal(trainer):
                _requeue()
        started = isinstance(cluster_environment(trainer), LightningEnvironment)
        raise (SystemExit if agreed else StoppedAloneError)(0 if started and trainer.global_rank > 0 else 128 + number)

    @staticmethod
    def _requeue_signal(trainer: L.Trainer) -> signal.Signals | None:
        environment = cluster_environment(trainer)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            return environment.requeue_signal
        return None


def _say(text: str) -> None:
    os.write(2, f"swirl: {text}\n".encode())  # not print: a handler may interrupt one


def _requeue() -> None:
    """Asks SLURM to run this job again; ``swirl fit`` then resumes by itself (``SLURM_RESTART_COUNT``)."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        problem = f"status {done.returncode}: {done.stderr.strip()}" if done.returncode else ""
    except OSError as error:
        problem = str(error)
    _say(f"job {job} could not be requeued ({problem}); submit it again" if problem else f"job {job} is requeued")
