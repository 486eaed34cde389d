"""The package as a library: its public names, and runs that only a plain Trainer makes."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
from transformers import AutoConfig

import swirl_lightning
import swirl_lightning.environments
from swirl_lightning import DoorKeyDataModule, PhaseSchedule, RoleSettings, SamplingParams, SwirlModule, TransitionDataModule
from swirl_lightning.environments.text.doorkey import DoorKeyRecorder
from swirl_lightning.types import Phase
from tests.end_to_end.conftest import world

__all__ = ["world"]


def test_every_public_name_is_there_for_people_and_for_type_checkers():
    assert sorted(swirl_lightning.__all__) == sorted(set(swirl_lightning.__all__))
    assert all(getattr(swirl_lightning, name).__name__ == name for name in swirl_lightning.__all__)
    assert set(swirl_lightning.environments.__all__) <= set(swirl_lightning.__all__)
    assert set(swirl_lightning.__all__) <= set(dir(swirl_lightning))
    tree = ast.parse(Path(swirl_lightning.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    assert sorted(alias.name for node in checked.body for alias in node.names) == sorted(swirl_lightning.__all__)
    with pytest.raises(AttributeError, match="no attribute 'SwirlModul'"):
        _ = swirl_lightning.SwirlModul


def test_the_import_is_light_until_a_name_is_used():
    code = "import sys, swirl_lightning; assert not {'torch', 'lightning', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


class Phases(L.Callback):
    """The phases of the epochs that were trained."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, module):
        self.seen.append(module.phase)


def test_defaults_only(world, tmp_path):
    data = DoorKeyDataModule(DoorKeyRecorder(n_episodes=30, max_steps=3), str(tmp_path / "doorkey"), batch_size=2)
    base = shutil.copytree(world / "model", tmp_path / "base")
    AutoConfig.from_pretrained(base, max_position_embeddings=512).save_pretrained(base)
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False, limit_train_batches=1)
    trainer.fit(SwirlModule(str(base)), data)
    assert trainer.current_epoch == PhaseSchedule().total_epochs == 5


def test_a_plain_trainer_needs_no_setting(world, tmp_path):
    short = {"group_size": 2, "sampling": SamplingParams(max_new_tokens=16)}
    module = SwirlModule(
        str(world / "model"),
        max_prompt_tokens=120,
        schedule=PhaseSchedule(iterations=1),
        fwm=RoleSettings(**short | {"sampling": SamplingParams(max_new_tokens=40)}),
        idm=RoleSettings(**short),
    )
    data = TransitionDataModule(str(world / "data"), max_labelled=12, max_unlabelled=6)
    phases = Phases()
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False, callbacks=[phases])
    trainer.fit(module, data)
    assert phases.seen == [Phase.WARMUP, Phase.FWM, Phase.IDM]
    assert trainer.max_epochs == 3
    assert {"warmup/nll", "fwm/reward", "idm/reward"} <= trainer.logged_metrics.keys() | trainer.callback_metrics.keys()
