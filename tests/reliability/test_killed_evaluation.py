"""Killed with SIGKILL while the models are evaluated at the end of a phase: nothing is lost, nothing is written twice."""

import json
import os
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KILLER = """
import os, signal, sys
import torch
from swirl_lightning import cli
from swirl_lightning.callbacks import benchmark_evaluation, latent_action_health
torch.set_num_threads(1)
file, label = os.environ["KILL_AT"].split(":")
append = benchmark_evaluation.append_row
def append_row(path, row, key):
    append(path, row, key)
    if path.name == file and row["label"] == label:
        os.kill(os.getpid(), signal.SIGKILL)
benchmark_evaluation.append_row = latent_action_health.append_row = append_row
sys.exit(cli.main(sys.argv[1:]))
"""


def run(arguments, kill_at=":"):
    environment = {**os.environ, "KILL_AT": kill_at, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", KILLER, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def lines(path):
    """Lines of a report without what a clock says."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("seconds", "elapsed")} for row in rows]


def state(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def scalars(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    # mismatch is the rounding noise between decoding and scoring itself, 1e-8, and depends on where memory lies
    left_out = ("time/", "bar/", "/mismatch")
    tags = [tag for tag in events.Tags()["scalars"] if not any(part in tag for part in left_out)]
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}


@pytest.mark.slow
def test_killed_while_evaluating_after_every_phase(config, tmp_path):
    done = run(config(run_dir=str(tmp_path / "straight")))
    assert done.returncode == 0, done.stderr[-2000:]
    broken, resume = config(run_dir=str(tmp_path / "broken")), []
    for kill_at in ("metrics.jsonl:warmup", "health.jsonl:swirl-1-fwm", "metrics.jsonl:swirl-1-idm"):
        killed = run([*broken, *resume], kill_at)
        assert killed.returncode == -9, killed.stderr[-2000:]
        resume = ["--ckpt_path", "last"]
    done = run([*broken, *resume])
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = state(tmp_path / "straight"), state(tmp_path / "broken")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for file in ("metrics.jsonl", "health.jsonl"):
        assert lines(tmp_path / "broken" / file) == lines(tmp_path / "straight" / file)
    assert scalars(tmp_path / "broken") == scalars(tmp_path / "straight")
