"""The line that says where a run stands, and the table at its end."""

import io
import json
import re
import sys

import pytest
import yaml
from swirl_lightning.callbacks import RunProgress
from swirl_lightning.callbacks.pace import Pace, time_left

from swirl_lightning.algorithm.schedule import PhaseSchedule
from swirl_lightning.cli import main
from swirl_lightning.commands.ending import ending, phase_rows


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_time_left_adds_the_rest_of_the_epoch_later_phases_and_what_comes_between():
    clock, schedule = Clock(), PhaseSchedule(warmup_epochs=2, iterations=2)  # warm-up x 2, fwm, idm, fwm, idm
    pace = Pace(clock)
    pace.starts(0)
    clock.now = 10.0  # 5 steps of 2 seconds
    assert pace.left(schedule, 6, 0, 5, 10) == (10.0 + 20.0, False)  # nothing known of the phases
    clock.now = 20.0
    pace.ends(schedule, 0, 10)
    pace.starts(0)
    clock.now = 40.0
    pace.ends(schedule, 1, 10)
    clock.now = 45.0  # evaluation
    pace.starts(0)
    clock.now = 48.0  # one of four steps
    # three more of this phase, the second fwm; an evaluation after each of four phases
    assert pace.left(schedule, 6, 2, 1, 4) == (3 * 3.0 + 12.0 + 4 * 5.0, False)
    clock.now = 57.0
    pace.ends(schedule, 2, 4)
    clock.now = 62.0
    pace.starts(0)
    clock.now = 63.0
    assert pace.left(schedule, 6, 3, 1, 4) == (3 * 1.0 + 12.0 + 4.0 + 3 * 5.0, True)


def test_a_resumed_epoch_is_timed_from_where_it_goes_on():
    clock, pace = Clock(), None
    pace = Pace(clock)
    pace.starts(6)
    clock.now = 4.0
    assert pace.left(PhaseSchedule(1, 0), 1, 0, 8, 10) == (4.0, True)


@pytest.mark.parametrize(
    ("seconds", "exact", "text"), [(59.6, True, "0:01:00 left"), (3661, False, "over 1:01:01 left"), (0, True, "0:00:00 left")]
)
def test_time_left_is_readable(seconds, exact, text):
    assert time_left(seconds, exact) == text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_one_line_that_is_gone_at_the_end(monkeypatch):
    terminal, bar = Terminal(), RunProgress()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(RunProgress, "_due", lambda self: True)
    bar.counting("warmup, val, greedy")(3, 8)
    assert sys.stderr is not terminal  # what others print appears above the line
    bar.teardown(None, None, "fit")
    assert sys.stderr is terminal
    assert "warmup, val, greedy: rollout 3 of 8" in terminal.getvalue()


def test_elsewhere_a_line_every_so_often_and_none_where_it_is_disabled(monkeypatch, capsys):
    bar = RunProgress(every=1e9)
    bar.counting("x")(1, 2)
    assert capsys.readouterr().err == ""
    bar.every = 0.0
    bar.counting("x")(1, 2)
    assert capsys.readouterr().err == "x: rollout 1 of 2\n"
    bar.disable()
    bar.counting("x")(2, 2)
    assert capsys.readouterr().err == ""


def test_a_run_that_says_nothing_of_callbacks_tells_where_it_stands_and_ends_with_a_table(config, tmp_path, capsys):
    arguments = config(trainer__enable_progress_bar=True)
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del settings["trainer"]["callbacks"]
    settings["trainer"]["callbacks+"] = [{"class_path": "RunProgress", "init_args": {"every": 0.0}}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert re.search(r"^warmup: step 1 of 3, over \d:\d\d:\d\d left; nll \d\.\d+$", said.err, re.M)
    values = r"reward -\d\.\d+, kl -?\d\.\d+; val exact match FWM 0\.\d+, IDM 0\.\d+"
    assert re.search(rf"^swirl-1-idm, iteration 1 of 1: step 3 of 3, \d:\d\d:\d\d left; {values}", said.err, re.M)
    assert re.search(r"^swirl-1-fwm, val, sampled: rollout \d+ of \d+", said.err, re.M)
    assert "rollout/s" not in said.err  # no other bar
    assert "shards" not in said.err
    table = [line.split() for line in said.out.splitlines() if line.startswith(("SFT", "swirl-"))]
    splits = {json.loads(line)["split"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()}
    assert [row[0] for row in table] == ["SFT", "swirl-1-fwm", "swirl-1-idm"] * len(splits)
    run = tmp_path / "run"
    for role in ("fwm", "idm"):
        assert (run / "export" / "last" / role / "config.json").is_file()
        assert str(run / "export" / "last" / role) in said.out
    commands = [line.strip() for line in said.out.partition("next:\n")[2].splitlines()]
    assert [command.split()[:2] for command in commands][1:] == [["swirl", "forecast"], ["swirl", "label"]]
    *_, forecast, _ = commands
    assert main(forecast.split()[1:]) == 0
    assert (run / "predictions.jsonl").is_file()


def record(label, split="val", decoding="greedy", exact=0.5):
    measures = {"exact_match": exact, "logprob": -1.0}
    return {"label": label, "split": split, "decoding": decoding, "transitions": 8, "fwm": measures, "idm": measures}


def test_the_table_has_a_row_a_phase_and_the_gain_over_sft(tmp_path):
    rows = [record("warmup", exact=0.5), record("warmup", decoding="sampled", exact=0.4), record("swirl-1-fwm", exact=0.6)]
    rows += [record("swirl-1-idm", exact=0.55), record("test", exact=0.9), record("warmup", "test", exact=0.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = phase_rows(tmp_path, "val")
    assert [row["method"] for row in made] == ["SFT", "swirl-1-fwm", "swirl-1-idm"]
    assert made[0]["fwm"]["sampled/exact_match"] == 0.4
    text = ending(tmp_path, {"path": "my data", "columns": {"state": "before"}, "seed": 3})
    assert "+20.0%" in text
    assert "+10.0%" in text
    assert f"swirl export {tmp_path}" in text  # nothing was exported
    for role in ("fwm", "idm"):
        (tmp_path / "export" / "last" / role).mkdir(parents=True)
    text = ending(tmp_path, {"path": "my data", "columns": {"state": "before"}, "seed": 3})
    assert f"swirl forecast 'my data' {tmp_path}/export/last/fwm" in text
    assert """--columns='{"state": "before"}' --seed=3""" in text


def test_a_run_without_evaluation_says_so(tmp_path):
    assert "not evaluated" in ending(tmp_path, {})
