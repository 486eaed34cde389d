"""Phases in closed form on a real, tiny pair of models."""

import math
from dataclasses import replace

import pytest
import torch

from swirl_lightning.algorithm.candidates import dream, infer_posterior, member_posterior, score_actions
from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.proposals import GivenActions, Proposals
from swirl_lightning.algorithm.rewards import ExactMatch, FunctionReward, JudgeLogprob, RewardPart
from swirl_lightning.algorithm.rollouts import collect
from swirl_lightning.algorithm.schedule import PhaseSchedule
from swirl_lightning.algorithm.settings import Gate, PosteriorConfig, RoleSettings
from swirl_lightning.codecs.constraints import ConstraintSpec
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.types import Role, SamplingParams
from swirl_lightning.world_model.pair import WorldModelConfig
from tests.end_to_end.conftest import config, world

__all__ = ["config", "world"]
ACTIONS = ["turn left", "turn right", "go forward", "open the door", "take the key", "wait"]
GIVEN = ACTIONS[:2]


OPEN = Gate()


def posterior_of(inference, pairs, role, *, gate=OPEN, **options):
    scored, config = score_actions(inference, pairs, role, **options), role.posterior
    return infer_posterior(inference, scored, config.beta, config.temperature, gate)


@pytest.fixture(scope="module")
def data(world):
    found = TransitionDataModule(str(world / "data"), max_unlabelled=6, max_labelled=12)
    found.setup("fit")
    return found


@pytest.fixture(scope="module")
def module(world, data):
    """Untrained models that finish their answers, since they choose among a few."""
    states = sorted({row.next_state for row in [*data.unlabelled, *data.labelled]})
    model = SwirlModule(
        WorldModelConfig(str(world / "model")),
        max_prompt_tokens=110,
        fwm=RoleSettings(SamplingParams(50), constraint=ConstraintSpec(choices=states)),
        idm=RoleSettings(SamplingParams(16), constraint=ConstraintSpec(choices=ACTIONS)),
        seed=0,
    )
    model.configure_model()
    return model


def settings(**changes):
    posterior = {"proposals": [GivenActions(GIVEN)], "draws": 3} | changes.pop("posterior", {})
    return RoleSettings(SamplingParams(16), posterior=PosteriorConfig(**posterior), **changes)


def test_the_posterior_is_bayes_rule_over_what_both_models_say(module, data):
    inference, pairs = module.inference, list(data.unlabelled[:3])
    judge = [RewardPart(JudgeLogprob("sum", None))]
    latent = posterior_of(inference, pairs, settings(posterior={"beta": 1.0, "draws": 0}, rewards=judge), seed=0)
    for b, pair in enumerate(pairs):
        actions = latent.actions[b]
        assert set(GIVEN) <= set(actions) <= set(ACTIONS)
        assert inference.infer_actions([pair], params=SamplingParams(16, temperature=0.0))[0][0] in actions
        assert len(set(actions)) == len(actions)
        q = inference.score_actions([pair] * len(actions), actions).logprobs.sum(-1)
        p = inference.score_states([pair] * len(actions), actions, [pair.next_state] * len(actions)).logprobs.sum(-1)
        expected = torch.softmax(q + p, 0)
        torch.testing.assert_close(latent.posterior.weights[b, : len(actions)], expected, rtol=1e-4, atol=1e-5)
        assert latent.posterior.agreement[b] == (q.argmax() == p.argmax())
    best = [max(each, key=lambda zw: zw[1]) for each in latent.weighted(0.9999)]
    assert [[pair] for pair in best] == latent.weighted(0.9999)  # the best one stays, whatever its weight


def test_what_is_drawn_for_a_pair_depends_on_the_pair_alone(module, data):
    inference, pairs = module.inference, list(data.unlabelled[:4])
    whole = posterior_of(inference, pairs, settings(), seed=5, epoch=2)
    parts = [posterior_of(inference, [pair], settings(), seed=5, epoch=2) for pair in reversed(pairs)]
    assert whole.actions == tuple(part.actions[0] for part in reversed(parts))
    for b, part in enumerate(reversed(parts)):
        torch.testing.assert_close(whole.posterior.weights[b, : len(part.actions[0])], part.posterior.weights[0])
    assert posterior_of(inference, pairs, settings(), seed=5, epoch=3).actions != whole.actions
    assert posterior_of(inference, [], settings(), seed=5).actions == ()  # a rank without a share


class Copies(Proposals):
    def __call__(self, pair, seed):
        return [ACTIONS[0], ACTIONS[0]]


