"""``swirl plan``: rows, intervals, and mistakes that are told before anything is played."""

import json
import shutil

import pytest

from swirl_lightning.cli import main
from swirl_lightning.metrics import wilson_interval

HOUSE = ["plan", "--task", "tests.evaluation.planning_world.House"]


@pytest.fixture
def seeds(exported, tmp_path):
    """Two runs of two methods, as a study leaves them; the models are the same untrained one."""
    for name in ("seed-0/sft", "seed-1/sft", "seed-1/ours", "seed-2/ours"):
        shutil.copytree(exported["fwm"], tmp_path / name / "export" / "last" / "fwm")
    return tmp_path


def test_a_table_of_models_with_the_simulator_and_chance(seeds, capsys):
    models = f"{{sft: '{seeds}/seed-*/sft', ours: '{seeds}/seed-*/ours', one: {seeds}/seed-0/sft/export/last/fwm}}"
    options = ["--models", models, "--depth", "[2, 4]", "--episodes", "8", "--max_steps", "6", "--of", "ours"]
    assert main([*HOUSE, *options, "--out", str(seeds / "out" / "plan.json")]) == 0
    text = capsys.readouterr().out
    tables = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0][2:] for row in tables] == 2 * [
        *("model", "sft", "ours", "one", "true simulator", "random"),
        *("ours minus", "sft", "one"),
    ]
    deep = {row[0][2:]: row for row in tables[9:15]}
    assert deep["true simulator"][1] == "1"
    assert deep["true simulator"][2] == "1.000 [0.676, 1.000]"
    assert deep["sft"][1] == "2"
    assert deep["sft"][2] == deep["ours"][2]  # the same model in the same rooms
    assert tables[16][1] == "+0.000"  # one seed in common
    assert not any(cell.strip(" |") for cell in tables[17][1:])  # none in common
    records = json.loads((seeds / "out" / "plan.json").read_text())
    assert [(record["row"], record["model"]) for record in records if record["depth"] == 4] == [
        *[("sft", "0"), ("sft", "1"), ("ours", "1"), ("ours", "2"), ("one", "")],
        *[("true simulator", ""), ("random", "")],
    ]
    assert all(len(record["episodes"]) == 8 for record in records)


def test_doorkey_without_a_model(capsys):
    pytest.importorskip("minigrid")
    assert main(["plan", "--task", "DoorKeyTask", "--episodes", "2", "--depth", "3"]) == 0
    assert "| true simulator | 1 | 1.000 [0.342, 1.000] |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--models", "{sft: nowhere/seed-*}"], "there is no folder nowhere/seed-*"),
        (["--of", "ours"], "of names no row: 'ours'"),
        (["--depth", "[2, 0]"], "must be at least 1"),
    ],
)
def test_mistakes_are_told(options, told, capsys):
    assert main([*HOUSE, *options]) == 1
    assert told in capsys.readouterr().err


def test_a_model_of_the_other_role_is_refused(exported, capsys):
    assert main([*HOUSE, "--models", f"{{idm: {exported['idm']}}}"]) == 1
    assert "holds an IDM" in capsys.readouterr().err


def test_wilson_s_interval_of_the_table():
    assert wilson_interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson_interval(1.0, 10)[0] == pytest.approx(0.7225, abs=1e-4)
