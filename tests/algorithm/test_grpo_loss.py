"""grpo_loss against a slow loop, finite differences, and itself in parts."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentError, ArgumentParser

from swirl_lightning.algorithm.objectives.grpo import GrpoConfig, grpo_loss, normaliser

torch.set_num_threads(1)

N, T = 6, 5
VARIANTS = [
    GrpoConfig(kl=kl, aggregation=aggregation, ratio=ratio, max_tokens=7 if aggregation == "constant" else None)
    for kl, aggregation, ratio in itertools.product(
        ("k1", "k2", "k3"), ("sequence", "token", "constant"), ("token", "sequence")
    )
]
IDS = ["-".join((c.kl, c.aggregation, c.ratio)) for c in VARIANTS]


def case(seed: int = 0, *, empty_row: bool = False) -> dict[str, torch.Tensor]:
    """Rows of unequal length, some ratios beyond the clip, all away from its edges."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (N,), generator=generator)
    if empty_row:
        lengths[seed % N] = 0
    old = -2 * torch.rand(N, T, generator=generator, dtype=torch.float64) - 0.1
    steps = torch.tensor([-0.5, -0.1, -0.03, 0.02, 0.1, 0.6], dtype=torch.float64)
    log_ratio = steps[torch.randint(0, len(steps), (N, T), generator=generator)]
    return {
        "logprobs": old + log_ratio,
        "old_logprobs": old,
        "advantages": torch.randn(N, generator=generator, dtype=torch.float64),
        "mask": torch.arange(T) < lengths[:, None],
        "ref_logprobs": old + 0.4 * torch.randn(N, T, generator=generator, dtype=torch.float64),
        "weights": 0.5 + torch.rand(N, T, generator=generator, dtype=torch.float64),
    }


def by_hand(config, logprobs, old_logprobs, advantages, mask, ref_logprobs, weights):
    """Loss and statistics in plain Python."""
    rows, tokens = 0, 0
    total, sums = 0.0, {"kl": 0.0, "ratio": 0.0, "clip_low": 0, "clip_high": 0, "tokens": 0}
    for n in range(N):
        at = [t for t in range(T) if mask[n, t]]
        if not at:
            continue
        rows, tokens = rows + 1, tokens + len(at)
        logs = [float(logprobs[n, t] - old_logprobs[n, t]) for t in at]
        if config.ratio == "sequence":
            logs = [sum(logs) / len(logs)] * len(logs)
        row = 0.0
        for t, log in zip(at, logs, strict=True):
            rho, a = math.exp(log), float(advantages[n])
            policy = min(rho * a, min(max(rho, 1 - config.eps_low), 1 + config.eps_high) * a)
            d = float(ref_logprobs[n, t] - logprobs[n, t])
            kl = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - d - 1}[config.kl]
            row += -float(weights[n, t]) * policy + config.beta * kl
            sums["kl"] += kl
            sums["ratio"] += rho
            sums["clip_low"] += rho < 1 - config.eps_low and a < 0
            sums["clip_high"] += rho > 1 + config.eps_high and a > 0
            sums["tokens"] += 1
        total += row / len(at) if config.aggregation == "sequence" else row
    denominator = {"sequence": rows, "token": tokens, "constant": rows * 7}[config.aggregation]
    return total / denominator, sums, denominator


@pytest.mark.parametrize("config", VARIANTS, ids=IDS)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_statistics_equal_a_plain_loop(config, seed):
    inputs = case(seed, empty_row=True)
    loss, sums, denominator = by_hand(config, **inputs)
    total = normaliser(inputs["mask"], config)
    assert total == denominator
    terms = grpo_loss(config=config, normaliser=total, **inputs)
    assert float(terms.loss.detach()) == pytest.approx(loss, abs=1e-12)
    assert {name: terms.sums[name] for name in sums} == pytest.approx(sums)
    assert terms.sums["loss"] == pytest.approx(loss, abs=1e-12)


