"""Every storage mode gives the numbers of an ordinary model with the same weights, gradients and rollouts included."""

import copy

import pytest
import torch

from swirl_lightning.codecs.constraints import ChoiceConstraint, RangeConstraint
from swirl_lightning.rollout import RolloutRequest, TransformersEngine
from swirl_lightning.scoring.scorer import CausalScorer, ScoringPath
from swirl_lightning.types import Role, SamplingParams, ScoredRow
from swirl_lightning.world_model import REFERENCE, WorldModel, WorldModelConfig
from tests.models import VOCAB, build, random_groups

MODES = ("separate", "shared", "adapters")


class Words:
    """A codec of one token a letter, as constraints need it."""

    vocab_size, eos_id = VOCAB, 1

    def encode_action(self, text):
        return [ord(letter) for letter in text]

    def decode_action(self, ids):
        return "".join(map(chr, ids))


@pytest.fixture(scope="module", params=MODES)
def world_model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    build("qwen2", shared=False).save_pretrained(str(folder))
    pair = WorldModel(WorldModelConfig(base=str(folder), storage=request.param, dtype="float32"))
    torch.manual_seed(1)
    with torch.no_grad():
        for role in (Role.FWM, Role.IDM, REFERENCE):
            for parameter in pair.role_parameters(role):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return pair


def ordinary(pair, role):
    """The same weights in a model that knows nothing of ours."""
    model = copy.deepcopy(pair.causal_lm(role) if pair.config.storage != "adapters" else pair.models["base"])
    if pair.config.storage == "adapters":
        pair.causal_lm(role)
        model.set_adapter(role if role == REFERENCE else role.value)
        model = model.merge_and_unload()
    model.set_attn_implementation("sdpa")
    return model.eval()


@pytest.mark.parametrize("role", [Role.FWM, Role.IDM, REFERENCE])
def test_scores_and_rollouts_of_every_role(world_model, role):
    groups, plain = random_groups(2, 3, 12, 6), ordinary(world_model, role)
    expected = CausalScorer(path=ScoringPath.PLAIN).score(plain, groups)
    prompts = [list(group[0].ids[:5]) for group in groups]
    greedy = [
        plain.generate(torch.tensor([p]), do_sample=False, max_new_tokens=8, eos_token_id=1, pad_token_id=2)[0, len(p) :]
        for p in prompts
    ]
    with world_model.use(role) as model:
        scored = CausalScorer(path=ScoringPath.SHARED).score(model, groups)
        request = RolloutRequest(prompts, [0, 1], 2, SamplingParams(8, 0.0), stop_ids=[1], pad_id=2)
        drawn = TransformersEngine().generate(model, request)
    torch.testing.assert_close(scored.logprobs, expected.logprobs, atol=5e-5, rtol=0)
    assert [drawn.completion_ids(i, k) for i in range(2) for k in range(2)] == [t.tolist() for t in greedy for _ in range(2)]


@pytest.mark.parametrize("role", list(Role))
def test_gradients_reach_the_roles_parameters_and_equal_plain_rows(world_model, role):
    groups = random_groups(2, 3, 12, 6, seed=3)
    parameters = world_model.role_parameters(role)

    def gradients(path):
        with world_model.use(role, training=True) as model:
            total = CausalScorer(path=path)(model, groups).logprobs.exp().sum()
        return torch.autograd.grad(total, parameters)

    for shared, plain in zip(gradients(ScoringPath.SHARED), gradients(ScoringPath.PLAIN), strict=True):
        torch.testing.assert_close(shared, plain, atol=2e-5 * max(1.0, float(plain.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("constraint", [RangeConstraint(VOCAB, 50, 80, (1,)), ChoiceConstraint(["ab", "abc", "fg"], Words())])
def test_constrained_rollouts_are_scored_as_they_were_drawn(world_model, constraint):
    prompts = [[3, 4, 5, 6], [7, 8, 9]]
    params = SamplingParams(5, 0.7)
    with world_model.use(Role.IDM) as model:
        request = RolloutRequest(prompts, [5, 6], 4, params, stop_ids=[1], pad_id=2, constraint=constraint)
        drawn = TransformersEngine().generate(model, request)
        groups = [[ScoredRow((*p, *drawn.completion_ids(i, k)), len(p)) for k in range(4)] for i, p in enumerate(prompts)]
        scored = CausalScorer().score(model, groups, temperature=0.7, constraint=constraint)
    assert torch.equal(scored.mask.view_as(drawn.mask), drawn.mask)
    torch.testing.assert_close(scored.logprobs.view_as(drawn.logprobs), drawn.logprobs, atol=2e-5, rtol=0)
    for i in range(2):
        for k in range(4):
            ids = drawn.completion_ids(i, k)
            assert all(bool(constraint.allowed(ids[:n])[token]) for n, token in enumerate(ids))


@pytest.mark.parametrize("fused", [False, True])
def test_the_reference_is_the_policy_until_an_optimizer_moves_it(world_model, fused):
    pair, role = copy.deepcopy(world_model), Role.IDM
    assert not pair.is_reference(role)
    pair.snapshot(role)
    assert pair.is_reference(role)
    assert pair.is_reference(Role.FWM) == (pair.config.storage == "shared")
    parameters = pair.role_parameters(role)
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=fused)
    with pair.use(role, training=True) as model:
        CausalScorer()(model, random_groups(2, 3, 12, 6)).logprobs.sum().backward()
    assert pair.is_reference(role)
    optimizer.step()
    assert not pair.is_reference(role)
