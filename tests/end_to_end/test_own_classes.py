"""Everything of the user's own by class_path: the examples of howto/, run from a folder outside of the package."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from swirl_lightning.algorithm.rewards import Member, Members
from swirl_lightning.cli import main
from swirl_lightning.types import Role, UnlabelledPair

HOWTO = Path(__file__).parents[2] / "howto"
EXAMPLES = sorted(HOWTO.glob("own_*.py"))


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder with copies of the examples, on the path as PYTHONPATH would have it."""
    for file in EXAMPLES:
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for file in EXAMPLES:
        sys.modules.pop(file.stem, None)


def yaml_of(name):
    """The options in an example's own docstring."""
    return yaml.safe_load((HOWTO / f"own_{name}.py").read_text().split('"""')[1].partition("\n\n")[2])


def test_examples_are_short():
    seams = ("world", "reward", "metric", "callback", "engine", "codec")
    assert {file.stem for file in EXAMPLES} == {f"own_{seam}" for seam in seams}
    assert all(len(file.read_text().splitlines()) < 40 for file in EXAMPLES)


def test_a_run_of_nothing_but_the_users_own(outside, capsys):
    metric, callback = (yaml_of(name)["trainer"]["callbacks+"][0] for name in ("metric", "callback"))
    metric["init_args"] |= {"splits": ["test"], "limit": 4}
    sampling = {"group_size": 2, "sampling": {"max_new_tokens": 12}}
    config = {
        "run_dir": "run",
        "trainer": {
            "accelerator": "cpu",
            "limit_val_batches": 0,
            "limit_train_batches": 1,
            "enable_progress_bar": False,
            "callbacks": [callback, metric, "ExportModels"],
        },
        "model": {
            "world_model": {"base": {"hidden_size": 32, "layers": 1, "heads": 2, "vocab_size": 280}},
            **yaml_of("engine")["model"],
            **yaml_of("codec")["model"],
            "max_prompt_tokens": 64,
            "schedule": {"warmup_epochs": 1, "iterations": 1},
            "fwm": sampling | yaml_of("reward")["model"]["fwm"],
            "idm": sampling,
        },
        "data": {
            "class_path": "own_world.CounterDataModule",
            "init_args": {"recorder": {"n_episodes": 40}, "batch_size": 2, "max_test": 4},
        },
    }
    (outside / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "run.yaml", "--seed_everything", "0"]) == 0
    assert json.loads((outside / "data" / "counter" / "manifest.json").read_text())["options"]["n_episodes"] == 40
    rows = [json.loads(line) for line in (outside / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["fwm"]["off_by"] >= 0 for row in rows)
    assert [line.split()[0] for line in (outside / "run" / "best.txt").read_text().splitlines()] == ["fwm", "idm"]
    assert int((outside / "drawn.txt").read_text().split()[0]) > 0
    exported = outside / "run" / "export" / "last" / "fwm"
    assert json.loads((exported / "codec.json").read_text()) == {"class_path": "own_codec.LastDigitFirst"}
    assert main(["imagine", "--fwm", str(exported), "--state", "3", "--actions", "[add 4]"]) == 1
    assert "own_codec.LastDigitFirst" in capsys.readouterr().err


def test_the_reward_of_the_example_asks_for_movement_where_there_was_some(outside):
    from own_reward import Moved

    pairs = [UnlabelledPair("3", "5"), UnlabelledPair("3", "3")]
    answers = [Member(pair, "add 2", state, True) for pair in pairs for state in ("3", "4")]
    assert Moved()(Members(Role.FWM, answers, None, None)).tolist() == [0.0, 1.0, 1.0, 0.0]


def test_the_codec_of_the_example_spells_numbers_backwards(outside):
    from own_codec import LastDigitFirst

    from tests.visual import tokenizer

    codec = LastDigitFirst(tokenizer())
    assert codec.tokenizer.decode(codec.encode_state("174")) == "471"
    assert codec.decode_state(codec.encode_state("174")) == "174"
    assert codec.canonical("174") == "174"


def test_a_recorder_by_its_place(outside):
    assert main(["record", "own_world:CounterRecorder", "--out", "recorded", "--env.n_episodes", "3"]) == 0
    assert json.loads((outside / "recorded" / "manifest.json").read_text())["transitions"] == 24
