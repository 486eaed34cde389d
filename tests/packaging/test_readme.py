"""What README tells a newcomer to run: the Python and the YAML in it, as they stand."""

import re
from functools import partial

import lightning as L
import pytest
import yaml

import swirl_lightning
from swirl_lightning.environments import DoorKeyDataModule
from swirl_lightning.environments.text.doorkey import DoorKeyRecorder
from tests.packaging.prose import ROOT
from tests.packaging.test_configs import print_config

README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = dict(re.findall(r"^```(python|yaml)\n(.*?)^```", README, re.M | re.S))


def test_the_python_runs(tmp_path, monkeypatch, capsys):
    """Line for line, on few episodes and with one batch an epoch."""
    pytest.importorskip("minigrid")
    monkeypatch.chdir(tmp_path)
    few = partial(DoorKeyDataModule, DoorKeyRecorder(n_episodes=30, max_steps=4), batch_size=2)
    monkeypatch.setattr(swirl_lightning, "DoorKeyDataModule", few)
    quick = partial(L.Trainer, accelerator="cpu", limit_train_batches=1, logger=False, enable_progress_bar=False)
    monkeypatch.setattr(L, "Trainer", quick)
    exec(compile(CODE["python"], "README.md", "exec"), {})
    state, action, _ = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert state.startswith("agent ")
    assert action


def test_the_yaml_is_a_run_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "own.yaml").write_text(CODE["yaml"])
    printed = yaml.safe_load(print_config(["fit", "--config", "own.yaml"]))
    assert printed["run_dir"] == "runs/own"
    assert printed["data"]["init_args"]["columns"]["state"] == "steps.observation"
    assert printed["trainer"]["callbacks"][-1]["class_path"].endswith("ExportModels")
