"""A run killed with SIGKILL and resumed from its last checkpoint goes on bitwise as if nothing had happened."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KILLER = """
import os, signal, sys
import torch
from swirl_lightning import cli, module
torch.set_num_threads(1)
victim = int(os.environ["KILL_AT"])
step = module.SwirlModule.training_step
def training_step(self, batch, batch_idx):
    if self.global_step == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)
module.SwirlModule.training_step = training_step
sys.exit(cli.main(sys.argv[1:]))
"""


def run(arguments, kill_at=-1):
    environment = {**os.environ, "KILL_AT": str(kill_at), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", KILLER, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def curve(folder):
    """Every logged training scalar by tag and step; a resumed run writes a second event file."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    # mismatch is the rounding noise between decoding and scoring itself, 1e-8, and depends on where memory lies
    left_out = ("/time/", "/mismatch")
    tags = [t for t in events.Tags()["scalars"] if t.split("/")[0] in ("warmup", "fwm", "idm")]
    tags = [t for t in tags if not any(part in t for part in left_out)]
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in tags}


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
def test_killed_in_each_phase_and_resumed(every, config, tmp_path):
    def arguments(name):
        made = config(run_dir=str(tmp_path / name))
        text = (tmp_path / "config.yaml").read_text().replace("every_n_batches: 1", f"every_n_batches: {every}")
        file = tmp_path / f"{name}.yaml"
        file.write_text(text)
        return [made[0], "--config", str(file)]

    straight = run(arguments("straight"))
    assert straight.returncode == 0, straight.stderr[-2000:]
    broken = arguments("broken")
    for kill_at in (2, 4, 8):  # in the warm-up, in Phase I, in Phase II
        resume = ["--ckpt_path", "last"] if kill_at > 2 else []
        assert run([*broken, *resume], kill_at).returncode == -9
    finished = run([*broken, "--ckpt_path", "last"])
    assert finished.returncode == 0, finished.stderr[-2000:]
    for role in ("fwm", "idm"):
        one, other = (load_file(tmp_path / n / "export" / "last" / role / "model.safetensors") for n in ("straight", "broken"))
        assert all(torch.equal(one[name], other[name]) for name in one), role
    expected, found = curve(tmp_path / "straight"), curve(tmp_path / "broken")
    assert expected.keys() == found.keys()
    assert expected == found
    lines = [json.loads(line) for line in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()]
    keys = [(row["label"], row["split"], row["decoding"]) for row in lines]
    assert len(keys) == len(set(keys)) == 6
