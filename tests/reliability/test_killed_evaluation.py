"""Killed with SIGKILL while the models are evaluated at the end of a phase: nothing is lost, nothing is written twice."""

import os
import signal

import pytest
import torch
from swirl_lightning.callbacks import benchmark_evaluation, latent_action_health
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swirl_lightning import files
from tests.processes import Life, lines


def kill_at(rank, file, label):
    """Ends this process after a line of a report."""
    append = files.append_row

    def append_row(path, row, key):
        append(path, row, key)
        if path.name == file and row["label"] == label:
            os.kill(os.getpid(), signal.SIGKILL)

    benchmark_evaluation.append_row = latent_action_health.append_row = append_row


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
    life = Life(config(run_dir=str(tmp_path / "straight")), tmp_path / "logs")
    assert life.end() == [0], life.said()
    broken, resume = config(run_dir=str(tmp_path / "broken")), []
    for file, label in (("metrics.jsonl", "warmup"), ("health.jsonl", "swirl-1-fwm"), ("metrics.jsonl", "swirl-1-idm")):
        life = Life([*broken, *resume], tmp_path / "logs", prepare=kill_at, file=file, label=label)
        assert life.end() == [-signal.SIGKILL], life.said()
        resume = ["--ckpt_path", "last"]
    life = Life([*broken, *resume], tmp_path / "logs")
    assert life.end() == [0], life.said()
    one, other = state(tmp_path / "straight"), state(tmp_path / "broken")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for file in ("metrics.jsonl", "health.jsonl"):
        assert lines(tmp_path / "broken" / file) == lines(tmp_path / "straight" / file)
    assert scalars(tmp_path / "broken") == scalars(tmp_path / "straight")
