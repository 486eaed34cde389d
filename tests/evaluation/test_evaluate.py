"""The benchmark's bookkeeping, with models whose answers are known."""

import json
import math

import pytest
import torch
from torch import nn

from swirl_lightning.evaluation import evaluate, run_benchmark, show_state
from swirl_lightning.types import Role, SamplingParams, TokenScores, Transition

GREEDY = SamplingParams(max_new_tokens=8, temperature=0.0)
SAMPLED = SamplingParams(max_new_tokens=8, temperature=0.75, top_p=0.96)
MOVES = [("right", ". @"), ("stay", "@ ."), ("left", "@ ."), ("jump", ". @"), ("right", ". @")]
WORLD = [Transition("@ .", after, action, episode="e", step=i) for i, (action, after) in enumerate(MOVES)]


class Words:
    """Codec of the fakes: a word is a token."""

    def encode_state(self, state):
        return [hash(word) for word in state.split()]

    encode_action = units = encode_state

    def canonical(self, state):
        return state


class Known:
    """Predicts ``draws`` in turn; infers ``right``; reads the action best from the state ``. @``."""

    def __init__(self, draws=(". @",)):
        self.world_model, self.codec, self.draws = nn.Linear(1, 1), Words(), draws
        self.sampling = dict.fromkeys(Role, GREEDY)
        self.batches = []

    def predict_states(self, pairs, actions, *, params=None, samples=1, seed=0, progress=None):
        assert actions == [pair.action for pair in pairs]
        progress(len(pairs) * samples)
        self.batches.append(len(pairs))
        return [[self.draws[i % len(self.draws)] for i in range(samples)] for _ in pairs]

    def infer_actions(self, pairs, *, params=None, samples=1, seed=0, progress=None):
        progress(len(pairs) * samples)
        return [["right"] * samples for _ in pairs]

    def score_states(self, pairs, actions, next_states):
        return scores([-float(pair.step) for pair in pairs])

    def score_actions(self, pairs, actions, next_states=None):
        if next_states is None:
            return scores([-2.0] * len(pairs))
        return scores([-1.0 if state == ". @" else -3.0 for state in next_states])


def scores(values):
    """Two tokens a row, the second of them padding in odd rows."""
    logprobs = torch.tensor([[v, 0.0] for v in values])
    mask = torch.tensor([[True, i % 2 == 0] for i in range(len(values))])
    return TokenScores(logprobs, mask, torch.zeros_like(logprobs))


def test_measures_by_hand():
    got = evaluate(Known(), WORLD, decoding=GREEDY, batch_size=2, progress=False)
    assert set(got) == {"fwm", "idm", "copy"}
    assert got["fwm"]["exact_match"] == pytest.approx(3 / 5)  # the three that end in ". @"
    assert got["fwm"]["changed_accuracy"] == 1.0
    assert got["fwm"]["logprob"] == pytest.approx(-(0 + 1 + 2 + 3 + 4) / 5)
    assert got["idm"]["exact_match"] == pytest.approx(2 / 5)
    assert got["copy"]["exact_match"] == pytest.approx(2 / 5)
    assert got["copy"]["changed_accuracy"] == 0.0
    assert got["copy"]["copy_rate"] == 1.0
    assert "logprob" not in got["copy"]


def test_a_measure_of_nothing_is_left_out():
    still = [pair for pair in WORLD if pair.state == pair.next_state]
    assert "changed_accuracy" not in evaluate(Known(), still, decoding=GREEDY, progress=False)["fwm"]


def test_changed_transitions_are_measured_separately():
    got = evaluate(Known(draws=("@ .",)), WORLD, decoding=GREEDY, progress=False)
    assert got["fwm"]["exact_match"] == pytest.approx(2 / 5)  # the two that change nothing
    assert got["fwm"]["changed/exact_match"] == 0.0
    assert got["fwm"]["changed/copy_rate"] == 1.0
    assert got["fwm"]["changed/logprob"] == pytest.approx(-(0 + 3 + 4) / 3)
    assert got["copy"]["changed/exact_match"] == 0.0
    moving = [pair for pair in WORLD if pair.state != pair.next_state]
    alone = evaluate(Known(), moving, decoding=GREEDY, progress=False)["fwm"]
    assert all(alone[f"changed/{name}"] == value for name, value in alone.items() if "/" not in name)
    still = [pair for pair in WORLD if pair.state == pair.next_state]
    assert not any(name.startswith("changed/") for name in evaluate(Known(), still, decoding=GREEDY, progress=False)["fwm"])


def test_measures_of_tool_answers_on_request():
    got = evaluate(Known(), WORLD, decoding=GREEDY, benchmark="tools", progress=False)
    assert got["fwm"]["json_valid"] == 0.0
    assert "json_valid" not in got["idm"]


def test_samples_are_averaged():
    got = evaluate(Known(draws=(". @", "x y")), WORLD[:1], decoding=SAMPLED, samples=2, progress=False)
    assert got["fwm"]["exact_match"] == 0.5


def test_best_of_n_keeps_what_the_idm_reads_best_among_the_first_n():
    done = run_benchmark(Known(draws=("x y", "@ .", ". @", "z")), WORLD[:2], decoding=SAMPLED, best_of=[2, 4], progress=False)
    # "x y" and "@ ." are read equally badly in sum, but "x y" over two tokens: the mean per token decides
    assert [dict(p.verified) for p in done.predictions] == [{2: "x y", 4: ". @"}] * 2
    assert done.measures["best_of_4"]["exact_match"] == 0.5  # right for ". @", wrong for "@ ."
    assert done.measures["best_of_2"]["exact_match"] == 0.0


def test_pointless_questions_are_refused():
    with pytest.raises(ValueError, match="no transitions"):
        evaluate(Known(), [], decoding=GREEDY)
    with pytest.raises(ValueError, match="greedy next states are all alike"):
        evaluate(Known(), WORLD, decoding=GREEDY, best_of=2)
    with pytest.raises(ValueError, match="at least 2"):
        evaluate(Known(), WORLD, decoding=SAMPLED, best_of=1)


def test_ranks_do_equal_work_and_count_each_transition_once():
    shares, worked = [], []
    for rank in range(3):  # one process stands for each of three ranks in turn: there is nothing to reduce with
        model = Known()
        done = run_benchmark(model, WORLD, decoding=GREEDY, rank=rank, world_size=3, progress=False)
        shares.append([p.transition.step for p in done.predictions])
        worked.append(model.batches)
    assert shares == [[0, 3], [1, 4], [2]]
    assert worked == [[2], [2], [2]]


def test_predictions_are_rows_of_json():
    done = run_benchmark(Known(), WORLD[:2], decoding=SAMPLED, best_of=2, progress=False)
    row = json.loads(json.dumps(done.predictions[1].row()))
    assert (row["episode"], row["step"], row["action"]) == ("e", 1, "stay")
    assert row["predicted_states"] == [". @"]
    assert row["inferred_actions"] == ["right"]
    assert row["state_logprob"] == -1.0
    assert not math.isnan(row["action_logprob"])
    assert row["best_of_2"] == ". @"
    assert show_state(b"\x89PNG") == "<image, 4 bytes>"
