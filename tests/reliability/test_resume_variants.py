"""Interrupted in every phase and resumed, bitwise: every storage and every option that carries state from step to step.

Real kills are tests/end_to_end/test_resume.py; here a step raises, in this process, so that many variants are affordable.
"""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.cli import main
from tests.reliability.test_killed_evaluation import lines, scalars, state

PROPOSALS = [{"class_path": "SeenActions", "init_args": {"limit": 4}}, {"class_path": "SimilarStates"}]
VARIANTS = {
    "shared": {"model__world_model__storage": "shared", "model__schedule": {"warmup_epochs": 1, "iterations": 2}},
    "adapters with dropout": {
        "model__world_model__storage": "adapters",
        "model__world_model__lora": {"r": 4, "alpha": 8, "dropout": 0.1},
    },
    "each, inner epochs, nll, replay": {
        "model__warmup": "each",
        "model__fwm__inner_epochs": 2,
        "model__idm__inner_epochs": 2,
        "model__fwm__nll_weight": 0.5,
        "model__idm__replay_weight": 0.5,
        "data__init_args__replay_batch_size": 2,
    },
    "no reference, token budget": {
        "model__fwm__grpo": {"beta": 0.0},
        "model__idm__grpo": {"beta": 0.0},
        "model__token_budget": 400,
    },
    "warm-up that ends early": {
        "model__schedule": {"warmup_epochs": 4, "iterations": 1},
        "model__warmup_until": {"idm": 0.0},
    },
    "pseudo-labels": {"model__schedule": {"warmup_epochs": 2, "iterations": 2, "order": ["pseudo", "idm"]}},
    "closed form, proposals, dreams, replay": {
        "model__fwm__objective": "elbo",
        "model__idm__objective": "posterior",
        "model__idm__posterior": {"draws": 2, "proposals": PROPOSALS},
        "model__idm__dream_weight": 1.0,
        "model__idm__replay_weight": 0.5,
        "data__init_args__replay_batch_size": 2,
    },
    "closed form over rollouts, dreams alone": {
        "model__fwm__objective": "posterior",
        "model__fwm__rewards": [{"reward": "ExactMatch", "weight": 2.0}, {"reward": "JudgeLogprob"}],
        "model__idm__objective": "none",
        "model__idm__dream_weight": 1.0,
        "model__idm__constraint": {"choices": ["left", "right", "forward"]},
    },
    "anchored groups, grounded reward, inner epochs": {
        "model__fwm__anchor": True,
        "model__fwm__inner_epochs": 2,
        "model__fwm__rewards": [{"reward": "UnitAccuracy"}],
    },
    "state-only pairs in the warm-up": {
        "model__state_only_weight": 1.0,
        "model__schedule": {"warmup_epochs": 2, "iterations": 1, "order": ["pseudo"]},
        "data__init_args__warmup_batches": 2,
    },
    "a guard that undoes what hurts": {
        "model__schedule": {"warmup_epochs": 1, "iterations": 3},
        "model__guard": {"measure": "likelihood"},
        "model__fwm_optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 30.0}},
        "model__idm_optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 30.0}},
    },
    "8-bit AdamW": {
        f"model__{name}_optimizer": {
            "class_path": "bitsandbytes.optim.AdamW8bit",
            "init_args": {"lr": 1e-3, "min_8bit_size": 16},
        }
        for name in ("warmup", "fwm", "idm")
    },
    "two warm-up epochs, three batches between checkpoints": {
        "model__schedule": {"warmup_epochs": 2, "iterations": 1},
        "data__init_args__batch_size": 2,
        "checkpoint__every_n_batches": 3,
    },
}


class PowerCutError(ValueError):
    """The end of a process."""


@pytest.fixture
def power_cut(monkeypatch):
    """A function that sets the step before which the next run ends."""
    at = {"step": -1}
    step = SwirlModule.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == at["step"]:
            at["step"] = -1
            raise PowerCutError("power cut")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SwirlModule, "training_step", training_step)
    return lambda step: at.update(step=step)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupted_run_goes_on_bitwise(variant, config, complaint, power_cut, tmp_path):
    if "8-bit" in variant:
        pytest.importorskip("bitsandbytes")
    health = {"class_path": "swirl_lightning.callbacks.LatentActionHealth", "init_args": {"limit": 4}}
    changes = {"trainer__callbacks": [health], **VARIANTS[variant]}
    assert main(config(run_dir=str(tmp_path / "straight"), **changes)) == 0
    last = torch.load(tmp_path / "straight" / "checkpoints" / "last.ckpt", weights_only=True)
    total = last["global_step"]
    if "8-bit" in variant:  # moments of a matrix are bytes
        assert torch.uint8 in {leaf.dtype for leaf in tree_leaves(last["optimizer_states"]) if isinstance(leaf, torch.Tensor)}
    broken, resume = config(run_dir=str(tmp_path / "broken"), **changes), []
    for step in sorted({2, 3, 4, 6, total - 2}):
        power_cut(step)
        assert "power cut" in complaint([*broken, *resume])
        resume = ["--ckpt_path", "last"]
    assert main([*broken, *resume]) == 0
    one, other = (state(tmp_path / name) for name in ("straight", "broken"))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert scalars(tmp_path / "broken") == scalars(tmp_path / "straight")
    assert lines(tmp_path / "broken" / "health.jsonl") == lines(tmp_path / "straight" / "health.jsonl")


@pytest.mark.parametrize("every", [1, 100])
def test_a_run_stopped_by_max_steps_inside_an_epoch_goes_on_where_it_stopped(every, config, tmp_path):
    changes = {"trainer__callbacks": [], "checkpoint__every_n_batches": every}
    assert main(config(run_dir=str(tmp_path / "straight"), **changes)) == 0
    parts = config(run_dir=str(tmp_path / "parts"), **changes)
    for steps in (2, 3, 5):  # inside the warm-up, at its end, inside Phase I
        resume = ["--ckpt_path", "last"] if steps > 2 else []
        assert main([*parts, *resume, "--trainer.max_steps", str(steps)]) == 0
        assert torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == steps
    assert main([*parts, "--ckpt_path", "last"]) == 0
    one, other = (state(tmp_path / name) for name in ("straight", "parts"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert scalars(tmp_path / "parts") == scalars(tmp_path / "straight")
