"""A run killed with SIGKILL and resumed from its last checkpoint goes on bitwise as if nothing had happened."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swirl_lightning.algorithm.module import SwirlModule
from tests.processes import Life


def kill_at(rank, step):
    """Ends this process before a step."""
    training_step = SwirlModule.training_step

    def stop_or_step(self, batch, batch_idx):
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, batch, batch_idx)

    SwirlModule.training_step = stop_or_step


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

    life = Life(arguments("straight"), tmp_path / "logs")
    assert life.end() == [0], life.said()
    broken = arguments("broken")
    for step in (2, 4, 8):  # in the warm-up, in Phase I, in Phase II
        resume = ["--ckpt_path", "last"] if step > 2 else []
        life = Life([*broken, *resume], tmp_path / "logs", prepare=kill_at, step=step)
        assert life.end() == [-signal.SIGKILL], life.said()
    life = Life([*broken, "--ckpt_path", "last"], tmp_path / "logs")
    assert life.end() == [0], life.said()
    for role in ("fwm", "idm"):
        one, other = (load_file(tmp_path / n / "export" / "last" / role / "model.safetensors") for n in ("straight", "broken"))
        assert all(torch.equal(one[name], other[name]) for name in one), role
    expected, found = curve(tmp_path / "straight"), curve(tmp_path / "broken")
    assert expected.keys() == found.keys()
    assert expected == found
    lines = [json.loads(line) for line in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()]
    keys = [(row["label"], row["split"], row["decoding"]) for row in lines]
    assert len(keys) == len(set(keys)) == 6
