"""The two ways to start ranks on one machine: torchrun, and ``swirl fit`` with several devices, which starts the others itself."""

import os
import subprocess
import sys
import time

import pytest

from tests.distributed.harness import seen, settings

VICTIM = """
import os, signal, sys
from swirl_lightning import cli, module
step = module.SwirlModule.training_step
def training_step(self, batch, batch_idx):
    if self.global_step == 1 and os.environ.get("LOCAL_RANK", "0") == os.environ["VICTIM"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)
module.SwirlModule.training_step = training_step
sys.exit(cli.main(sys.argv[1:]))
"""
PROBE = [{"class_path": "tests.distributed.harness.Probe"}]


def run(command, folder, **environment):
    """Runs a command; gives its status, what it printed, and its seconds."""
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **environment}
    with (folder / "log").open("w+") as log:
        status = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=240, check=False).returncode
        log.seek(0)
        return status, log.read(), time.monotonic() - started


@pytest.mark.slow
def test_torchrun(world, tmp_path):
    arguments = settings(world, tmp_path / "run", strategy="fsdp", devices=2, trainer__callbacks=PROBE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    status, log, _ = run([*torchrun, "-m", "swirl_lightning", *arguments], tmp_path)
    assert status == 0, log
    assert [[step["items"] for step in seen(tmp_path / "run", rank)["steps"]] for rank in range(2)] == [[2, 2, 1] * 3, [2, 2, 0] * 3]
