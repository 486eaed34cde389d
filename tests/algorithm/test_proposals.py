"""Where candidates come from besides the IDM."""

from __future__ import annotations

import pytest
import torch
from jsonargparse import ArgumentParser

from swirl_lightning.algorithm.proposals import (
    Analogies,
    ConstraintSamples,
    GivenActions,
    Proposals,
    SeenActions,
    SimilarStates,
)
from swirl_lightning.codecs.constraints import ConstraintSpec
from swirl_lightning.types import Transition, UnlabelledPair
from tests.codecs.test_constraints import BYTES

LABELLED = [
    Transition("a red door , closed", "a red door , open", "open red door"),
    Transition("a blue door , closed", "a blue door , open", "open blue door"),
    Transition("a key on the floor", "the floor", "take key"),
    Transition("a key on the table", "the table", "take key"),
]


def pair(state: str, next_state: str) -> UnlabelledPair:
    return UnlabelledPair(state, next_state)


def test_seen_actions_are_the_commonest_in_an_order_of_their_own():
    seen = SeenActions(limit=2)
    seen.prepare(LABELLED, None)
    assert seen(pair("x", "y"), 0) == ("take key", "open blue door")
    assert GivenActions(["go"])(pair("x", "y"), 0) == ("go",)
    with pytest.raises(ValueError, match="non-empty list of actions, got 'go'"):
        GivenActions("go")


@pytest.mark.parametrize(
    ("state", "next_state", "action"),
    [
        ("a red door , closed", "a red door , open", "open red door"),
        ("two blue walls and a blue door , closed", "two blue walls and a blue door , open", "open blue door"),
        ("a key on the chair", "the chair", "take key"),
    ],
)
def test_similar_states_propose_what_was_done_there(state, next_state, action):
    similar = SimilarStates(neighbours=1)
    similar.prepare(LABELLED, None)
    assert list(similar(pair(state, next_state), 0)) == [action]
    similar.neighbours = 99
    assert len(similar(pair(state, next_state), 0)) == len(LABELLED)


TOLD = [
    Transition("a cup , a sink", "You move the cup to the sink.", "move cup to sink"),
    Transition("a cup , a sink", "You move the cup to the inventory.", "pick up cup"),
    Transition("a sink", "The sink is now activated.", "activate sink"),
]


@pytest.mark.parametrize(
    ("next_state", "action"),
    [
        ("You move the metal pot to the stove.", "move metal pot to stove"),  # no label has either thing
        ("You move the orange to the inventory.", "pick up orange"),
        ("The stove is now activated.", "activate stove"),
        ("You move the cup to the sink.", "move cup to sink"),
    ],
)
def test_analogies_say_what_was_done_of_the_things_that_are_here(next_state, action):
    analogies = Analogies(limit=2)
    analogies.prepare(TOLD, None)
    found = analogies(pair("a room", next_state), 0)
    assert found[0] == action
    assert len(set(found)) == len(found) == 2


def test_analogies_exchange_whole_words_and_propose_nothing_for_images():
    analogies = Analogies()
    analogies.prepare([Transition("", "The in is open (now).", "open inn in")], None)
    assert analogies(pair("", "The (.*) is open (now)."), 0) == ["open inn ( . * )"]
    assert analogies(UnlabelledPair(torch.zeros(2), torch.zeros(2)), 0) == ()


def test_a_constraints_samples_are_inside_it_and_follow_the_seed():
    choices = ["go", "stop", "turn left"]
    sampled = ConstraintSamples(ConstraintSpec(choices=choices), draws=20)
    sampled.prepare(LABELLED, BYTES)
    found = sampled(pair("x", "y"), 3)
    assert set(found) == set(choices)
    assert found == sampled(pair("x", "y"), 3)
    assert found != sampled(pair("x", "y"), 4)
    short = ConstraintSamples(ConstraintSpec(choices=["turn left and then right again"]), max_new_tokens=2)
    short.prepare(LABELLED, BYTES)
    assert short(pair("x", "y"), 0) == []


def test_yaml_names_them_shortly():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--proposals", type=list[Proposals])
    given = [{"class_path": "SeenActions", "init_args": {"limit": 3}}, {"class_path": "SimilarStates"}]
    seen, similar = parser.instantiate(parser.parse_object({"proposals": given})).proposals
    assert (seen.limit, similar.neighbours) == (3, 8)
