"""``swirl study`` on a tiny world: its warm-up, a method, one report; what is finished is not run again."""

import json

import pytest
import yaml

from swirl_lightning.cli import main
from swirl_lightning.commands.report import summarise


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
        "methods": [{"name": "sft-continue", "overrides": {"model.schedule.order": ["pseudo"]}}],
        "ablate": {"model.pseudo_temperature": [0.5]},
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert main(["study", "--config", str(file)]) == 0
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    warmer = "sft-continue, pseudo_temperature=0.5"
    assert [row["method"] for row in report["rows"]] == ["sft", "copy", "best-of-2", "sft-continue", warmer]
    assert report["costs"][warmer]["generated_tokens"] > 0
    assert report["costs"][warmer]["seconds"] > 0
    assert report["costs"]["warmup"]["generated_tokens"] == 0
    options = json.loads((tmp_path / "study" / "seed-0" / warmer / "options.json").read_text())
    assert options["model.pseudo_temperature"] == 0.5
    assert {"fwm", "idm", "seeds"} <= set(report["rows"][-1])
    assert "sft-continue" in (tmp_path / "study" / "report.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("metrics.jsonl")}
    assert len(before) == 3
    assert main(["study", "--config", str(file)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("metrics.jsonl")}


def test_a_baseline_that_is_never_right_has_no_relative_gain():
    never, once = ({"fwm": {"exact_match": value}, "idm": {}} for value in (0.0, 0.5))
    row = summarise("swirl", [once, never], [never, never])
    assert "fwm_gain" not in row
    assert row["fwm"]["exact_match"] == 0.25
