"""Any logger will do: the run folder is whole with each, and what a logger takes it gets."""

import csv
import json
from typing import ClassVar

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from swirl_lightning.callbacks.loggers import log_image, log_text

from swirl_lightning.cli import main

WHOLE = ("config.yaml", "metrics.jsonl", "samples.jsonl", "health.jsonl", "steps.jsonl", "checkpoints/last.ckpt")


class Recording(Logger):
    """A logger with a folder of its own, which takes texts and pictures as W&B's does."""

    calls: ClassVar = []

    def __init__(self, save_dir: str = "somewhere"):
        super().__init__()
        self._save_dir = save_dir

    name, version = "recording", "1"

    @property
    def save_dir(self):
        return self._save_dir

    def log_metrics(self, metrics, step=None):
        self.calls.append(("metrics", set(metrics), step))

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_text(self, key, columns=None, data=None, dataframe=None, step=None):
        self.calls.append(("text", key, data[0][0]))

    def log_image(self, key, images, step=None, **kwargs):
        self.calls.append(("image", key, images[0].shape))


def fit(config, tmp_path, name, **init_args):
    logger = {"class_path": name, "init_args": {"save_dir": str(tmp_path / "elsewhere"), **init_args}}
    assert main(config(trainer__logger=logger)) == 0
    run = tmp_path / "run"
    assert [file for file in WHOLE if not (run / file).exists()] == []
    assert (run / "export" / "last" / "fwm" / "config.json").is_file()
    assert not list((tmp_path / "elsewhere").rglob("config.yaml"))
    return run


def test_csv(config, tmp_path, caplog):
    run = fit(config, tmp_path, "lightning.pytorch.loggers.CSVLogger")
    (file,) = (tmp_path / "elsewhere").rglob("metrics.csv")
    rows = list(csv.DictReader(file.open()))
    assert {"warmup/nll", "fwm/reward", "idm/kl", "val/fwm_exact_match_greedy", "health/code_gap"} <= rows[0].keys()
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert [step["label"] for step in steps] == ["warmup"] * 3 + ["swirl-1-fwm"] * 3 + ["swirl-1-idm"] * 3
    assert [step["global_step"] for step in steps] == list(range(1, 10))
    nll = [float(row["warmup/nll"]) for row in rows if row["warmup/nll"]]
    assert [step["nll"] for step in steps[:3]] == pytest.approx(nll)
    assert caplog.text.count(f"CSVLogger takes no texts: they are in {run}/samples.jsonl") == 1
    assert main(["export", str(run), str(tmp_path / "out")]) == 0  # what reads a run needs no logger's folder


def test_one_that_takes_texts(config, tmp_path):
    Recording.calls.clear()
    fit(config, tmp_path, f"{__name__}.Recording")
    assert {call[1] for call in Recording.calls if call[0] == "text"} == {"samples/fwm", "samples/idm"}
    assert any("**true next state**" in call[2] for call in Recording.calls if call[0] == "text")
    assert [step for kind, names, step in Recording.calls if kind == "metrics" and "warmup/nll" in names] == [0, 1, 2]


class Trainer:
    global_step = 7

    def __init__(self, folder, *loggers):
        self.default_root_dir, self.loggers = str(folder), loggers


def test_pictures_go_to_each_logger_that_takes_them(tmp_path, caplog):
    Recording.calls.clear()
    board, table = TensorBoardLogger(tmp_path, name="", version=""), CSVLogger(tmp_path)
    trainer, image = Trainer(tmp_path, Recording(), board, table), np.zeros((4, 6, 3), np.uint8)
    for _ in range(2):
        log_image(trainer, "pictures/groups", image, "pictures")
        log_text(trainer, "samples/fwm", "**x**", "samples.jsonl")
    assert Recording.calls == [("image", "pictures/groups", (4, 6, 3)), ("text", "samples/fwm", "**x**")] * 2
    said = caplog.text
    assert said.count(f"CSVLogger takes no pictures: they are in {tmp_path}/pictures") == 1
    assert "Recording takes" not in said
    board.finalize("success")
    events = b"".join(file.read_bytes() for file in tmp_path.glob("events.out.tfevents.*"))
    assert b"pictures/groups" in events
    assert b"samples/fwm" in events
