"""Look-ahead on a world that can be enumerated: shortest ways, questions asked once, what a wrong model does."""

import itertools

import pytest

from swirl_lightning.evaluation.planning import Memory, Query, look_ahead, play_episodes, simulated
from tests.evaluation.planning_world import WAYS, House

STARTS = range(len(WAYS))


def shortest(seed, task):
    """Length of the shortest list of actions that leads to the goal, found by trying every list."""
    for length in itertools.count(1):
        for actions in itertools.product({action for ways in WAYS.values() for action in ways}, repeat=length):
            try:
                outcome = task.play(seed, actions)
            except KeyError:  # there is no such way in one of the rooms
                continue
            if outcome.reached:
                return length


def test_a_perfect_model_gives_the_shortest_way():
    task = House()
    starts = [seed for seed in STARTS if shortest(seed, task) <= 4]
    assert len(starts) == 7
    for episode in play_episodes(task, simulated(task), starts, depth=4, max_steps=9):
        assert (episode.reached, episode.reward, episode.best) == (True, 1.0, 1.0)
        assert len(episode.actions) == episode.foreseen == shortest(episode.seed, task)


def test_every_state_within_reach_is_found_once_by_one_call_a_depth():
    task, asked = House(), []

    def predict(queries):
        asked.append(queries)
        return [task.play(query.seed, query.actions).state for query in queries]

    hall = Query(1, (), "You are in the hall.", "a house")
    (found,) = look_ahead(task, Memory(predict), [hall], 3)
    assert {node.state[15:-1]: len(node.path) for node in found} == {
        **{"cellar": 1, "kitchen": 1, "landing": 1, "garden": 2, "bedroom": 2, "balcony": 3},
    }
    assert {node.expected[15:-1] for node in found if node.path[0] == "in"} == {"kitchen"}
    assert [len(queries) for queries in asked] == [3, 5, 4]
    assert all(query.actions[:-1] == () or query.state != hall.state for queries in asked for query in queries)
    steps = [(query.state, query.actions[-1]) for queries in asked for query in queries]
    assert len(set(steps)) == len(steps)


def test_a_step_is_asked_for_once_in_all_episodes_or_in_each():
    task = House()
    asked = {}
    for markov in (True, False):
        model = simulated(task)
        model.markov = markov
        play_episodes(task, model, [1, 1 + len(WAYS)], depth=4, max_steps=9)
        asked[markov] = len(model.known)
    assert asked[False] == 2 * asked[True] <= 2 * sum(map(len, WAYS.values()))


def test_an_agent_with_a_wrong_model_goes_astray_and_is_seen_to():
    task = House()
    cellar = list(WAYS).index("cellar")

    def wrong(queries):
        yield from ("You are in the attic." if query.actions[-1] == "down" else "nonsense" for query in queries)

    (episode,) = play_episodes(task, Memory(wrong), [cellar], depth=2, max_steps=5)
    assert episode.actions == ["up", "down", "up", "down", "up"]  # up for want of anything else: nonsense is no state
    assert (episode.reached, episode.best, episode.foreseen) == (False, 0.0, 0)


def test_an_agent_that_does_not_look_ahead_asks_nothing_and_is_the_same_every_time():
    task = House()
    model = simulated(task)
    played = [play_episodes(task, model, STARTS, depth=0, max_steps=30) for _ in range(2)]
    assert played[0] == played[1]
    assert model.calls == 0
    assert len({tuple(episode.actions[:3]) for episode in played[0]}) > 3


@pytest.mark.parametrize("depth", [1, 2])
def test_a_goal_beyond_the_horizon_is_not_seen(depth):
    task = House()
    (found,) = look_ahead(task, simulated(task), [Query(1, (), "You are in the hall.", "a house")], depth)
    assert max(task.value(node.state, "a house") for node in found) == 0.0
    assert max(len(node.path) for node in found) == depth
