"""Every command that reads data takes the same mapping, checks it before a model is loaded, and names its own options."""

import json
import re

import pytest
import yaml

from swirl_lightning.cli import main
from tests.commands.conftest import COLUMNS, write


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    """Loading a model is a failure."""

    def refuse(*_, **__):
        raise AssertionError("a model was loaded before the data were read")

    monkeypatch.setattr("swirl_lightning.world_model.pair.load_causal_lm", refuse)


def commands(house, exported, tmp_path):
    fwm, idm = str(exported["fwm"]), str(exported["idm"])
    return {
        "init": ["--data", str(house), "--out", str(tmp_path / "made")],
        "forecast": [str(house), fwm, str(tmp_path / "predictions.jsonl")],
        "turns": ["--models", f"{{mine: {fwm}}}", "--data", str(house), "--steps", "2"],
        "imagine": ["--fwm", fwm, "--idm", idm, "--demonstration", str(house)],
        "label": [str(house), idm, str(tmp_path / "labelled.jsonl"), "--actions", "all"],
    }


@pytest.mark.parametrize("command", ["init", "forecast", "turns", "imagine", "label"])
@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_slip_costs_no_model(command, house, exported, tmp_path, capsys):
    arguments = commands(house, exported, tmp_path)[command]
    assert main([command, *arguments, "--columns", "{state: steps.seen, action: steps.action, episode: id}"]) == 1
    said = capsys.readouterr().err
    assert "column 'steps.seen' (field 'state') is missing" in said
    assert "data.columns" not in said
    with pytest.raises(SystemExit):
        main([command, "--help"])
    known = capsys.readouterr().out
    options = re.findall(r"--\w+", said)
    assert options
    assert all(option in known for option in options)


def test_commands_read_trajectories(house, exported, tmp_path, capsys):
    for command, arguments in commands(house, exported, tmp_path).items():
        assert main([command, *arguments, "--columns", COLUMNS]) == 0, command
    capsys.readouterr()
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert {line["reference"] for line in lines} <= {f"You are in the {r}." for r in ("hall", "kitchen", "cellar", "attic")}


def test_a_model_of_the_other_role(house, exported, tmp_path, capsys):
    swapped = commands(house, {"fwm": exported["idm"], "idm": exported["fwm"]}, tmp_path)
    for command in ("forecast", "turns", "imagine", "label"):
        assert main([command, *swapped[command], "--columns", COLUMNS]) == 1, command
        found, needed = ("FWM", "IDM") if command == "label" else ("IDM", "FWM")
        assert f"holds an {found} (swirl.json says so), but an {needed} is needed here" in capsys.readouterr().err


def test_scores_of_other_names(tmp_path, capsys):
    rows = [{"out": {"text": f"a b {n}"}, "gold": f"a b {n % 2}", "before": "a"} for n in range(4)]
    file = write(tmp_path / "theirs.jsonl", rows)
    assert main(["score", "text", str(file), "--columns", "{prediction: out.text, reference: gold, state: before}"]) == 0
    results = json.loads((tmp_path / "theirs.scores.json").read_text())["results"]
    assert next(r for r in results if r["row"] == "prediction")["measures"]["exact_match"] == 0.5
    assert main(["score", "text", str(file), "--columns", "{prediction: out.said, reference: gold}"]) == 1
    assert (
        "line 1: column 'out.said' (field 'prediction') is missing; the line has before, gold, out, out.text"
        in capsys.readouterr().err
    )
    assert main(["score", "text", str(file), "--columns", "{answer: gold}"]) == 1
    assert "there is no field 'answer'; fields are prediction, reference" in capsys.readouterr().err


def test_a_study_reads_its_data_before_it_runs(house, model, tmp_path, capsys):
    base = {
        "model": {"world_model": {"base": str(model)}},
        "data": {"class_path": "swirl_lightning.data.TransitionDataModule", "init_args": {"path": str(house)}},
    }
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(base))
    study = {"base": str(tmp_path / "fit.yaml"), "out": str(tmp_path / "study"), "methods": [{"name": "swirl"}], "seeds": [0]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    assert main(["study", "--config", str(tmp_path / "study.yaml"), "--columns", "{state: steps.seen}"]) == 1
    assert "column 'steps.seen' (field 'state') is missing" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
