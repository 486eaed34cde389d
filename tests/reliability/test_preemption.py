"""Told to stop with SIGTERM: saved between two steps, ended with status 143, and gone on with as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from swirl_lightning.callbacks import benchmark_evaluation

from swirl_lightning import cli
from swirl_lightning.algorithm.module import SwirlModule
from tests.ports import free_port
from tests.processes import Life, lines, same_weights
from tests.reliability.test_killed_evaluation import scalars


def stop_at(rank, place="", number=-1, only_rank=None):
    """Sends SIGTERM to this process in the middle of a step, or when an evaluation begins."""

    def stop(here, now):
        if (here, now) == (place, number) and only_rank in (None, rank):
            os.kill(os.getpid(), signal.SIGTERM)

    step, run, calls = SwirlModule.training_step, benchmark_evaluation.run_benchmark, []

    def training_step(self, batch, batch_idx):
        stop("step", self.global_step)
        return step(self, batch, batch_idx)

    def run_benchmark(*arguments, **options):
        calls.append(0)
        stop("evaluation", len(calls))
        return run(*arguments, **options)

    SwirlModule.training_step, benchmark_evaluation.run_benchmark = training_step, run_benchmark


def saved(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


@pytest.mark.slow
def test_stopped_in_every_phase_and_in_evaluations(config, tmp_path):
    changes = {"checkpoint__every_n_batches": 100, "checkpoint__keep": 2, "trainer__limit_val_batches": 1}
    straight = Life(config(run_dir=str(tmp_path / "straight"), **changes), tmp_path / "logs")
    assert straight.end() == [0], straight.said()
    broken, resume = config(run_dir=str(tmp_path / "broken"), **changes), []
    # the step under way is finished; the evaluation that is stopped begins again, so its first call is the next life's first
    for place, number, steps in (("step", 1, 2), ("step", 4, 5), ("evaluation", 1, 6), ("step", 7, 8), ("evaluation", 2, 9)):
        life = Life([*broken, *resume], tmp_path / "logs", prepare=stop_at, place=place, number=number)
        assert life.end() == [143], life.said()
        assert f"swirl: SIGTERM: stopped after {steps} steps; go on with --ckpt_path last" in life.said()
        assert "Traceback" not in life.said()
        assert saved(tmp_path / "broken") == steps
        resume = ["--ckpt_path", "last"]
    finished = Life([*broken, *resume], tmp_path / "logs")
    assert finished.end() == [0], finished.said()
    assert same_weights(*(tmp_path / name / "checkpoints" / "last.ckpt" for name in ("straight", "broken")))
    for file in ("metrics.jsonl", "health.jsonl"):
        assert lines(tmp_path / "broken" / file) == lines(tmp_path / "straight" / file)
    assert scalars(tmp_path / "broken") == scalars(tmp_path / "straight")
    assert sorted(p.name for p in (tmp_path / "broken" / "export").iterdir()) == ["last", "warmup"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_stop_after_the_same_step(strategy, config, tmp_path):
    """One of them is told to; both finish the step, one checkpoint is saved, both leave."""
    callbacks = [{"class_path": "swirl_lightning.callbacks.LatentActionHealth", "init_args": {"limit": 4}}]
    changes = {"checkpoint__every_n_batches": 100, "trainer__callbacks": callbacks, "trainer__strategy": strategy}
    straight = Life(config(run_dir=str(tmp_path / "straight"), trainer__devices=2, **changes), tmp_path / "logs", ranks=2)
    assert straight.end() == [0, 0], straight.said()
    broken, resume = config(run_dir=str(tmp_path / "broken"), trainer__devices=2, **changes), []
    for only_rank, step in ((1, 1), (0, 7)):
        where = {"place": "step", "number": step, "only_rank": only_rank}
        life = Life([*broken, *resume], tmp_path / "logs", ranks=2, prepare=stop_at, **where)
        assert life.end() == [143, 143], life.said()
        assert life.said().count("SIGTERM: stopped after") == 1
        assert saved(tmp_path / "broken") == step + 1
        assert [file.name for file in (tmp_path / "broken" / "checkpoints").iterdir()] == ["last.ckpt"]
        resume = ["--ckpt_path", "last"]
    finished = Life([*broken, *resume], tmp_path / "logs", ranks=2)
    assert finished.end() == [0, 0], finished.said()
    assert same_weights(*(tmp_path / name / "checkpoints" / "last.ckpt" for name in ("straight", "broken")))
    assert lines(tmp_path / "broken" / "health.jsonl") == lines(tmp_path / "straight" / "health.jsonl")


@pytest.mark.slow
def test_a_rank_that_ends_at_once_ends_the_others(config, tmp_path):
    """Phase I is saved when its evaluation begins, so one that is told to leaves; the other must not wait for it."""
    evaluation = {"class_path": "swirl_lightning.callbacks.BenchmarkEvaluation", "init_args": {"limit": 4}}
    changes = {"trainer__callbacks": [evaluation], "trainer__strategy": "ddp", "trainer__devices": 2}
    where = {"place": "evaluation", "number": 3, "only_rank": 1}
    life = Life(config(**changes), tmp_path / "logs", ranks=2, prepare=stop_at, **where)
    assert life.end() == [1, 143], life.said()
    assert saved(tmp_path / "run") == 6
    resumed = Life([*config(**changes), "--ckpt_path", "last"], tmp_path / "logs", ranks=2)
    assert resumed.end() == [0, 0], resumed.said()
    assert saved(tmp_path / "run") == 9


@pytest.mark.slow
def test_the_process_that_started_the_ranks_is_told(config, tmp_path):
    """As typed, `swirl fit` starts the second rank itself, and a scheduler tells the first one only."""
    samples = [{"class_path": "swirl_lightning.callbacks.RolloutSampler"}]
    changes = {"checkpoint__every_n_batches": 100, "trainer__callbacks": samples, "model__schedule": {"iterations": 20}}
    arguments = config(trainer__strategy="ddp", trainer__devices=2, **changes)
    with as_typed(arguments, tmp_path / "log") as (process, log):
        until = time.monotonic() + 900
        while not (tmp_path / "run" / "samples.jsonl").exists():  # Phase I
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.05)
        process.terminate()
        assert process.wait(300) == 143, log.read_text()[-3000:]
        assert log.read_text().count("swirl: SIGTERM: stopped after") == 1
        assert "Traceback" not in log.read_text()
        assert saved(tmp_path / "run") >= 3
        all_end(process.pid, 300)


@pytest.mark.slow
def test_a_job_stopped_while_it_starts_leaves_no_rank_behind(config, tmp_path):
    arguments = config(trainer__strategy="ddp", trainer__devices=2, trainer__callbacks=[])
    with as_typed(arguments, tmp_path / "log") as (process, log):
        until = time.monotonic() + 600
        while len(running(process.pid)) < 2:
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.05)
        process.terminate()  # the second rank may not have begun to import, the first waits for it
        assert process.wait(300) == -signal.SIGTERM
        all_end(process.pid, 300)
        assert "the process that started this rank is gone" in log.read_text()


ORPHAN = """
import sys, time
from swirl_lightning.cli import watch_parent
watch_parent()
assert "torch" not in sys.modules  # whose import would be a time in which nobody listens
time.sleep(120)
"""


def test_a_rank_whose_launcher_is_gone_before_it_can_ask_ends(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = {**os.environ, "LOCAL_RANK": "1", "SWIRL_LAUNCHER": str(gone.pid)}
    rank = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=False, env=environment)
    assert rank.returncode == 1
    assert "the process that started this rank is gone" in rank.stderr


@contextmanager
def as_typed(arguments, log):
    """``swirl`` in a process of its own, which starts the other ranks; nothing of it is left afterwards."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
    with log.open("w") as file:
        command = [sys.executable, "-m", "swirl_lightning", *arguments]
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        yield process, log
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def all_end(group, seconds):
    """Waits for the processes of a group to end."""
    until = time.monotonic() + seconds
    while running(group):
        assert time.monotonic() < until, running(group)
        time.sleep(0.1)


