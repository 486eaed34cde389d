"""The recorder on the real simulator: deterministic, and its words say what the simulator did."""

import pytest

pytest.importorskip("minigrid")

from swirl_lightning.cli import main as swirl
from swirl_lightning.commands.record import main
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.registry import require
from swirl_lightning.environments.text.doorkey import DoorKeyRecorder
from swirl_lightning.environments.text.minigrid import FAMILIES, MiniGridRecorder


def record(**options):
    recorder = MiniGridRecorder(**{"n_episodes": 24, **options})
    return [transition for episode in recorder.record() for transition in episode], recorder


def test_the_same_options_give_the_same_transitions():
    assert record()[0] == record()[0]
    assert record()[0] != record(seed=1)[0]


def test_default_worlds_are_deterministic_and_every_step_can_be_named():
    transitions, recorder = record(n_episodes=60)
    after, names = {}, {}
    for t in transitions:
        assert t.state != t.next_state
        # walls are not written, so these are facts about the recorded steps, not about every possible one
        assert after.setdefault((t.state, t.action), t.next_state) == t.next_state
        assert names.setdefault((t.state, t.next_state), t.action) == t.action
    assert recorder.manifest()["dropped_no_ops"] == recorder.dropped_no_ops > 0
    assert {t.episode.split("/")[0] for t in transitions} == set(FAMILIES)


def test_rare_actions_are_frequent_enough():
    actions = [t.action.split()[0] for t in record(n_episodes=60)[0]]
    for verb in ("pick", "drop", "open", "close", "unlock"):
        assert actions.count(verb) >= 5, verb


def carried(state):
    return state.split("holding ")[1] if "holding " in state else None


def test_actions_name_what_the_simulator_changed():
    for t in record(n_episodes=60)[0]:
        if t.action.startswith("pick up the "):
            thing = t.action.removeprefix("pick up the ")
            assert carried(t.state) is None
            assert carried(t.next_state) == thing
        elif t.action.startswith("drop the "):
            assert carried(t.state) == t.action.removeprefix("drop the ")
            assert carried(t.next_state) is None
        elif t.action.startswith("unlock the "):
            door = t.action.removeprefix("unlock the ")
            assert f"{door.split()[0]} key" == carried(t.state)
            assert "locked" in t.state
            assert "open" in t.next_state
        elif t.action.startswith("turn"):
            assert t.state.split()[:3] == t.next_state.split()[:3]  # the agent stays where it is
        elif t.action == "move forward":
            (x, y), (i, j) = ([int(n) for n in s.split()[1:3]] for s in (t.state, t.next_state))
            assert abs(x - i) + abs(y - j) == 1


def test_varied_wording_and_slips_make_the_world_ambiguous():
    assert {"go ahead", "step forward"} & {t.action for t in record(wording="varied")[0]}
    slipped = record(slip=0.5, n_episodes=40)[0]
    assert any(t.action == "turn left" and t.state.split()[1:3] != t.next_state.split()[1:3] for t in slipped)


def test_movements_are_named_by_compass_on_request():
    relative, compass = (record(headings=headings)[0] for headings in ("relative", "compass"))
    assert [(t.state, t.next_state) for t in relative] == [(t.state, t.next_state) for t in compass]
    names = {(one.action.split()[0], other.action.split()[0]) for one, other in zip(relative, compass, strict=True)}
    assert all(one == other for one, other in names)
    headed = {t.action for t in compass if t.action.split()[0] in ("turn", "move")}
    assert headed <= {f"{verb} {way}" for verb in ("turn", "move") for way in ("east", "south", "west", "north")}
    assert "move forward" in {t.action for t in relative}


def test_steps_that_change_nothing_are_kept_on_request():
    transitions, recorder = record(no_ops="keep")
    assert any(t.state == t.next_state for t in transitions)
    assert recorder.dropped_no_ops == 0


@pytest.mark.parametrize("family", ["MiniGrid-Unlock-v0", "MiniGrid-LavaGapS5-v0", "MiniGrid-MultiRoom-N2-S4-v0"])
def test_other_families_record(family):
    assert record(env_ids=[family], n_episodes=3)[0]


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="slip"):
        MiniGridRecorder(slip=1.5)


def test_a_missing_extra_says_how_to_install_it():
    with pytest.raises(ImportError, match=r'pip install "swirl-lightning\[minigrid\]"'):
        require("no_such_simulator", "minigrid")


def test_record_command_writes_transitions_splits_and_manifest(tmp_path, capsys):
    import json

    out = tmp_path / "grid"
    options = ["minigrid", "--out", str(out), "--env.n_episodes", "30", "--env.seed", "3"]
    assert main(options) == 0
    table = read_transitions(out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["simulator"] == "minigrid"
    assert manifest["seed"] == 3
    assert manifest["transitions"] == len(table)
    for split in ("train", "val", "test"):
        assert manifest["counts"].get(f"{split} transitions", 0) == table.column("split").count(split)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "transitions.parquet"]
    first = list(table)
    assert main(options) == 0
    assert list(read_transitions(out)) == first
    assert "train episodes" in capsys.readouterr().out
    assert swirl(["record", "no_such_world"]) == 2


def test_a_doorkey_agent_wanders_as_much_as_it_is_told():
    def walked(wander):
        recorder = DoorKeyRecorder(n_episodes=12, max_steps=20, wander=wander)
        actions = [t.action for episode in recorder.record() for t in episode]
        return actions.count("move forward") / len(actions)

    assert walked(0.0) == 0.0
    assert 0.0 < walked(0.3) < walked(0.95)
