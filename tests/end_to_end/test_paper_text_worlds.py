"""The text worlds of the paper (arXiv:2602.06130): its settings as shipped, and whole runs of the configurations."""

import json
from pathlib import Path

import pytest
import yaml

from swirl_lightning import environments
from swirl_lightning.cli import main
from swirl_lightning.commands.overlays import read_config
from swirl_lightning.world_model.prompts import PromptTemplates
from tests import released

CONFIGS = Path(__file__).parents[2] / "configs"
WORLDS = {  # G, longest prompt, measures of the table
    "scienceworld": (16, 4096, {"rouge_l", "bleu", "exact_match"}),
    "mind2web": (16, 4096, {"rouge_l", "dom_edit_distance", "changed_element_f1"}),
    "stabletoolbench": (64, 8126, {"tool_bleu", "json_valid", "error_accuracy", "field_f1"}),
}


@pytest.mark.parametrize("world", WORLDS)
def test_the_papers_settings(world):
    settings = read_config(CONFIGS / "paper" / f"{world}.yaml")
    model, data = settings["model"], settings["data"]["init_args"]
    group, longest, _ = WORLDS[world]
    assert model["world_model"]["base"] == "Qwen/Qwen2.5-3B-Instruct"
    assert model["world_model"]["storage"] == "separate"
    assert (data["batch_size"], data["labelled_fraction"], model["max_prompt_tokens"]) == (128, 0.5, longest)
    for role in ("fwm", "idm"):
        assert (model[role]["group_size"], model[role]["grpo"]["beta"]) == (group, 0.1)
        assert model[role]["sampling"] == {"max_new_tokens": 4096, "temperature": 0.7, "top_p": 0.96}
        assert model[f"{role}_optimizer"]["init_args"]["lr"] == 5e-5
    assert model["lr_scheduler"]["init_args"] == {"warmup_steps": 25, "decay": "cosine", "floor": 0.0}
    recorded_there = getattr(environments, settings["data"]["class_path"])
    assert issubclass(recorded_there, environments.WorldDataModule)
    assert data["recorder"]


@pytest.mark.parametrize(
    "name", ["scienceworld.yaml", "mind2web.yaml", "stabletoolbench.yaml", *(f"paper/{world}.yaml" for world in WORLDS)]
)
def test_prompts_have_their_slots_and_real_line_ends(name):
    prompts = read_config(CONFIGS / name)["model"]["prompts"]
    templates = PromptTemplates(**prompts)
    assert templates.chat is name.startswith("paper/")
    assert all("\n" in wording and "\\n" not in wording for wording in (*templates.fwm, *templates.idm))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder in which the configurations' own paths lead to files of the test."""
    (tmp_path / "configs").symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(world, here):
    """Tiny data where ``configs/paper`` expects them; returns what a run of it must be told."""
    if world == "scienceworld":  # without the simulator
        released.scienceworld(here / "data" / "scienceworld-paper")
        return {"data": "TransitionDataModule"}
    told = {}
    if world == "mind2web":
        released.mind2web(here, filler=1)
    else:
        train, test = released.mirror_api(here)
        told = {"recorder.train": str(train), "recorder.test": str(test), "val_fraction": 0.2}
    told = {f"data.init_args.{name}": value for name, value in told.items()}
    assert main(["record", "--config", f"configs/paper/{world}.yaml", *(f"--{key}={told[key]}" for key in told)]) == 0
    return told


def fit(config, **changes):
    """Runs a configuration, short, and returns the rows of its table."""
    short = {"trainer.accelerator": "cpu", "trainer.devices": 1, "trainer.enable_progress_bar": False}
    short |= {"trainer.limit_train_batches": 1, "model.schedule.warmup_epochs": 1, "model.schedule.iterations": 1}
    short |= {"data.init_args.warmup_batch_size": 4, "data.init_args.batch_size": 1, "data.init_args.max_test": 2}
    options = [f"--{key}={value}" for key, value in sorted((short | changes).items())]  # the class of data before its options
    assert main(["fit", "--config", config, *options]) == 0
    return [json.loads(line) for line in (Path(changes["run_dir"]) / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_the_papers_configuration_runs_with_a_tiny_model(world, here):
    """Everything as in the file but for the weights, the lengths and the number of steps."""
    told = record(world, here)
    path = yaml.safe_load((CONFIGS / "paper" / f"{world}.yaml").read_text())["data"]["init_args"]["path"]
    released.tiny_qwen(path, "model")
    lengths = {"max_prompt_tokens": 500, "fwm.sampling.max_new_tokens": 64, "idm.sampling.max_new_tokens": 128}
    rows = fit(
        f"configs/paper/{world}.yaml",
        run_dir="run",
        **{"model.world_model.base": "model", "data.init_args.max_val": 2, **told},
        **{f"model.{name}": value for name, value in lengths.items()},
    )
    assert {row["label"] for row in rows} == {"warmup", "swirl-1-fwm", "swirl-1-idm"}
    assert {row["split"] for row in rows} == {"val", "test"}
    for row in rows:
        assert WORLDS[world][2] <= row["fwm"].keys() & row["copy"].keys()
    exported = json.loads(Path("run/export/warmup/fwm/config.json").read_text())
    assert exported["architectures"] == ["Qwen2ForCausalLM"]


@pytest.mark.slow
def test_mind2web_from_the_first_lines_of_its_configurations(here):
    """The commands of docs/worlds/ on a file in the released format."""
    pytest.importorskip("ijson")
    released.mind2web(here, filler=30)
    run = yaml.safe_load((CONFIGS / "mind2web.yaml").read_text())["run_dir"]
    rows = fit("configs/mind2web.yaml", run_dir=run)
    assert json.loads(Path("data/mind2web/manifest.json").read_text())["recorder_counts"]["state: pages cut"] > 0
    assert list(dict.fromkeys(row["label"] for row in rows)) == ["warmup", "swirl-1-fwm", "swirl-1-idm"]
    assert {row["split"] for row in rows} == {"test"}
    assert all({"dom_edit_distance", "changed_element_f1"} <= row["fwm"].keys() & row["copy"].keys() for row in rows)
    assert rows[0]["copy"]["exact_match"] == 0.0  # every page differs from the one before


@pytest.mark.slow
def test_stabletoolbench_from_the_first_lines_of_its_configurations(here):
    """The same, on MirrorAPI files laid where the configuration says."""
    pytest.importorskip("ijson")
    train, test = released.mirror_api(here)
    for file, place in ((train, "MirrorAPI-Training/train_sft.json"), (test, "MirrorAPI-Bench/test_sft")):
        target = here / "data" / "released" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    run = yaml.safe_load((CONFIGS / "stabletoolbench.yaml").read_text())["run_dir"]
    short = {"data.init_args.val_fraction": 0.2, "model.fwm.sampling.max_new_tokens": 64}  # an untrained model never ends
    rows = fit("configs/stabletoolbench.yaml", run_dir=run, **short)
    assert list(dict.fromkeys(row["label"] for row in rows)) == ["warmup", "swirl-1-fwm", "swirl-1-idm"]
    assert all({"tool_bleu", "json_valid", "error_accuracy"} <= row["fwm"].keys() & row["copy"].keys() for row in rows)
