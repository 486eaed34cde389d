"""What a rollout has computed of its prompts is gone on from: the same log-probabilities, the same gradients."""

import random

import pytest
import torch

from swirl_lightning.rollout import RolloutRequest, TransformersEngine
from swirl_lightning.scoring.packing import pack
from swirl_lightning.scoring.scorer import CausalScorer, ScoringPath
from swirl_lightning.types import SamplingParams, ScoredRow
from tests.models import ARCHITECTURES, VOCAB, build

RNG = random.Random(5)
PROMPTS = [tuple(RNG.randrange(3, VOCAB) for _ in range(n)) for n in (9, 14, 6)]


def draw(model, keep, **kwargs):
    request = RolloutRequest(PROMPTS, (1, 2, 3), 4, SamplingParams(7), stop_ids=range(40, 60), pad_id=2, keep=keep)
    return TransformersEngine(**kwargs).generate(model, request)


def rows_of(drawn):
    return [
        [ScoredRow((*prompt, *drawn.completion_ids(i, k)), len(prompt)) for k in range(4)] for i, prompt in enumerate(PROMPTS)
    ]


def gradients(model, logprobs):
    model.zero_grad()
    (logprobs * torch.linspace(1, 2, logprobs.numel()).view_as(logprobs)).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_training_on_top_of_a_rollouts_prompts(name):
    model = build(name)
    drawn = draw(model, "gradients")
    rows = rows_of(drawn)
    assert drawn.prefixes is not None
    assert drawn.prefixes.prompts == tuple(PROMPTS)
    plain = CausalScorer()(model, rows, entropy=True)
    expected = gradients(model, plain.logprobs)
    scores = CausalScorer()(model, rows, entropy=True, prefixes=drawn.prefixes)
    found = gradients(model, scores.logprobs)
    torch.testing.assert_close(scores.logprobs, plain.logprobs, atol=2e-5, rtol=0)
    torch.testing.assert_close(scores.entropy, plain.entropy, atol=2e-5, rtol=0)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], atol=2e-5 * max(1.0, float(value.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("turn", [10_000, 12])
def test_a_judge_goes_on_from_what_its_prompts_share_with_the_rows(turn, monkeypatch):
    model = build("llama")
    monkeypatch.setattr("swirl_lightning.scoring.scorer._TURN", {"cpu": turn})
    kept = draw(model, "values").prefixes
    assert not next(iter(kept.values.values()))[0].requires_grad
    rows = [  # the end of the prompt differs, as a predicted next state from the observed one
        [ScoredRow((*prompt[:4], *(RNG.randrange(3, VOCAB) for _ in range(8))), 8) for _ in range(3)] for prompt in PROMPTS
    ]
    packed = pack(rows, torch.device("cpu"), kept)
    assert packed.layout.prefix_lengths == (4, 4, 4)
    assert packed.ids.shape[1] == 9 * 8
    expected = CausalScorer(path=ScoringPath.PLAIN).score(model, rows, temperature=0.8)
    found = CausalScorer().score(model, rows, temperature=0.8, prefixes=kept)
    torch.testing.assert_close(found.logprobs, expected.logprobs, atol=2e-5, rtol=0)
    assert torch.equal(found.mask, expected.mask)


def test_rows_that_share_nothing_with_the_prompts_are_scored_as_without():
    model = build("llama")
    kept = draw(model, "values").prefixes
    rows = [[ScoredRow((prompt[0] + 1, 5, 6, 7), 2), ScoredRow((prompt[0] + 1, 5, 9), 2)] for prompt in PROMPTS]
    found = CausalScorer().score(model, rows, prefixes=kept)
    assert torch.equal(found.logprobs, CausalScorer().score(model, rows).logprobs)


def test_nothing_is_kept_unasked_or_of_prompts_drawn_in_turns():
    model = build("llama")
    assert draw(model, "nothing").prefixes is None
    assert draw(model, "gradients", cache_tokens=40).prefixes is None


def test_some_of_the_prompts():
    kept = draw(build("llama"), "values").prefixes
    some = kept.take([2, 0])
    assert some.prompts == (PROMPTS[2], PROMPTS[0])
    for layer, (keys, _) in some.values.items():
        assert torch.equal(keys, kept.values[layer][0][[2, 0]])
    assert kept.take([0, 1, 2]) is kept
