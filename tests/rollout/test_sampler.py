"""Rollouts against ``transformers``: greedy completions, recorded log-probabilities, draws that depend on the prompt alone."""

import random

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.rollout import RolloutRequest, TransformersEngine
from swirl_lightning.rollout.decoders import RolloutPath
from swirl_lightning.rollout.sampling import _cut, next_tokens
from swirl_lightning.scoring.scorer import CausalScorer, ScoringPath, scoring_path
from swirl_lightning.types import SamplingParams, ScoredRow
from tests.models import ARCHITECTURES, VOCAB, build

STOP = [1, *range(40, 48)]
RNG = random.Random(3)
PROMPTS = [[RNG.randrange(3, VOCAB) for _ in range(n)] for n in (4, 13, 9, 20)]


SAMPLED = SamplingParams(18, 0.9, top_p=0.95)


def generate(model, prompts=PROMPTS, members=3, params=SAMPLED, seeds=(1, 2, 3, 4), **kwargs):
    engine = TransformersEngine(cache_tokens=kwargs.pop("cache_tokens", 1 << 18))
    return engine.generate(model, RolloutRequest(prompts, seeds, members, params, stop_ids=STOP, pad_id=2, **kwargs))


@pytest.fixture(params=list(RolloutPath))
def path(request, monkeypatch):
    monkeypatch.setattr("swirl_lightning.rollout.sampler.rollout_path", lambda model: request.param)
    return request.param


def scoring(path):
    return ScoringPath.SHARED if path is RolloutPath.SHARED else ScoringPath.PLAIN


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_rollouts_equal_generate(name, path):
    reference = build(name, shared=False)
    expected = [
        reference.generate(torch.tensor([p]), do_sample=False, max_new_tokens=18, eos_token_id=STOP, pad_token_id=2)[
            0, len(p) :
        ]
        for p in PROMPTS
    ]
    drawn = generate(build(name, shared=path is RolloutPath.SHARED), members=2, params=SamplingParams(18, 0.0))
    for i, tokens in enumerate(expected):
        for k in range(2):
            assert drawn.completion_ids(i, k) == tokens.tolist()
            assert bool(drawn.finished[i, k]) == (tokens[-1].item() in STOP)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_recorded_logprobs_are_those_of_the_policy(name, path):
    model = build(name, shared=path is RolloutPath.SHARED)
    drawn = generate(model)
    groups = [[ScoredRow((*p, *drawn.completion_ids(i, k)), len(p)) for k in range(3)] for i, p in enumerate(PROMPTS)]
    scored = CausalScorer(path=scoring(path)).score(model, groups, temperature=0.9)
    torch.testing.assert_close(scored.logprobs.view_as(drawn.logprobs), drawn.logprobs, atol=2e-5, rtol=0)
    assert torch.equal(scored.mask.view_as(drawn.mask), drawn.mask)


def test_a_prompts_draws_do_not_depend_on_the_batch():
    model = build("qwen3")
    together = generate(model)
    apart = generate(model, prompts=PROMPTS[::-1], seeds=(4, 3, 2, 1), cache_tokens=10)
    assert all(together.completion_ids(i, k) == apart.completion_ids(3 - i, k) for i in range(4) for k in range(3))
    assert generate(model, seeds=(9, 9, 9, 9)).completions.tolist() != together.completions.tolist()


class OnlySmall(TokenConstraint):
    """Tokens below 50; the end token only after two others."""

    vocab_size = VOCAB

    def allowed(self, generated):
        mask = torch.arange(VOCAB) < 40
        mask[1] = len(generated) >= 2
        return mask


def test_constraint_holds_and_logprobs_are_renormalised(path):
    model = build("llama", shared=path is RolloutPath.SHARED)
    drawn = generate(model, constraint=OnlySmall())
    assert all(max(drawn.completion_ids(i, k)) < 40 for i in range(4) for k in range(3))
    groups = [[ScoredRow((*p, *drawn.completion_ids(i, k)), len(p)) for k in range(3)] for i, p in enumerate(PROMPTS)]
    scored = CausalScorer(path=scoring(path)).score(model, groups, temperature=0.9, constraint=OnlySmall())
    torch.testing.assert_close(scored.logprobs.view_as(drawn.logprobs), drawn.logprobs, atol=2e-5, rtol=0)


def test_draws_follow_the_distribution_inside_the_cut():
    torch.manual_seed(0)
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -8.0]])
    noise = torch.rand(20000, dtype=torch.float64)
    params = SamplingParams(1, temperature=0.8, top_k=3)
    tokens, logprobs = next_tokens(logits.expand(len(noise), -1), noise, params)
    expected = torch.softmax(logits[0, :3] / 0.8, dim=-1)
    observed = torch.bincount(tokens, minlength=5)[:3] / len(noise)
    torch.testing.assert_close(observed, expected, atol=0.015, rtol=0)
    assert tokens.max() <= 2
    torch.testing.assert_close(logprobs, torch.log_softmax(logits[0] / 0.8, dim=-1)[tokens])


def test_the_ends_of_the_noise_draw_tokens_that_have_mass():
    logits = torch.tensor([[-40.0, 1.0, 0.0, -torch.inf], [-torch.inf, 0.3, 0.1, 0.7]]).repeat(2, 1)
    noise = torch.tensor([0.0, 0.0, 1 - 2**-53, 1 - 2**-53], dtype=torch.float64)
    for params, drawn in ((SamplingParams(1), [0, 1, 2, 3]), (SamplingParams(1, top_k=1), [1, 3, 1, 3])):
        assert next_tokens(logits, noise, params)[0].tolist() == drawn


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (SamplingParams(1, 1.0, top_p=0.6), {0}),
        (SamplingParams(1, 1.0, top_p=0.7), {0, 1}),
        (SamplingParams(1, 1.0, min_p=0.3), {0, 1}),
        (SamplingParams(1, 1.0, top_k=1), {0}),
    ],
)
def test_cuts_keep_what_they_say(params, kept):
    logits = torch.tensor([0.64, 0.25, 0.08, 0.03]).log()[None].expand(4000, -1)
    tokens, _ = next_tokens(logits, torch.rand(4000, dtype=torch.float64), params)
    assert set(tokens.tolist()) == kept


@pytest.mark.parametrize("seed", range(4))
def test_cuts_are_those_of_transformers(seed):
    rng = random.Random(seed)
    logits = 3 * torch.randn(300, 60, generator=torch.Generator().manual_seed(seed))
    params = SamplingParams(1, rng.uniform(0.5, 1.5), rng.randint(2, 30), rng.uniform(0.3, 0.99), rng.uniform(0.01, 0.4))
    theirs = GenerationConfig(
        do_sample=True, temperature=params.temperature, top_k=params.top_k, top_p=params.top_p, min_p=params.min_p
    )
    scores = GenerationMixin._get_logits_processor(build("gpt2"), theirs)(None, logits)
    ours = _cut(torch.softmax(logits / params.temperature, dim=-1), params)
    torch.testing.assert_close(ours / ours.sum(-1, keepdim=True), torch.softmax(scores, dim=-1), atol=1e-6, rtol=0)


def test_no_room_is_said_before_sampling():
    model = build("gpt2")
    with pytest.raises(ValueError, match=r"prompt 0 has 4 tokens .* lower max_prompt_tokens"):
        generate(model, params=SamplingParams(2000, 0.0))
    assert scoring_path(model) is ScoringPath.SHARED
