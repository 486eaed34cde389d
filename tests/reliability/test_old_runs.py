"""Run folders, configurations and exported models of the version before the rooms (b55896d) load."""

import importlib
import json
from importlib.util import find_spec

import pytest
import torch

from swirl_lightning.cli import main
from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.commands.moved import MOVED, renamed
from swirl_lightning.types import Role

SAMPLING = {"max_new_tokens": 40, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
ROLE = {"sampling": SAMPLING, "group_size": 3, "advantage": "std", "reward": "mean", "reward_floor": -10.0, "inner_epochs": 1}
OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1.0e-3}}
OLD_MODEL = {  # as that version wrote it, but for the base
    "max_prompt_tokens": 120,
    "schedule": {"warmup_epochs": 1, "iterations": 1, "order": ["fwm", "idm"]},
    "fwm": ROLE | {"nll_weight": 0.0, "replay_weight": 0.0, "constraint": None},
    "idm": ROLE | {"reward": "sum"},
    "warmup_optimizer": OPTIMIZER,
    "lr_scheduler": {"class_path": "swirl_lightning.optim.PhaseLR", "init_args": {"warmup_steps": 0, "decay": "cosine"}},
    "engine": {"class_path": "swirl_lightning.rollout.TransformersEngine", "init_args": {"cache_tokens": 262144}},
}


@pytest.fixture
def old_run(config, world, tmp_path):
    """A run whose configuration, checkpoint and exported models hold what those of b55896d held."""
    model = OLD_MODEL | {"world_model": {"base": str(world / "model"), "storage": "separate", "dtype": "auto", "seed": 0}}
    plugins = [{"class_path": "swirl_lightning.checkpointing.AtomicCheckpointIO"}]
    exports = [{"class_path": "swirl_lightning.callbacks.ExportModels"}]
    limits = {"trainer__use_distributed_sampler": False, "trainer__reload_dataloaders_every_n_epochs": 1}
    made = config(model=model, trainer__plugins=plugins, trainer__callbacks=exports, trainer__max_epochs=3, **limits)
    assert main(made) == 0
    run = tmp_path / "run"
    (run / "config.yaml").write_text((tmp_path / "config.yaml").read_text())
    last = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    torch.save({key: value for key, value in checkpoint.items() if key not in ("place", "new_model")}, last)
    for role in Role:
        recipe = run / "export" / "last" / role.value / "swirl.json"
        held = json.loads(recipe.read_text())
        wordings = {key: held["prompts"][key] for key in ("fwm", "idm", "system", "chat")}
        recipe.write_text(json.dumps({"role": role, "prompts": wordings, "max_prompt_tokens": 120, "sampling": SAMPLING}))
    return run


def test_an_old_run_is_exported_resumed_and_its_models_are_read(old_run, tmp_path):
    assert "swirl_lightning.optim.PhaseLR" in (old_run / "config.yaml").read_text()
    assert main(["export", str(old_run), str(tmp_path / "exported")]) == 0
    for role in Role:
        parts = [folder / role.value / "model.safetensors" for folder in (tmp_path / "exported", old_run / "export" / "last")]
        assert parts[0].read_bytes() == parts[1].read_bytes()
    folder = old_run / "export" / "last"
    inference = inference_from_folders(folder / "fwm", folder / "idm")
    assert inference.prompts.max_prompt_tokens == 120
    more = ["--ckpt_path", "last", "--model.schedule.iterations", "2", "--trainer.max_epochs", "5"]
    assert main(["fit", "--config", str(old_run / "config.yaml"), *more]) == 0
    assert torch.load(old_run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 5
    now = (old_run / "config.yaml").read_text()
    assert "swirl_lightning.optim" not in now
    assert "reduce: sum" in now


def test_every_moved_name_has_a_home():
    for old, new in MOVED.items():
        assert find_spec(new) is not None
        parent, _, _ = old.rpartition(".")
        assert parent == "swirl_lightning.data" or parent == "swirl_lightning"
        assert find_spec(old) is None
    config = {"a": ["swirl_lightning.optim.adamw", {"class_path": "swirl_lightning.strategies.ShardedStrategy"}], "b": 1}
    now = renamed(config)
    assert now == {
        "a": [
            "swirl_lightning.algorithm.optimizers.adamw",
            {"class_path": "swirl_lightning.distributed.strategies.ShardedStrategy"},
        ],
        "b": 1,
    }
    module, _, name = now["a"][1]["class_path"].rpartition(".")
    assert hasattr(importlib.import_module(module), name)