def test_beta_and_rewards_say_what_wins(module, data):
    inference, pairs = module.inference, list(data.unlabelled[:2])
    wanted = [RewardPart(FunctionReward(lambda member: float(member.action == ACTIONS[1])), 100.0)]
    strong = posterior_of(inference, pairs, settings(rewards=wanted), seed=0)
    assert all(max(each, key=lambda zw: zw[1])[0] == ACTIONS[1] for each in strong.weighted(0.0))
    assert strong.posterior.entropy.max() < 1e-3
    one = settings(posterior={"proposals": [Copies(), Copies()], "draws": 0})
    assert all(actions.count(ACTIONS[0]) == 1 for actions in posterior_of(inference, pairs, one, seed=0).actions)


def test_the_gate_keeps_what_both_models_find_best_and_that_alone(module, data):
    inference, pairs = module.inference, list(data.unlabelled)
    config = {"gate": Gate(agreement=True), "greedy": False, "draws": 0, "proposals": [GivenActions(ACTIONS)]}
    gated = settings(posterior=config)
    latent = posterior_of(inference, pairs, gated, seed=0, labels={"wait": 3}, gate=Gate(agreement=True))
    assert latent.tokens == 0
    for pair, targets, agrees in zip(pairs, latent.targets(gated.posterior), latent.posterior.agreement.tolist(), strict=True):
        q = inference.score_actions([pair] * len(ACTIONS), ACTIONS).logprobs.sum(-1)
        p = inference.score_states([pair] * len(ACTIONS), ACTIONS, [pair.next_state] * len(ACTIONS))
        p = p.logprobs.sum(-1) / p.mask.sum(-1) / 0.1 + torch.tensor([math.log(1 + 3 * (z == "wait")) for z in ACTIONS])
        assert agrees == (q.argmax() == p.argmax())
        assert targets == ([(ACTIONS[q.argmax()], 1.0)] if agrees else [])
    strict = posterior_of(inference, pairs, gated, seed=0, labels={"wait": 3}, gate=Gate(agreement=True, explained=True))
    assert posterior_of(inference, pairs, gated, seed=0).trusted.all()
    unknown = inference.score_states(pairs, ["?"] * len(pairs), [pair.next_state for pair in pairs]).logprobs.sum(-1)
    best = [max(each, key=lambda zw: zw[1])[0] for each in strict.weighted()]
    known = inference.score_states(pairs, best, [pair.next_state for pair in pairs]).logprobs.sum(-1)
    assert torch.equal(strict.trusted, latent.posterior.agreement & (known > unknown))
    for b, sure in enumerate(posterior_of(inference, pairs, gated, seed=0, gate=Gate(confidence=0.6)).trusted.tolist()):
        assert sure == (latent.posterior.weights[b].max() >= 0.6)
    empty = settings(posterior=config | {"proposals": [Nothing()]})
    with pytest.raises(ValueError, match="nothing is proposed for episode"):
        posterior_of(inference, pairs, empty, seed=0)


class Nothing(Proposals):
    def __call__(self, pair, seed):
        return []


def test_nan_ends_the_run_or_rules_the_candidate_out(module, data):
    pairs = list(data.unlabelled[:2])
    broken = settings(rewards=[RewardPart(FunctionReward(lambda m: math.nan if m.action == ACTIONS[0] else 0.0))])
    with pytest.raises(FloatingPointError, match="the fwm gave the reward nan"):
        posterior_of(module.inference, pairs, broken, seed=0)
    latent = posterior_of(module.inference, pairs, broken, seed=0, skip_nonfinite=True)
    assert all(dict(each)[ACTIONS[0]] == 0 for each in latent.weighted(0.0))


def test_dreams_are_the_fwms_own_transitions(module, data):
    inference, pairs = module.inference, list(data.unlabelled)
    latent = posterior_of(inference, pairs, settings(), seed=0)
    dreams, tokens = dream(inference, latent, ["wait"], 0.0, seed=0)
    assert len(dreams) == len(pairs)
    assert tokens > len(pairs)
    for made, pair, actions in zip(dreams, pairs, latent.actions, strict=True):
        assert (made.state, made.episode, made.step) == (pair.state, pair.episode, pair.step)
        assert made.action in actions
        greedy = SamplingParams(50, temperature=0.0)
        assert made.next_state == inference.predict_states([pair], [made.action], params=greedy)[0][0]
    labelled, _ = dream(inference, latent, ["wait"], 1.0, seed=0)
    assert {made.action for made in labelled} == {"wait"}
    mixed, _ = dream(inference, latent, ["open the door"], 0.5, seed=0)
    assert 0 < sum(made.action == "open the door" for made in mixed) < len(mixed)


