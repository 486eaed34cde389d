"""Killed again and again at random moments: every resume goes on, and the end is that of a run that nobody disturbed.

``make soak`` kills fifty times; ``make test`` three times.
"""

import random
import shutil
import signal
import subprocess
import time
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from swirl_lightning.data.reader import read_transitions
from tests.processes import Life, lines, same_weights
from tests.soak.watched import PLACES, Board, steps, watch

SETTINGS = {
    "checkpoint__every_n_batches": 2,
    "checkpoint__keep": 2,
    "model__schedule": {"warmup_epochs": 2, "iterations": 1},
    "trainer__callbacks": [
        {"class_path": "swirl_lightning.callbacks.RolloutSampler"},
        {"class_path": "swirl_lightning.callbacks.LatentActionHealth", "init_args": {"limit": 4}},
        {"class_path": "swirl_lightning.callbacks.BenchmarkEvaluation", "init_args": {"limit": 4}},
        {"class_path": "swirl_lightning.callbacks.ExportModels"},
    ],
}
SHARDED = {"class_path": "swirl_lightning.distributed.strategies.ShardedStrategy", "init_args": {"sharded_checkpoints": True}}


class Runs:
    """The same run several times: undisturbed, and killed."""

    def __init__(self, config, folder, ranks, **changes):
        self.folder, self.ranks = folder, ranks
        self.arguments = config(**SETTINGS, **changes)
        began = time.monotonic()
        life = self.live("straight")
        assert life.end(300) == [0] * ranks, life.said()
        self.seconds = time.monotonic() - began

    def live(self, name, resume=False):
        arguments = [*self.arguments, "--run_dir", str(self.folder / name), *(["--ckpt_path", "last"] if resume else [])]
        record = self.folder / f"{name}-steps"
        board = self.folder / "board"
        return Life(arguments, self.folder / "logs", self.ranks, watch, board=board, record=record)

    def check(self, name):
        """A run that was killed ended as the one that was not."""
        one, other = self.folder / "straight", self.folder / name
        assert same_weights(one / "checkpoints" / "last.ckpt", other / "checkpoints" / "last.ckpt"), name
        for role in ("fwm", "idm"):
            exported = [load_file(run / "export" / "last" / role / "model.safetensors") for run in (one, other)]
            assert all(torch.equal(exported[0][k], exported[1][k]) for k in exported[0]), (name, role)
        for file in ("metrics.jsonl", "health.jsonl"):
            assert lines(one / file) == lines(other / file), (name, file)
        for rank in range(self.ranks):  # no sample lost or repeated: a step that was taken again had the same ones
            assert steps(self.folder / f"{name}-steps", rank) == steps(self.folder / "straight-steps", rank), (name, rank)


def soak(runs, kills, seed, say):
    """Kills runs at random moments of places in turn until there were enough kills; every run comes to its end.

    Returns:
        Number of kills by place and signal.
    """
    rng, counts, number, places, resume = random.Random(seed), Counter(), 0, [], False
    board = Board(runs.folder / "board")
    while sum(counts.values()) < kills:
        places = places or rng.sample(PLACES, len(PLACES))
        sent, name = rng.choice((signal.SIGKILL, signal.SIGTERM)), f"killed-{number}"
        board.put(0, "start")
        life = runs.live(name, resume)
        while life.alive and board.place() != places[-1]:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, runs.seconds / (2 if places[-1] == "start" else 30)))
        where, alive = board.place(), life.alive
        only = rng.randrange(runs.ranks) if sent == signal.SIGKILL and rng.random() < 0.5 else None  # one rank, or all
        life.send(sent, only)
        statuses = life.end(120)
        if not alive:
            assert statuses == [0] * runs.ranks, life.said()
            runs.check(name)
            number, resume = number + 1, False
            continue
        places.pop()
        assert statuses != [0] * runs.ranks or sent == signal.SIGTERM, life.said()
        if 143 in statuses:
            saved, finished = saved_step(runs.folder / name), max(steps(runs.folder / f"{name}-steps"), default=-1) + 1
            assert saved >= finished - 1, life.said()
        counts[where, sent.name] += 1
        resume = True
        say(f"kill {sum(counts.values())} of {kills}: {sent.name} in {where}, statuses {statuses}, run {number}")
    name = f"killed-{number}"
    life = runs.live(name, resume)
    assert life.end(300) == [0] * runs.ranks, life.said()
    runs.check(name)
    say(f"{number + 1} runs ended as the undisturbed one; kills by place and signal: {dict(sorted(counts.items()))}")
    return counts


