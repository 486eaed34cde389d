"""What is trained in float32 and computed in bfloat16 moves as float32 does, and is what the trainer's precision means."""

import warnings

import pytest
import torch
from torch.optim import SGD, AdamW

from swirl_lightning.algorithm.checks import check_numbers
from swirl_lightning.algorithm.optimizers import warn_of_lost_updates
from swirl_lightning.algorithm.phase_log import summary
from swirl_lightning.scoring.scorer import CausalScorer
from swirl_lightning.types import Role
from swirl_lightning.world_model import REFERENCE, WorldModel, WorldModelConfig
from swirl_lightning.world_model.precision import compute_type, computing_in, lost_updates, of_trainer
from tests.models import ARCHITECTURES, build, random_groups

ROWS = [row for group in random_groups(2, 4, 12, 8) for row in group]
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    build("qwen2", shared=False).save_pretrained(folder)  # tied embeddings
    return str(folder)


def moved(folder, steps=100, rate=1e-6, **precision):
    """Which weights 100 AdamW steps move, and the loss before and after."""
    pair = WorldModel(WorldModelConfig(folder, **precision), reference=False)
    parameters = pair.role_parameters(Role.FWM)
    before, losses = [p.detach().clone() for p in parameters], []
    optimizer = AdamW(parameters, lr=rate, weight_decay=0.0)
    for _ in range(steps):
        with pair.use(Role.FWM, training=True) as model:
            loss = -CausalScorer()(model, [ROWS[:4], ROWS[4:]]).logprobs.mean()
            loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    assert all(state["exp_avg"].dtype == p.dtype for p, state in optimizer.state.items())
    share = sum(int((a != b).sum()) for a, b in zip(before, parameters, strict=True)) / sum(p.numel() for p in parameters)
    return share, losses[0] - losses[-1]


def test_as_many_weights_move_with_the_default_of_a_gpu_as_in_float32(folder, monkeypatch):
    exact, gain = moved(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)
    assert compute_type("auto", "auto") is BFLOAT16
    mixed, mixed_gain = moved(folder)
    assert exact > 0.5
    assert mixed > 0.99 * exact
    assert mixed_gain > 0.8 * gain
    lost, lost_gain = moved(folder, dtype="bfloat16")  # what was the default on a GPU
    assert lost < 0.1 * exact
    assert lost_gain < 0.5 * gain


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_reach_float32_weights(name):
    model, groups = build(name), random_groups(2, 3, 12, 6)
    own = {name: id(p) for name, p in model.named_parameters()}
    wanted, found = {}, {}
    for dtype, gradients in ((FLOAT32, wanted), (BFLOAT16, found)):
        model.zero_grad()
        with computing_in(model, dtype, training=True):
            assert model.dtype is dtype
            for group in groups:  # two passes on one cast
                CausalScorer()(model, [group]).logprobs.exp().sum().backward()
        gradients |= {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert own == {name: id(p) for name, p in model.named_parameters()}
    assert wanted.keys() == found.keys()
    assert all(gradient.dtype is FLOAT32 for gradient in found.values())
    flat = [torch.cat([g.flatten() for g in gradients.values()]) for gradients in (wanted, found)]
    assert float(torch.cosine_similarity(*flat, dim=0)) > 0.99
    with computing_in(model, BFLOAT16, training=False):
        assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(ZeroDivisionError), computing_in(model, BFLOAT16, training=True):
        raise ZeroDivisionError
    assert model.dtype is FLOAT32


@pytest.mark.parametrize("storage", ["separate", "shared", "adapters"])
def test_what_is_trained_is_kept_in_float32_and_what_is_not_in_bfloat16(folder, storage):
    pair = WorldModel(WorldModelConfig(folder, storage=storage, compute_dtype="bfloat16"))
    for role in Role:
        assert {p.dtype for p in pair.role_parameters(role)} == {FLOAT32}
    frozen = [p for p in pair.parameters() if not p.requires_grad and (storage != "adapters" or p.ndim)]
    assert {p.dtype for p in frozen} == {BFLOAT16} | (
        {FLOAT32} if storage == "adapters" else set()
    )  # adapters of the reference
    for role in (Role.FWM, Role.IDM, REFERENCE):
        with pair.use(role) as model, torch.no_grad():
            assert model(input_ids=torch.tensor([[3, 4, 5]])).logits.dtype is BFLOAT16
        with pair.use(role, exact=True) as model:
            assert model.get_input_embeddings().weight.dtype is (
                FLOAT32 if role is not REFERENCE and storage != "adapters" else BFLOAT16
            )
    pair.snapshot(Role.FWM)
    with pair.use(Role.FWM) as model:
        policy = CausalScorer().score(model, [ROWS[:4]]).logprobs
    with pair.use(REFERENCE) as model:
        assert torch.equal(CausalScorer().score(model, [ROWS[:4]]).logprobs, policy)


@pytest.mark.parametrize(
    ("precision", "kept", "computed"),
    [("32-true", "float32", "float32"), ("bf16-mixed", "float32", "bfloat16"), ("bf16-true", "bfloat16", "bfloat16")],
)
def test_the_trainers_precision_is_that_of_the_models(precision, kept, computed):
    assert of_trainer(precision, "auto", "auto") == (kept, computed)
    assert of_trainer(precision, kept, "auto") == (kept, computed)
    other = "float32" if computed == "bfloat16" else "bfloat16"
    with pytest.raises(ValueError, match=f"means world_model.compute_dtype {computed}, which is set to {other}"):
        of_trainer(precision, "auto", other)


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", 16, "64-true", "transformer-engine"])
def test_other_precisions_are_refused_with_what_to_set(precision):
    with pytest.raises(ValueError, match=rf"trainer.precision {precision} is not supported.*bf16-mixed"):
        of_trainer(precision, "auto", "auto")


def test_bfloat16_weights_are_computed_with_in_bfloat16():
    assert compute_type("auto", "bfloat16") is BFLOAT16
    assert compute_type("auto", "float32") is FLOAT32
    with pytest.raises(ValueError, match=r"compute_dtype float32 needs world_model.dtype float32"):
        compute_type("float32", "bfloat16")


def test_a_processor_without_bfloat16_is_said(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False}, raising=False)
    with pytest.warns(UserWarning, match="no bfloat16 products"):
        assert compute_type("bfloat16", "auto") is BFLOAT16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute_type("bfloat16", "auto")