def running(group):
    """Processes of a group that have not ended (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, its_group, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(its_group) == group and state != "Z":
                found.append(folder.name)
    return found


@pytest.mark.parametrize("command", ["test", "predict"])
def test_commands_that_train_nothing_end_at_once(command, config, monkeypatch, capfd, tmp_path):
    fit, *settings = config(trainer__callbacks=[], model__schedule={"warmup_epochs": 1, "iterations": 0})
    assert cli.main([fit, *settings]) == 0
    step = getattr(SwirlModule, f"{command}_step")

    def told(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SwirlModule, f"{command}_step", told)
    with pytest.raises(SystemExit) as stop:
        cli.main([command, *settings, "--ckpt_path", "last"])
    assert stop.value.code == 143
    assert "swirl: SIGTERM: " in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.fixture
def signal_at(monkeypatch):
    """A function that says before which step this process gets which signal; its handlers are put back afterwards."""
    at = {"step": -1, "signal": signal.SIGTERM}
    step = SwirlModule.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == at["step"]:
            os.kill(os.getpid(), at["signal"])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SwirlModule, "training_step", training_step)
    yield lambda step, number=signal.SIGTERM: at.update(step=step, signal=number)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_nothing_is_saved_twice_and_nothing_waits(config, signal_at, capfd, tmp_path):
    """With a checkpoint after every batch, all is saved when the signal comes: the next step is not finished."""
    signal_at(5)
    with pytest.raises(SystemExit) as stop:
        cli.main(config(trainer__callbacks=[]))
    assert stop.value.code == 143
    assert "stopped after 5 steps; go on with --ckpt_path last" in capfd.readouterr().err
    assert saved(tmp_path / "run") == 5
    signal_at(0)
    with pytest.raises(SystemExit) as stop:
        cli.main(config(trainer__callbacks=[], run_dir=str(tmp_path / "new")))
    assert "stopped after 0 steps; nothing was saved yet, start again" in capfd.readouterr().err


def test_slurm_is_asked_for_the_job_again(config, signal_at, capfd, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $* > {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    slurm = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "swirl", "SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    for name, value in {**slurm, "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(name, value)
    arguments = config(trainer__callbacks=[], checkpoint__every_n_batches=100)
    signal_at(4, signal.SIGUSR1)
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 128 + signal.SIGUSR1
    said = capfd.readouterr().err
    assert "swirl: SIGUSR1: stopped after 5 steps" in said
    assert "swirl: job 77 is requeued" in said
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    assert saved(tmp_path / "run") == 5
    assert not list((tmp_path / "run").glob("hpc_ckpt*"))  # Lightning's, from the middle of a step
    signal_at(-1)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert cli.main(arguments) == 0  # the same command again
    assert saved(tmp_path / "run") == 9
    assert not list((tmp_path / "run").glob("earlier-*"))
