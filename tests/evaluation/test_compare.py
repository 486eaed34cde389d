"""``swirl compare`` on metrics files written by hand."""

import json

import pytest

from swirl_lightning.cli import main
from swirl_lightning.commands.report import as_markdown, summarise


@pytest.fixture
def run(tmp_path):
    def write(name, after, split="test"):
        lines = []
        for label, fwm in (("warmup", 0.5), ("swirl-1-fwm", after)):
            for decoding in ("greedy", "sampled"):
                place = {"label": label, "split": split, "decoding": decoding, "copy": {"exact_match": 0.1}}
                lines.append({**place, "fwm": {"exact_match": fwm}, "idm": {"exact_match": 0.9}})
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(folder)

    return write


def test_seeds_are_averaged_with_a_t_interval(run, tmp_path, capsys):
    runs = [run("swirl-seed-0", 0.6), run("swirl-seed-1", 0.8), run("other", 0.7)]
    out = tmp_path / "made" / "rows.json"
    assert main(["compare", *runs, "--out", str(out)]) == 0
    rows = {row["method"]: row for row in json.loads(out.read_text())["rows"]}
    both = rows["swirl-1"]
    assert both["seeds"] == 2
    assert both["fwm"]["exact_match"] == pytest.approx(0.7)
    half = 12.7062 * 0.1  # t(0.975, 1) times the standard error
    assert both["fwm_interval"]["exact_match"] == pytest.approx([0.7 - half, 0.7 + half], rel=1e-4)
    assert rows["other-1"]["seeds"] == 1
    shown = capsys.readouterr().out
    assert "0.700 ± 1.271" in shown
    assert "other/sft" in shown


def test_seed_folders_inside_a_method_belong_to_the_method(run, tmp_path):
    out = tmp_path / "rows.json"
    assert main(["compare", run("beta/seed-0", 0.6), run("beta/seed-1", 0.6), "--out", str(out)]) == 0
    assert [(r["method"], r["seeds"]) for r in json.loads(out.read_text())["rows"]] == [
        ("beta/sft", 2),
        ("beta/copy", 2),
        ("beta-1", 2),
    ]


def test_mistakes_are_named(run, tmp_path, capsys):
    folder = run("a", 0.6, split="val")
    for arguments, message in (
        ([folder], "no evaluation on split 'test'"),
        ([folder, folder, "--split", "val"], "given twice"),
        ([str(tmp_path / "none")], "metrics.jsonl is missing"),
    ):
        assert main(["compare", *arguments]) != 0
        assert message in capsys.readouterr().err


def test_columns_and_gains_of_worlds_that_have_other_measures():
    row = {"fwm": {"exact_match": 0.0, "tool_bleu": 40.0, "changed/exact_match": 0.0}, "idm": {}}
    better = {"fwm": {**row["fwm"], "tool_bleu": 50.0}, "idm": {}}
    rows = [summarise("sft", [row], None), summarise("swirl", [better], [row], "tool_bleu")]
    header, _, sft, swirl = as_markdown(rows).splitlines()
    assert "FWM tool BLEU" in header
    assert "FWM exact, changed" in header
    assert "changed elements" not in header
    assert "40.000" in sft
    assert "+25.0%" in swirl
    assert "fwm_gain" not in summarise("swirl", [better], [row])  # of an exact match that is 0
