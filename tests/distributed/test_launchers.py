"""Ranks as users start them: with torchrun, or with ``swirl fit`` on several devices, which starts the others itself."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.distributed.harness import seen, settings
from tests.ports import free_port

VICTIM = """
import os, pathlib, signal, sys
from swirl_lightning import cli
from swirl_lightning.algorithm import module
rank, file, *arguments = sys.argv[1:]
step = module.SwirlModule.training_step
def training_step(self, batch, batch_idx):
    if self.global_step == 1 and str(self.global_rank) == rank:
        pathlib.Path(file).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)
module.SwirlModule.training_step = training_step
sys.exit(cli.main(arguments))
"""
SHORT = {
    "trainer__callbacks": [{"class_path": "tests.distributed.harness.Probe"}],
    "model__schedule": {"warmup_epochs": 1, "iterations": 0},
}


def run(*command, **variables):
    """Runs a command until all its processes have closed their output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **variables}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
def test_torchrun(world, tmp_path):
    arguments = settings(world, tmp_path / "run", strategy="fsdp", devices=2, **SHORT)
    done = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "swirl_lightning", *arguments)
    assert done.returncode == 0, done.stderr
    items = [[step["items"] for step in seen(tmp_path / "run", rank)["steps"]] for rank in range(2)]
    assert items == [[2, 2, 1], [2, 2, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_those_that_swirl_fit_started(rank, world, tmp_path):
    arguments = settings(world, tmp_path / "run", strategy="ddp", devices=2, **SHORT)
    script, fault = tmp_path / "victim.py", tmp_path / "fault"
    script.write_text(VICTIM)
    done = run(str(script), str(rank), str(fault), *arguments, MASTER_PORT=str(free_port()))
    assert time.time() - fault.stat().st_mtime < 120
    # where rank 1 dies, Lightning's observer of the ranks that were started may kill rank 0 before that one fails by itself
    assert done.returncode in ([-signal.SIGKILL] if rank == 0 else [1, -signal.SIGKILL]), done.stderr
    assert "Connection" in done.stderr or "terminated with code -9" in done.stderr