@pytest.mark.parametrize(("capabilities", "found"), [({"avx512_bf16": False}, FLOAT32), ({"amx_bf16": True}, BFLOAT16)])
def test_the_fastest_type_is_what_the_processor_has(capabilities, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert compute_type("fastest", "auto") is found
    assert compute_type("auto", "auto") is FLOAT32


@pytest.mark.parametrize("broken", ["raises", "is far off"])
def test_a_model_that_cannot_be_computed_in_bfloat16_is_refused(folder, broken, monkeypatch):
    pair = WorldModel(WorldModelConfig(folder, compute_dtype="bfloat16"))
    check_numbers(pair)
    norm = type(pair.models["fwm"].model.norm)
    forward = norm.forward

    def other(self, hidden):
        if hidden.dtype is BFLOAT16 and broken == "raises":
            raise RuntimeError("expected scalar type Float")
        return forward(self, hidden) * (1 if hidden.dtype is FLOAT32 else 300)

    monkeypatch.setattr(norm, "forward", other)
    with pytest.raises(ValueError, match=r"cannot be computed in bfloat16 \(.*compute_dtype to float32"):
        check_numbers(pair)


def test_the_share_of_lost_updates_is_that_of_the_weights_that_stay():
    torch.manual_seed(0)
    weights = 0.02 * torch.randn(20_000)
    assert lost_updates([weights], 1e-6) == 0.0  # float32
    weight = torch.nn.Parameter(weights.bfloat16())
    for rate in (1e-6, 1e-5, 1e-4):
        share = lost_updates([weight], rate)
        trained = torch.nn.Parameter(weight.detach().clone())
        trained.grad = torch.randn(20_000).bfloat16()
        AdamW([trained], lr=rate, weight_decay=0.0).step()
        stays = float((trained == weight)[weight != 0].float().mean())
        assert share == pytest.approx(stays, abs=0.05)
    with pytest.warns(UserWarning, match=r"bfloat16 weights lose \d+% of the updates that AdamW makes at learning rate 1e-06"):
        warn_of_lost_updates([AdamW([weight], lr=1e-6)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_lost_updates([SGD([torch.nn.Parameter(weights)], lr=1e-6)])


def test_a_training_pass_that_is_far_from_the_rollout_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert summary({"mismatch": 5.0, "mismatch/count": 100.0})["mismatch"] == 0.05
    with pytest.warns(UserWarning, match="more than 0.1 nats a token"):
        summary({"mismatch": 20.0, "mismatch/count": 100.0})
