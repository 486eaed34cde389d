"""What happens when something breaks in the middle: a full disk, numbers that are not finite."""

import errno
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swirl_lightning.algorithm import steps
from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.rewards import judge
from swirl_lightning.algorithm.steps import LossPart
from swirl_lightning.cli import main
from swirl_lightning.distributed import checkpointing
from swirl_lightning.distributed.checkpointing import AtomicCheckpointIO


def scalars(run, tag):
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


def finite(run):
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


# ---------------------------------------------------------------------- disk


@pytest.fixture
def disk_that_fills(monkeypatch):
    """After ``left`` checkpoints the next one stops half-way with ENOSPC, as ``write`` does on a full disk."""
    save = torch.save
    budget = {"left": 4}

    def half(checkpoint, file):
        budget["left"] -= 1
        if budget["left"] < 0:
            file.write(b"half a checkpoint")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(checkpoint, file)

    monkeypatch.setattr(checkpointing.torch, "save", half)
    return budget


def test_a_full_disk_leaves_the_previous_checkpoint_to_resume_from(config, complaint, disk_that_fills, tmp_path):
    arguments = config(trainer__callbacks=[])
    said = complaint(arguments)
    assert "could not write checkpoint" in said
    assert "the disk is full" in said
    assert "--ckpt_path last" in said
    folder = tmp_path / "run" / "checkpoints"
    assert [file.name for file in folder.iterdir()] == ["last.ckpt"]  # no half of anything is left
    kept = torch.load(folder / "last.ckpt", weights_only=True)
    assert 0 < kept["global_step"] < 9
    disk_that_fills["left"] = 100
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 9


def test_a_disk_that_is_really_full(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode
    if mounted != 0:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        saver, path = AtomicCheckpointIO(), folder / "last.ckpt"
        saver.save_checkpoint({"weights": torch.zeros(1000), "step": 1}, path)
        with pytest.raises(OSError, match=r"could not write checkpoint .*previous checkpoint is intact; the disk is full"):
            saver.save_checkpoint({"weights": torch.zeros(10**6), "step": 2}, path)
        assert [file.name for file in folder.iterdir()] == ["last.ckpt"]
        assert torch.load(path, weights_only=True)["step"] == 1
        saver.save_checkpoint({"weights": torch.zeros(1000), "step": 3}, path)
        assert torch.load(path, weights_only=True)["step"] == 3
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# ---------------------------------------------------------------------- numbers that are not finite


@pytest.fixture
def broken_judge(monkeypatch):
    """The judge's second call gives the third member of the first group the reward NaN."""
    calls = {"n": 0}
    reward = judge.sequence_reward

    def sequence_reward(*arguments, **options):
        rewards, clamped = reward(*arguments, **options)
        calls["n"] += 1
        if calls["n"] == 2:
            rewards = rewards.clone()
            rewards[2] = math.nan
        return rewards, clamped

    monkeypatch.setattr(judge, "sequence_reward", sequence_reward)
    return calls


def test_a_reward_that_is_not_finite_stops_the_run_and_the_sample_is_written(config, complaint, broken_judge, tmp_path):
    said = complaint(config(trainer__callbacks=[]))
    assert "the idm gave the reward nan for episode" in said
    assert "model.nonfinite=skip" in said
    (file,) = (tmp_path / "run").glob("nonfinite-*.json")
    sample = json.loads(file.read_text())
    assert sample["policy"] == "fwm"
    assert sample["judge"] == "idm"
    assert sample["episode"] in said
    assert {"state", "next_state", "latent_action", "completion", "step"} <= set(sample)
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_a_reward_that_is_not_finite_is_skipped_and_counted(config, broken_judge, tmp_path):
    assert main(config(trainer__callbacks=[], model__nonfinite="skip")) == 0
    assert scalars(tmp_path / "run", "fwm/skipped") == {3: 0.0, 4: 1.0, 5: 0.0}
    assert finite(tmp_path / "run")
    assert all(math.isfinite(value) for value in scalars(tmp_path / "run", "fwm/reward").values())


@pytest.fixture
def broken_loss(monkeypatch):
    """The second warm-up batch has a loss that is infinite."""
    calls = {"n": 0}
    parts = steps.supervised_parts

    def supervised_parts(*arguments):
        calls["n"] += 1
        for part in parts(*arguments):
            yield LossPart(part.loss * math.inf, part.sums) if calls["n"] == 2 else part

    monkeypatch.setattr(steps, "supervised_parts", supervised_parts)


def test_a_loss_that_is_not_finite_stops_the_run(config, complaint, broken_loss, tmp_path):
    said = complaint(config(trainer__callbacks=[]))
    assert "the loss is inf in phase warmup, epoch 0, step 1" in said
    (file,) = (tmp_path / "run").glob("nonfinite-*.json")
    sample = json.loads(file.read_text())
    assert sample["what"] == "loss"
    assert len(sample["transitions"]) == 4  # of the batch
    assert all({"episode", "step", "state", "next_state", "action"} <= set(row) for row in sample["transitions"])
    assert finite(tmp_path / "run")


def test_a_loss_that_is_not_finite_is_skipped_and_counted(config, broken_loss, tmp_path):
    assert main(config(trainer__callbacks=[], model__nonfinite="skip")) == 0
    assert scalars(tmp_path / "run", "warmup/nonfinite") == {0: 0.0, 1: 1.0, 2: 0.0}
    assert finite(tmp_path / "run")


def test_a_step_whose_gradient_is_not_finite_moves_nothing_and_the_next_goes_on(config, monkeypatch, tmp_path):
    norms, seen = [], []
    clip, optimise = torch.nn.utils.clip_grad_norm_, SwirlModule._optimise

    def clip_grad_norm_(parameters, *args):
        norms.append(clip(parameters, *args))
        return norms[-1] * (math.nan if len(norms) == 2 else 1)

    def looked_at(self, last):
        optimizer = self.optimizers(use_pl_optimizer=False)[0]
        before = [p.detach().clone() for p in self.warmup_parameters()]
        optimise(self, last)
        steps = {int(state["step"]) for state in optimizer.state.values()}
        moved = any(not torch.equal(a, b) for a, b in zip(before, self.warmup_parameters(), strict=True))
        seen.append((moved, steps, self.lr_schedulers()[0].last_epoch))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip_grad_norm_)
    monkeypatch.setattr(SwirlModule, "_optimise", looked_at)
    schedule = {"warmup_epochs": 1, "iterations": 0}
    assert main(config(trainer__callbacks=[], model__nonfinite="skip", model__schedule=schedule)) == 0
    assert seen == [(True, {1}, 1), (False, {1}, 2), (True, {2}, 3)]  # no step by momentum; the schedule goes on by batches
    assert scalars(tmp_path / "run", "warmup/nonfinite") == {0: 0.0, 1: 1.0, 2: 0.0}


def test_a_position_inside_other_data_is_refused(config, complaint, broken_judge):
    complaint(config(trainer__callbacks=[]))  # stops inside Phase I
    said = complaint([*config(trainer__callbacks=[], data__init_args__max_unlabelled=16), "--ckpt_path", "last"])
    assert "inside an epoch with size 12, now it is 16" in said
    assert "resume with the data and batch sizes of the run" in said


def test_nothing_to_resume_from(config, complaint):
    assert "last" in complaint([*config(trainer__callbacks=[]), "--ckpt_path", "nowhere/last.ckpt"])


def test_the_process_says_what_is_wrong_in_one_message(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "swirl_lightning", "export", str(tmp_path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("swirl: error: ")
    assert "config.yaml is missing" in done.stderr
