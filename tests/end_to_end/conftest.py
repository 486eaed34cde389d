"""A recorded world and an untrained model, made once a session with the commands that a user types."""

import pytest
import yaml

from swirl_lightning.cli import main


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    pytest.importorskip("minigrid")
    folder = tmp_path_factory.mktemp("world")
    assert main(["record", "doorkey", "--out", str(folder / "data"), "--env.n_episodes", "16", "--env.max_steps", "12"]) == 0
    sizes = ["--hidden_size", "32", "--layers", "1", "--heads", "2", "--vocab_size", "300", "--max_positions", "160"]
    assert main(["init", "--data", str(folder / "data"), "--out", str(folder / "model"), *sizes]) == 0
    return folder


@pytest.fixture
def config(world, tmp_path):
    """A function that writes a configuration and gives the arguments of ``swirl fit``."""

    def write(**changes):
        settings = {
            "seed_everything": 0,
            "run_dir": str(tmp_path / "run"),
            "trainer": {
                "accelerator": "cpu",
                "log_every_n_steps": 1,
                "limit_val_batches": 0,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "callbacks": [
                    {"class_path": "swirl_lightning.callbacks.RolloutSampler"},
                    {"class_path": "swirl_lightning.callbacks.LatentActionHealth", "init_args": {"limit": 8}},
                    {
                        "class_path": "swirl_lightning.callbacks.BenchmarkEvaluation",
                        "init_args": {"limit": 8, "best_of": [2]},
                    },
                    {"class_path": "swirl_lightning.callbacks.ExportModels"},
                ],
            },
            "checkpoint": {"every_n_batches": 1},
            "model": {
                "world_model": {"base": str(world / "model")},
                "max_prompt_tokens": 120,
                "schedule": {"warmup_epochs": 1, "iterations": 1},
                "fwm": {"group_size": 3, "sampling": {"max_new_tokens": 40}},
                "idm": {"group_size": 3, "sampling": {"max_new_tokens": 16}},
            },
            "data": {
                "class_path": "swirl_lightning.data.TransitionDataModule",
                "init_args": {
                    "path": str(world / "data"),
                    "max_labelled": 12,
                    "max_unlabelled": 12,
                    "warmup_batch_size": 4,
                    "batch_size": 4,
                },
            },
        }
        for key, value in changes.items():
            *path, last = key.split("__")
            place = settings
            for name in path:
                place = place.setdefault(name, {})
            place[last] = value
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(settings))
        return ["fit", "--config", str(file)]

    return write
