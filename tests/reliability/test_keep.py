"""The last checkpoints stay; one is whole before an older one goes, whatever happens while it is written."""

import os
import signal

import pytest
import torch

from swirl_lightning.cli import main
from swirl_lightning.distributed import checkpointing
from tests.processes import Life


def kill_at(rank, victim, place):
    """Ends this process while it writes its ``victim``-th checkpoint, or when it moves ``last.ckpt`` to it."""
    save, replace, calls = torch.save, os.replace, []

    def half(checkpoint, file):
        calls.append(0)
        if len(calls) == victim and place == "write":
            file.write(b"half a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(checkpoint, file)

    def move(source, target):
        if len(calls) == victim and str(target).endswith(place):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    torch.save, os.replace = half, move


def names(folder):
    return sorted(file.name for file in (folder / "checkpoints").iterdir())


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


def test_the_last_ones_stay_and_last_is_the_newest(config, tmp_path):
    arguments = config(trainer__callbacks=[], checkpoint__keep=3)
    assert main(arguments) == 0
    folder = tmp_path / "run" / "checkpoints"
    assert names(tmp_path / "run") == ["last.ckpt", "step-00000007.ckpt", "step-00000008.ckpt", "step-00000009.ckpt"]
    assert os.readlink(folder / "last.ckpt") == "step-00000009.ckpt"
    assert [step_of(folder / name) for name in names(tmp_path / "run")] == [9, 7, 8, 9]
    # back to an older one: what is written last stays, not what has the highest number
    assert main([*arguments, "--ckpt_path", str(folder / "step-00000007.ckpt")]) == 0
    assert step_of(folder / "last.ckpt") == 9
    assert len(names(tmp_path / "run")) == 4


@pytest.mark.parametrize("place", ["write", "last.ckpt"])
def test_killed_while_saving(place, config, tmp_path):
    arguments = config(trainer__callbacks=[], checkpoint__keep=2)
    killed = Life(arguments, tmp_path / "logs", prepare=kill_at, victim=5, place=place)
    assert killed.end() == [-signal.SIGKILL], killed.said()
    folder = tmp_path / "run" / "checkpoints"
    whole = [path for path in folder.glob("*.ckpt") if not path.name.startswith(".")]
    assert len(whole) >= 3  # two and the link
    assert all(step_of(path) > 0 for path in whole)
    assert any(path.name.endswith(".tmp") for path in folder.iterdir())  # the half one, or the link
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert names(tmp_path / "run") == ["last.ckpt", "step-00000008.ckpt", "step-00000009.ckpt"]
    assert step_of(folder / "last.ckpt") == 9


def test_a_full_disk_removes_nothing(config, complaint, monkeypatch, tmp_path):
    arguments = config(trainer__callbacks=[], checkpoint__keep=2)
    save, left = torch.save, [5]

    def full(checkpoint, file):
        left[0] -= 1
        if left[0] < 0:
            file.write(b"half")
            raise OSError(28, os.strerror(28))
        save(checkpoint, file)

    monkeypatch.setattr(checkpointing.torch, "save", full)
    assert "the disk is full" in complaint(arguments)
    before = names(tmp_path / "run")
    assert before[0] == "last.ckpt"
    assert len(before) == 3
    assert "the disk is full" in complaint([*arguments, "--ckpt_path", "last"])  # still full
    assert names(tmp_path / "run") == before
    left[0] = 100
    assert main([*arguments, "--ckpt_path", "last"]) == 0