@pytest.mark.parametrize("side", ["token", "sequence"])
@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(0.85, -1, False), (0.95, -1, True), (1.4, 1, True), (1.6, 1, False), (0.5, 1, True), (1.9, -1, True)],
)
def test_below_eps_low_clips_and_above_eps_high(side, ratio, advantage, moves):
    config = GrpoConfig(eps_low=0.1, eps_high=0.5, beta=0.0, ratio=side)
    leaf = torch.full((1, 2), math.log(ratio), dtype=torch.float64, requires_grad=True)
    terms = grpo_loss(
        leaf,
        torch.zeros_like(leaf),
        torch.tensor([float(advantage)]),
        torch.ones(1, 2, dtype=torch.bool),
        config,
        ref_logprobs=None,
        normaliser=1.0,
    )
    terms.loss.backward()
    assert bool(leaf.grad.any()) == moves
    assert terms.sums["clip_low"] == (2 if not moves and ratio < 1 else 0)
    assert terms.sums["clip_high"] == (2 if not moves and ratio > 1 else 0)
    assert float(terms.loss.detach()) == pytest.approx(-advantage * (ratio if moves else 0.9 if ratio < 1 else 1.5))


def test_a_kl_term_that_regularises_nothing_is_said():
    with pytest.warns(UserWarning, match=r"grpo.kl=k1 holds nothing back.*k3 or k2"):
        GrpoConfig(kl="k1", beta=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GrpoConfig(kl="k1", beta=0.0)
        GrpoConfig(kl="k3", beta=0.1)


def test_the_cases_reach_both_sides_of_the_clip():
    sums = grpo_loss(config=GrpoConfig(), normaliser=1.0, **case(0)).sums
    assert sums["clip_low"] > 0
    assert sums["clip_high"] > 0


@pytest.mark.parametrize("config", VARIANTS, ids=IDS)
def test_gradients_pass_finite_differences(config):
    inputs = case(4)
    if config.ratio == "sequence":  # the stop-gradient form has the sequence's gradient where a row's weights are equal
        inputs["weights"] = inputs["weights"][:, :1].expand(N, T)
    logprobs = inputs.pop("logprobs").requires_grad_()
    total = normaliser(inputs["mask"], config)
    assert torch.autograd.gradcheck(
        lambda x: grpo_loss(x, config=config, normaliser=total, **inputs).loss, (logprobs,), eps=1e-7, atol=1e-7
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(VARIANTS), st.integers(0, 10**6), st.lists(st.integers(0, 3), min_size=N, max_size=N), st.booleans())
def test_any_split_into_micro_batches_has_the_gradient_of_the_whole(config, seed, part_of, empty_row):
    inputs = case(seed, empty_row=empty_row)
    total = normaliser(inputs["mask"], config)

    def run(parts):
        leaf = inputs["logprobs"].clone().requires_grad_()
        sums: dict[str, float] = {}
        for rows in parts:
            width = max(1, int(inputs["mask"][rows].sum(1).max()))  # micro-batches are padded to their own longest row
            cut = {k: v[rows] if v.ndim == 1 else v[rows, :width] for k, v in inputs.items() if k != "logprobs"}
            terms = grpo_loss(leaf[rows, :width], config=config, normaliser=total, **cut)
            terms.loss.backward()
            for name, value in terms.sums.items():
                sums[name] = sums.get(name, 0.0) + value
        return leaf.grad, sums

    whole, whole_sums = run([list(range(N))])
    parts = [[n for n in range(N) if part_of[n] == p] for p in sorted(set(part_of))]
    split, split_sums = run(parts)
    torch.testing.assert_close(split, whole, rtol=1e-12, atol=1e-14)
    assert split_sums == pytest.approx(whole_sums, abs=1e-12)


@pytest.mark.parametrize("config", VARIANTS, ids=IDS)
def test_what_lies_under_the_padding_changes_nothing(config):
    inputs = case(5, empty_row=True)
    total = normaliser(inputs["mask"], config)

    def run(fill):
        dirty = {
            k: v.clone().masked_fill(~inputs["mask"], fill) if v.ndim == 2 and v.is_floating_point() else v
            for k, v in inputs.items()
        }
        leaf = dirty.pop("logprobs").requires_grad_()
        terms = grpo_loss(leaf, config=config, normaliser=total, **dirty)
        terms.loss.backward()
        return terms, leaf.grad

    clean, gradient = run(0.0)
    for fill in (math.nan, -math.inf, 1e3):
        terms, dirty_gradient = run(fill)
        assert torch.equal(terms.loss, clean.loss)
        assert terms.sums == clean.sums
        assert torch.equal(dirty_gradient, gradient)


def test_on_policy_ratio_is_exactly_one_and_the_gradient_is_that_of_reinforce():
    inputs = case(1)
    leaf, mask, advantages = inputs["logprobs"].float().requires_grad_(), inputs["mask"], inputs["advantages"].float()
    config = GrpoConfig(beta=0.0, aggregation="token")
    total = normaliser(mask, config)
    terms = grpo_loss(leaf, leaf.detach(), advantages, mask, config, ref_logprobs=None, normaliser=total)
    terms.loss.backward()
    assert terms.sums["ratio"] == terms.sums["tokens"] == total
    assert "kl" not in terms.sums
    torch.testing.assert_close(leaf.grad, -advantages[:, None] * mask / total)


def test_a_batch_of_which_every_member_was_left_out_has_an_exact_zero_loss():
    inputs = case(2) | {"mask": torch.zeros(N, T, dtype=torch.bool)}
    leaf = inputs.pop("logprobs").requires_grad_()
    assert normaliser(inputs["mask"], GrpoConfig()) == 0
    terms = grpo_loss(leaf, config=GrpoConfig(), normaliser=0.0, **inputs)
    terms.loss.backward()
    assert float(terms.loss.detach()) == 0
    assert leaf.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ref_logprobs": None}, r"beta is 0.1, so ref_logprobs is needed"),
        ({"old_logprobs": torch.zeros(N, T + 1)}, r"old_logprobs has shape \(6, 6\), but logprobs has \(6, 5\)"),
        ({"weights": torch.zeros(N)}, r"weights has shape \(6,\)"),
        ({"advantages": torch.zeros(N, 1)}, r"advantages must be \[N\] = \(6,\), got \(6, 1\)"),
        ({"mask": torch.ones(N, T)}, r"mask must be bool, got torch.float32"),
        ({"normaliser": 0.0}, r"normaliser must be positive"),
        ({"normaliser": math.nan}, r"normaliser must be positive"),
    ],
)
def test_input_that_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        grpo_loss(**({"config": GrpoConfig(), "normaliser": 1.0} | case(3) | change))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"kl": "k4"}, r"grpo.kl must be one of .* got 'k4'"),
        ({"aggregation": "mean"}, r"grpo.aggregation must be one of"),
        ({"ratio": "group"}, r"grpo.ratio must be one of"),
        ({"eps_low": 1.5}, r"grpo.eps_low must lie in \(0, 1\], got 1.5"),
        ({"eps_high": 0.0}, r"grpo.eps_high must be positive, got 0.0"),
        ({"beta": -0.1}, r"grpo.beta must be >= 0"),
        ({"beta": math.nan}, r"grpo.beta must be >= 0"),
        ({"aggregation": "constant"}, r"grpo.max_tokens must be at least 1 with aggregation='constant', got None"),
        ({"max_tokens": 5}, r"grpo.max_tokens has no meaning with aggregation='sequence'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        GrpoConfig(**settings_)


def test_settings_are_read_by_jsonargparse_which_needs_dataclasses_without_slots():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--grpo", type=GrpoConfig, default=GrpoConfig())
    parsed = parser.parse_args(["--grpo.kl=k2"]).grpo
    assert GrpoConfig(**vars(parsed)) == GrpoConfig(kl="k2")
    with pytest.raises(ArgumentError, match="k9"):
        parser.parse_args(["--grpo.kl=k9"])
