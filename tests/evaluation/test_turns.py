"""Roll-outs of several steps: which stretches are taken, and what is compared with what."""

import itertools

import pytest

from swirl_lightning.evaluation.turns import consecutive, run_turns
from swirl_lightning.types import SamplingParams, Transition


def episode(name, values, start=0):
    steps = enumerate(itertools.pairwise(values))
    return [Transition(str(a), str(b), f"to {b}", "room", name, start + k) for k, (a, b) in steps]


def test_stretches_are_consecutive_and_do_not_overlap():
    whole = episode("a", [0, 1, 2, 3, 4, 5])
    gap = episode("b", [7, 8, 9]) + episode("b", [9, 10, 11], start=3)  # step 2 is missing
    broken = [Transition("0", "1", "z", episode="c", step=0), Transition("2", "3", "z", episode="c", step=1)]
    found = consecutive([*reversed(gap), *broken, *whole], 2)
    assert [[t.step for t in window] for window in found] == [[0, 1], [2, 3], [0, 1], [3, 4]]
    assert [window[0].episode for window in found] == ["a", "a", "b", "b"]
    assert [window[0].step for window in consecutive(whole, 2, limit=1)] == [0]
    assert consecutive(whole, 6) == []
    with pytest.raises(ValueError, match="turns must be at least 1"):
        consecutive(whole, 0)


class Counting:
    """Stands for Inference: the next state is the state and one, except that 3 is followed by 9."""

    class codec:  # noqa: N801
        canonical = staticmethod(str)
        render = staticmethod(str)

    def __init__(self):
        self.asked = []

    def predict_states(self, pairs, actions, *, params, seed):
        self.asked.append([(pair.state, action) for pair, action in zip(pairs, actions, strict=True)])
        assert all(pair.next_state == "" for pair in pairs)
        return [["9" if pair.state == "3" else str(int(pair.state) + 1)] for pair in pairs]


def test_predictions_are_fed_back_and_errors_stay():
    windows = consecutive(episode("a", [0, 1, 2, 3]) + episode("b", [1, 2, 3, 4]), 3)
    model = Counting()
    measures = run_turns(model, windows, params=SamplingParams(max_new_tokens=4, temperature=0.0), batch_size=1)
    assert [turn["exact_match"] for turn in measures] == [1.0, 1.0, 0.5]
    assert model.asked[:3] == [[("0", "to 1")], [("1", "to 2")], [("2", "to 3")]]
    late = run_turns(Counting(), consecutive(episode("a", [3, 4, 5]), 2), params=SamplingParams(temperature=0.0))
    assert [turn["exact_match"] for turn in late] == [0.0, 0.0]
