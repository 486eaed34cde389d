"""``swirl study`` on a tiny world: its warm-up, a method, one report; what is finished is not run again."""

import json

import pytest
import yaml

from swirl_lightning.cli import main
from swirl_lightning.commands.report import carry_on, differences, differences_as_markdown, summarise
from swirl_lightning.commands.study import Method, Study


@pytest.mark.slow
def test_a_study_runs_its_cells_and_reports_them(config, tmp_path, monkeypatch):
    monkeypatch.setenv("SWIRL_DEBUG", "1")
    evaluation = {
        "class_path": "swirl_lightning.callbacks.BenchmarkEvaluation",
        "init_args": {"limit": 4, "splits": ["test"], "best_of": [2]},
    }
    config()
    settings = {
        "base": str(tmp_path / "config.yaml"),
        "out": str(tmp_path / "study"),
        "seeds": [0],
        "seed_options": ["seed_everything", "data.init_args.seed"],
        "overrides": {"trainer.callbacks": [evaluation, {"class_path": "swirl_lightning.callbacks.ExportModels"}]},
        "of": "other",
        "methods": [
            {"name": "sft-continue", "overrides": {"model.schedule.order": ["pseudo"]}},
            {"name": "whole", "start": "scratch", "overrides": {"model.schedule.order": ["fwm"]}},
            {"name": "other", "start": "whole", "config": str(tmp_path / "other.yaml")},
        ],
        "ablate": {"model.pseudo_temperature": [0.5]},
    }
    (tmp_path / "other.yaml").write_text("model: { schedule: { iterations: 1 }, pseudo_temperature: 0.25 }")
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert main(["study", "--config", str(file)]) == 0
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    warmer = "sft-continue, pseudo_temperature=0.5"
    assert [row["method"] for row in report["rows"]] == [
        *(
            "sft",
            "copy",
            "best-of-2",
            "sft-continue",
            warmer,
            "whole, warm-up",
            "whole",
            "other",
            "other, pseudo_temperature=0.5",
        )
    ]
    assert report["costs"][warmer]["generated_tokens"] > 0
    assert report["costs"][warmer]["seconds"] > 0
    assert report["costs"]["sft"]["generated_tokens"] == 0
    assert report["costs"]["sft"]["cpu_seconds"] > 0
    assert report["differences"].keys() == {row["method"] for row in report["rows"]} - {"best-of-2", "other"}
    started = yaml.safe_load((tmp_path / "study" / "seed-0" / "other" / "config.yaml").read_text())["model"]
    assert started["world_model"]["base"].endswith("seed-0/whole/export/warmup/fwm")
    assert started["pseudo_temperature"] == 0.25
    options = json.loads((tmp_path / "study" / "seed-0" / warmer / "options.json").read_text())
    assert options["model.pseudo_temperature"] == 0.5
    assert {"fwm", "idm", "seeds"} <= set(report["rows"][-1])
    assert "sft-continue" in (tmp_path / "study" / "report.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("metrics.jsonl")}
    assert len(before) == 6
    assert main(["study", "--config", str(file)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("metrics.jsonl")}
    whole = str(tmp_path / "study" / "seed-0" / "whole")  # a run that is there gives the SFT models and a row
    ours = {"warmup": whole, "of": "ours", "methods": [{"name": "ours", "run": whole}], "ablate": {}}
    again = settings | ours | {"out": str(tmp_path / "again")}
    file.write_text(yaml.safe_dump(again))
    assert main(["study", "--config", str(file)]) == 0
    taken = json.loads((tmp_path / "again" / "report.json").read_text())
    assert [row["method"] for row in taken["rows"]] == ["sft", "copy", "best-of-2", "ours"]
    assert taken["costs"]["sft"]["cpu_seconds"] < taken["costs"]["ours"]["cpu_seconds"]
    file.write_text(yaml.safe_dump(again | {"seeds": [0, 1]}))
    with pytest.raises(ValueError, match="holds one seed"):
        main(["study", "--config", str(file)])


def test_adapters_start_from_one_base(tmp_path):
    """Stored apart, each role starts from its own model; a LoRA base has no place for the IDM's."""
    (tmp_path / "base.yaml").touch()
    made = {"base": tmp_path / "base.yaml", "out": tmp_path / "out", "methods": [Method("labels")]}
    apart = Study(**made)._options(0, Method("labels"))
    assert {"model.world_model.base", "model.world_model.idm_base"} <= apart.keys()
    adapters = Study(**made, overrides={"model.world_model.storage": "adapters"})._options(0, Method("labels"))
    assert "model.world_model.idm_base" not in adapters
    assert adapters["model.world_model.base"] == apart["model.world_model.base"]


def test_a_run_that_ended_early_counts_in_the_rows_of_later_iterations():
    collected = {
        "ours-1": {0: "a1", 1: "b1", 2: "c1"},
        "ours-2": {0: "a2", 2: "c2"},
        "ours-10": {0: "a10"},
        "ours-more-3": {0: "x"},
    }
    assert carry_on(collected, "ours") == {1: 1, 2: 2}
    assert collected["ours-2"] == {0: "a2", 1: "b1", 2: "c2"}
    assert collected["ours-10"] == {0: "a10", 1: "b1", 2: "c2"}
    assert collected["ours-more-3"] == {0: "x"}


def test_differences_are_paired_by_seed():
    ours = {seed: {"fwm": {"exact_match": 0.5 + seed}, "idm": {"exact_match": 1.0}, "both": {}} for seed in range(3)}
    theirs = {seed: {"fwm": {"exact_match": float(seed)}, "idm": {}, "both": {}} for seed in range(2)}
    found = differences({"ours": ours, "theirs": theirs}, "ours")
    assert found == {"theirs": {"FWM": [0.5, 0.5, 0.5]}}
    assert differences_as_markdown(found, "ours").splitlines()[-1] == "| theirs | +0.500 [+0.500, +0.500] |  |  |"
    with pytest.raises(ValueError, match="of names no row: 'mine'"):
        differences({"ours": ours}, "mine")


def test_a_baseline_that_is_never_right_has_no_relative_gain():
    never, once = ({"fwm": {"exact_match": value}, "idm": {}, "both": {}} for value in (0.0, 0.5))
    row = summarise("swirl", [once, never], [never, never])
    assert "fwm_gain" not in row
    assert row["fwm"]["exact_match"] == 0.25
