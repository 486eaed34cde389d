"""The self-check sees what differs from the model's own logits, takes the next rung, or stops with one message."""

import pytest
import torch
from torch import nn

from swirl_lightning.rollout import decoders
from swirl_lightning.rollout.decoders import RolloutPath
from swirl_lightning.rollout.self_check import compare_rollouts, rollout_path
from swirl_lightning.scoring import attention, own_forward, passes, self_check
from swirl_lightning.scoring.scorer import CausalScorer
from swirl_lightning.scoring.self_check import ScoringPath, UnsupportedModelError, scoring_path
from swirl_lightning.world_model.adapters import LoraSettings, with_adapters
from tests.models import build, random_groups


@pytest.fixture(autouse=True)
def _unseen(monkeypatch):
    """Nothing is known from other tests, and what is found here under a broken engine is forgotten."""
    monkeypatch.setattr(self_check, "_by_key", {})
    monkeypatch.setattr("swirl_lightning.rollout.self_check._by_key", {})


def test_a_scale_behind_the_head_that_every_rung_forgets_is_seen(monkeypatch):
    monkeypatch.setattr(own_forward.OwnLogits, "__call__", lambda self, hidden: 1.2 * self.head(hidden))
    with pytest.raises(UnsupportedModelError) as error:
        scoring_path(build("qwen2"))
    assert str(error.value).count("log-probabilities are off by") == 3
    assert "Qwen2ForCausalLM (model_type 'qwen2'): no way of scoring agrees" in str(error.value)
    assert "shared rows: " in str(error.value)
    assert "plain rows, eager attention: " in str(error.value)


def test_a_wrong_gradient_alone_is_seen(monkeypatch):
    true = passes._shared_forward

    def detached(model, packed, head):
        with own_forward.forward_as(
            model.model.norm, lambda hidden: type(model.model.norm).forward(model.model.norm, hidden).detach()
        ):
            true(model, packed, head)

    monkeypatch.setattr(passes, "_shared_forward", detached)
    assert scoring_path(build("llama")) is ScoringPath.SHARED  # the numbers are right
    assert scoring_path(build("llama"), gradients=True) is ScoringPath.PLAIN


@pytest.mark.parametrize("part", ["attention", "last layer", "turns"])
def test_a_broken_shortcut_takes_the_next_rung(monkeypatch, caplog, part):
    caplog.set_level("INFO")
    if part == "attention":
        monkeypatch.setattr(attention.PackedLayout, "_attend_prefix", lambda self, q, k, v, scores: 0.9 * q)
    elif part == "last layer":
        monkeypatch.setattr(
            attention.PackedLayout, "skip_queries", lambda self, layer, at: setattr(self, "first_query", (layer, 8))
        )
    else:
        monkeypatch.setattr(
            "swirl_lightning.scoring.passes.tail_layout",
            lambda kept, sizes, lengths, device: attention.tail_layout(kept, sizes, [lengths[0][::-1]], device),
        )
    model = build("llama")
    assert scoring_path(model) is ScoringPath.PLAIN
    assert "shared rows: " in caplog.text
    assert "plain rows equal within" in caplog.text
    assert rollout_path(model) is RolloutPath.CACHE


def test_a_window_of_thousands_is_left_by_a_small_input(monkeypatch):
    model = build("gemma3")
    for holder in (model.config, *model.modules()):
        if isinstance(holder.__dict__.get("sliding_window"), int):
            holder.sliding_window = 4096
    assert scoring_path(model) is ScoringPath.SHARED
    assert model.config.sliding_window == 4096
    monkeypatch.setattr(self_check, "_by_key", {})
    monkeypatch.setattr(attention.PackedLayout, "_prefix_band", lambda *_: None)  # windows forgotten
    broken = build("gemma3")
    broken.config.sliding_window = 4096
    assert scoring_path(broken) is ScoringPath.PLAIN


def test_a_broken_cache_is_not_taken(monkeypatch):
    model = build("llama", shared=False)
    monkeypatch.setattr(decoders.CacheDecoder, "_choose", lambda self, rows: None)  # not repeated
    assert rollout_path(model) is RolloutPath.EXPANDED
    monkeypatch.setattr("swirl_lightning.rollout.self_check._found", {})
    monkeypatch.setattr("swirl_lightning.rollout.self_check._by_key", {})
    monkeypatch.setattr(decoders.ExpandedDecoder, "prefill", lambda self: self.kept)
    assert rollout_path(model) is RolloutPath.RECOMPUTE


def test_what_the_model_held_is_as_it_was():
    model = build("gemma3").train()
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    state, generator = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    scoring_path(model, gradients=True)
    rollout_path(model)
    assert model.training
    assert bool((model.lm_head.weight.grad == 1).all())
    assert sum(p.grad is not None for p in model.parameters()) == 1
    assert all(torch.equal(a, b) for a, b in zip(state, model.parameters(), strict=True))
    assert torch.equal(generator, torch.get_rng_state())
    assert model.config._attn_implementation == attention.ATTENTION_NAME
    assert {m.sliding_window for m in model.modules() if isinstance(getattr(m, "sliding_window", None), int)} == {6}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_gradient_checkpointing_is_checked_as_it_trains(dropout):
    model, computed_again = build("qwen2"), []
    model.config.attention_dropout = dropout
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in model.model.layers:
        checkpoint = layer._gradient_checkpointing_func
        layer._gradient_checkpointing_func = lambda *args, run=checkpoint: computed_again.append(1) or run(*args)
    assert scoring_path(model, gradients=True) is ScoringPath.SHARED
    assert bool(computed_again) is (dropout == 0)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_bfloat16_and_adapters_keep_the_shared_path(name):
    half = build(name).bfloat16()
    assert scoring_path(half, gradients=True) is ScoringPath.SHARED
    assert rollout_path(half) is RolloutPath.SHARED
    adapted = with_adapters(build(name), LoraSettings(r=4), ["fwm"], name)
    model = adapted.get_base_model()
    nn.init.normal_(next(p for n, p in model.named_parameters() if "lora_B" in n), std=0.5)
    assert scoring_path(model, gradients=True) is ScoringPath.SHARED
    assert rollout_path(model) is RolloutPath.SHARED


def test_what_comes_out_of_the_model_is_scaled_once():
    model, groups = build("llama"), random_groups(2, 3, 10, 5)
    model.config.final_logit_softcapping = 0.5  # not Llama's: its forward knows nothing of it
    wanted = build("llama")
    torch.testing.assert_close(CausalScorer()(model, groups).logprobs, CausalScorer()(wanted, groups).logprobs)
    assert compare_rollouts(model, RolloutPath.SHARED).startswith("equal within")


def test_a_model_that_needs_more_than_token_ids_is_refused_in_one_sentence(monkeypatch):
    model = build("llama")
    monkeypatch.setattr(model, "forward", lambda input_ids, pixel_values, **_: None)
    with pytest.raises(
        UnsupportedModelError, match=r"^LlamaForCausalLM .* cannot continue plain token ids, so nothing .*pixel_values"
    ):
        scoring_path(model)


def test_a_check_that_runs_out_of_memory_says_that(monkeypatch):
    def full(**_):
        raise torch.OutOfMemoryError("device is full")

    model = build("llama")
    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(torch.OutOfMemoryError, match="device is full"):
        scoring_path(model)