def saved_step(run):
    last = run / "checkpoints" / "last.ckpt"
    return torch.load(last, weights_only=True)["global_step"] if last.exists() else 0


@pytest.fixture
def say(capsys):
    """Prints at once, also while pytest captures."""

    def show(text):
        with capsys.disabled():
            print(f"soak: {text}", flush=True)

    return show


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "ranks"), [("auto", 1), ("ddp", 2), ("fsdp", 2), (SHARDED, 2)])
def test_killed_at_random_moments(strategy, ranks, config, kills, soak_seed, say, tmp_path):
    if ranks == 2 and kills < 10:
        pytest.skip("two processes only in make soak")
    runs = Runs(config, tmp_path, ranks, trainer__strategy=strategy, trainer__devices=ranks)
    say(f"{strategy}, {ranks} process(es): an undisturbed run takes {runs.seconds:.0f} s")
    soak(runs, kills * 3 // 5 if ranks == 1 else kills // 10, soak_seed, say)


@pytest.mark.slow
def test_recording_killed_at_random_moments(kills, soak_seed, say, tmp_path):
    pytest.importorskip("minigrid")
    rng, number = random.Random(soak_seed), max(1, kills // 5)

    def arguments(name):
        return ["record", "doorkey", "--out", str(tmp_path / name), "--env.n_episodes", "300", "--env.max_steps", "40"]

    began = time.monotonic()
    life = Life(arguments("straight"), tmp_path / "logs")
    assert life.end() == [0], life.said()
    seconds, whole = time.monotonic() - began, list(read_transitions(tmp_path / "straight"))
    for kill in range(number):
        life, sent = Life(arguments("killed"), tmp_path / "logs"), rng.choice((signal.SIGKILL, signal.SIGTERM))
        time.sleep(rng.uniform(0, 1.1 * seconds))
        life.send(sent)
        assert life.end() in ([0], [-sent]), life.said()
        if (tmp_path / "killed" / "transitions.parquet").exists():
            assert list(read_transitions(tmp_path / "killed")) == whole
        say(f"kill {kill + 1} of {number}: {sent.name} while recording")
    life = Life(arguments("killed"), tmp_path / "logs")
    assert life.end() == [0], life.said()
    assert list(read_transitions(tmp_path / "killed")) == whole
    assert sorted(file.name for file in (tmp_path / "killed").iterdir()) == ["manifest.json", "transitions.parquet"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own at ``killed-0``."""
    folder = tmp_path / "killed-0"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    with (folder / "filler").open("wb") as file:
        try:
            while True:
                file.write(bytes(65536))
                file.flush()
        except OSError:
            pass


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["full disk", "read-only folder"])
def test_a_disk_that_cannot_be_written(trouble, config, kills, small_disk, say, tmp_path):
    if kills < 10:
        pytest.skip("only in make soak")
    runs = Runs(config, tmp_path, 1)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    board = Board(tmp_path / "board")
    life = runs.live("killed-0")
    while life.alive and board.place() != "fwm":
        time.sleep(0.001)
    if trouble == "full disk":
        fill(small_disk)
    else:
        while subprocess.run(remount, capture_output=True, check=False).returncode:  # busy while a file is open for writing
            time.sleep(0.001)
    (status,) = life.end()
    assert status == 1, life.said()
    assert ("No space left" if trouble == "full disk" else "Read-only file system") in life.said()
    assert "Traceback" not in life.said()
    say(f"{trouble}: the run ended with {life.said().strip().splitlines()[-2][:160]}")
    again = runs.live("killed-0", resume=True)  # still so
    assert again.end() == [1], again.said()
    if trouble == "full disk":
        (small_disk / "filler").unlink()
    else:
        subprocess.run([*remount[:2], "remount,rw", remount[-1]], check=True)
    last = runs.live("killed-0", resume=True)
    assert last.end() == [0], last.said()
    runs.check("killed-0")
    shutil.rmtree(small_disk / "export")