def test_phase_one_weighs_distinct_finished_members_and_the_observed_state(module, data):
    inference, pairs = module.inference, list(data.unlabelled[:3])
    grounded = RoleSettings(SamplingParams(40), objective="posterior", group_size=4, rewards=[RewardPart(ExactMatch(), 1000.0)])
    experience = collect(inference, Role.FWM, pairs, grounded, seed=0)
    rollouts, judgement = experience.rollouts, experience.judgement
    assert rollouts.anchored
    assert rollouts.drawn == 4
    assert judgement.logprob is None  # no reward asks the judge
    for pair, samples, row, z in zip(pairs, rollouts.samples, rollouts.rows, rollouts.latent.actions, strict=True):
        assert samples[-1] == pair.next_state
        assert row[-1] == inference.prompts.fwm_row(pair, z, pair.next_state)
    expected = inference.score_states(pairs, rollouts.latent.actions, [pair.next_state for pair in pairs])
    torch.testing.assert_close(rollouts.trajectory.logprobs[:, -1].sum(-1), expected.logprobs.sum(-1), rtol=1e-4, atol=1e-4)
    assert judgement.rewards[:, -1].tolist() == [1000.0] * 3
    prior = rollouts.trajectory.logprobs.sum(-1)
    torch.testing.assert_close(member_posterior(experience, prior, 0.1).weights[:, -1], torch.ones(3))
    flat = replace(experience, judgement=replace(judgement, rewards=torch.zeros_like(judgement.rewards)))
    weights = member_posterior(flat, prior, 0.1).weights
    for samples, row, own in zip(rollouts.samples, weights.tolist(), prior.exp().tolist(), strict=True):
        drawn = {y: k for k, y in reversed(list(enumerate(samples[:-1]))) if y != samples[-1]}
        share = {k: samples[:-1].count(y) / 4 for y, k in drawn.items()}  # drawn from the reference: counts alone
        expected = [share.get(k, 0.0) for k in range(4)] + [own[-1]]
        assert row == pytest.approx([value / sum(expected) for value in expected], rel=1e-4)


BAD = {
    "idm__nll_weight": (1.0, "idm.nll_weight.*belongs to fwm"),
    "idm__anchor": (True, "idm.anchor.*belongs to fwm"),
    "idm__objective": ("elbo", "idm.objective: elbo.*belongs to fwm"),
    "idm__dream_weight": (1.0, "idm.dream_weight needs the posterior"),
    "fwm__objective": ("none", "fwm.objective: none"),
    "fwm__dream_weight": (1.0, "they teach the idm"),
    "idm__state_only_weight": (1.0, "idm.state_only_weight.*belongs to fwm"),
    "fwm__posterior": (PosteriorConfig(proposals=[GivenActions(["a"])]), "idm.posterior.proposals"),
    "idm__rewards": ([RewardPart(ExactMatch())], "idm.rewards: ExactMatch"),
}


@pytest.mark.parametrize("name", BAD)
def test_settings_that_belong_elsewhere_are_refused(name, world):
    role, field = name.split("__")
    value, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        SwirlModule(WorldModelConfig(str(world / "model")), schedule=PhaseSchedule(), **{role: RoleSettings(**{field: value})})


def test_values_out_of_range_are_refused():
    for wrong, message in (
        ({"beta": 0.0}, "beta must be positive"),
        ({"draws": -1}, "draws must be >= 0"),
        ({"least_weight": 1.0}, "least_weight must lie in"),
        ({"greedy": False}, "without greedy there must be proposals"),
    ):
        with pytest.raises(ValueError, match=message):
            PosteriorConfig(**wrong)
    with pytest.raises(ValueError, match="dream_label_share must lie in"):
        RoleSettings(dream_label_share=1.5)


def test_calibration_finds_how_sure_an_idm_may_be(module, data):
    held_out, closed = list(data.labelled), module.closed_form
    config = PosteriorConfig(draws=0, greedy=False, proposals=[GivenActions(sorted({t.action for t in held_out}))])
    idm = RoleSettings(SamplingParams(16), posterior=config, rewards=[RewardPart(FunctionReward(lambda member: 0.0))])
    closed = replace(closed, steps=replace(closed.steps, roles={**module.roles, Role.IDM: idm}), temperatures={})

    def likelihood():
        found = closed.look([t.without_action() for t in held_out])
        return sum(found.posterior.weights[b, found.actions[b].index(t.action)].log() for b, t in enumerate(held_out))

    before = likelihood()
    said = closed.calibrate(Role.IDM, held_out, agree=lambda value: value)
    assert f"{len(held_out)} of {len(held_out)} validation pairs" in said
    best, fitted = likelihood(), closed.temperatures["idm"]
    assert best >= before
    for other in (fitted * 2, max(1.0, fitted / 2)):
        closed.temperatures["idm"] = other
        assert likelihood() <= best + 1e-4 or other > 64
    assert "0 of 1" in closed.calibrate(Role.FWM, [replace(held_out[0], action="sing")], agree=lambda value: value)
    assert closed.temperatures["fwm"] == 1.0  # nothing to learn from
