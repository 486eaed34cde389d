"""Who moves in a phase, and what the reference policy is: looked at before every batch, bitwise."""

import pytest
import torch

from swirl_lightning.algorithm import steps
from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.rollouts import collect
from swirl_lightning.cli import main
from swirl_lightning.types import Phase, Role
from swirl_lightning.world_model import JUDGE, REFERENCE
from swirl_lightning.world_model.inference import Inference


@pytest.fixture
def looks(monkeypatch):
    """What stood in memory before every training batch: (phase, batch, role -> weights, everything else)."""
    seen = []
    step = SwirlModule.training_step

    def training_step(self, batch, batch_idx):
        world_model = self.world_model
        names = [*Role, *([REFERENCE] if world_model.has_reference else [])]
        weights = {name: [p.detach().clone() for p in world_model.role_parameters(name)] for name in names}
        owned = {id(p) for name in names for p in world_model.role_parameters(name)}
        frozen = [p.detach().clone() for p in world_model.parameters() if id(p) not in owned]
        seen.append((self.phase, self.iteration, batch_idx, weights, frozen))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SwirlModule, "training_step", training_step)
    return seen


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def fast(storage, **changes):
    lora = {"model__world_model__lora": {"r": 4, "alpha": 8}} if storage == "adapters" else {}
    schedule = {"warmup_epochs": 1, "iterations": 2}
    return {"model__world_model__storage": storage, "model__schedule": schedule, "trainer__callbacks": []} | lora | changes


@pytest.mark.parametrize("storage", ["separate", "adapters"])
def test_only_the_policy_moves_and_its_reference_is_where_its_phase_began(storage, config, looks):
    assert main(config(**fast(storage))) == 0
    assert [phase for phase, *_ in looks] == [p for p in ("warmup", "fwm", "idm", "fwm", "idm") for _ in range(3)]
    begin = {}
    for (phase, iteration, batch, weights, base), (*_, after, _) in zip(looks, [*looks[1:], looks[-1]], strict=True):
        assert same(base, looks[0][4])  # what no role owns: a LoRA base
        if phase is Phase.WARMUP:
            continue
        role = Role(phase.value)
        if batch == 0:
            begin[phase, iteration] = weights[role]
        assert same(weights[REFERENCE], begin[phase, iteration])
        if batch > 0:
            assert not same(weights[role], begin[phase, iteration])
        assert same(weights[role.opposite], after[role.opposite])


def test_shared_weights_keep_the_reference_of_the_iterations_first_phase(config, looks):
    assert main(config(**fast("shared"))) == 0
    begin = {}
    for phase, iteration, batch, weights, _ in looks:
        assert same(weights[Role.FWM], weights[Role.IDM])
        if phase is Phase.WARMUP:
            continue
        if phase is Phase.FWM and batch == 0:
            begin[iteration] = weights[Role.FWM]
        assert same(weights[REFERENCE], begin[iteration])
        if phase is Phase.IDM:
            assert not same(weights[Role.IDM], begin[iteration])
    assert sorted(begin) == [1, 2]
    assert not same(begin[1], begin[2])


def test_shared_weights_are_judged_by_what_they_were_when_the_phase_began(config, monkeypatch):
    begin, drawn = {}, []
    step = SwirlModule.training_step

    def training_step(self, batch, batch_idx):
        if self.phase is not Phase.WARMUP:
            now = [p.detach().clone() for p in self.world_model.role_parameters(Role.FWM)]
            before = begin.setdefault(self.current_epoch, now)
            assert same(self.world_model.role_parameters(JUDGE), before)
            assert same(now, before) == (batch_idx == 0)
        return step(self, batch, batch_idx)

    def collected(inference, role, pairs, settings, **options):
        experience = collect(inference, role, pairs, settings, **options)
        policy = [p.detach().clone() for p in inference.world_model.role_parameters(role)]
        judge = inference.world_model.role_parameters(JUDGE)
        with inference.world_model.use(role.opposite) as model:
            assert all(p is q for p, q in zip(model.parameters(), judge, strict=True))
        with inference.world_model.use(role) as model:
            assert same(list(model.parameters()), policy)
            assert not any(p is q for p, q in zip(model.parameters(), judge, strict=True))
        drawn.append(experience)
        return experience

    monkeypatch.setattr(SwirlModule, "training_step", training_step)
    monkeypatch.setattr(steps, "collect", collected)
    assert main(config(**fast("shared"))) == 0
    assert len(begin) == 4
    assert len(drawn) == 12


def test_shared_weights_infer_pseudo_actions_as_they_were_when_the_phase_began(config, monkeypatch):
    seen = []
    infer = Inference.infer_actions

    def infer_actions(self, pairs, **options):
        with self.world_model.use(Role.IDM) as model:
            seen.append([p.detach().clone() for p in model.parameters()])
        return infer(self, pairs, **options)

    monkeypatch.setattr(Inference, "infer_actions", infer_actions)
    schedule = {"warmup_epochs": 1, "iterations": 1, "order": ["pseudo"]}
    assert main(config(**fast("shared", model__schedule=schedule))) == 0
    assert len(seen) == 3
    assert same(seen[0], seen[1])
    assert same(seen[0], seen[2])


def test_without_kl_no_reference_is_kept(config, looks):
    betas = {"model__fwm__grpo": {"beta": 0.0}, "model__idm__grpo": {"beta": 0.0}}
    assert main(config(**fast("separate", **betas))) == 0
    assert all(set(weights) == set(Role) for *_, weights, _ in looks)


def test_joint_warmup_leaves_both_roles_equal_and_each_warmup_does_not(config, looks):
    for warmup, equal in (("joint", True), ("each", False)):
        looks.clear()
        assert main(config(**fast("separate", model__warmup=warmup))) == 0
        first = next(weights for phase, *_, weights, _ in looks if phase is not Phase.WARMUP)
        assert same(first[Role.FWM], first[Role.IDM]) == equal


@pytest.mark.parametrize("storage", ["separate", "shared"])
def test_moments_and_learning_rate_start_anew_with_every_phase(storage, config, monkeypatch):
    begun, step = [], SwirlModule.training_step

    def training_step(self, batch, batch_idx):
        states = [len(optimizer.state) for optimizer in self.optimizers(use_pl_optimizer=False)]
        if batch_idx == 0:
            begun.append((self.phase.value, states))
        elif self.phase is not Phase.WARMUP:
            assert [bool(n) for n in states] == [False, self.phase is Phase.FWM, self.phase is Phase.IDM]  # one phase's only
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SwirlModule, "training_step", training_step)
    assert main(config(**fast(storage))) == 0
    assert begun == [(phase, [0, 0, 0]) for phase in ("warmup", "fwm", "idm", "fwm", "idm")]


def test_a_guard_undoes_phases_that_hurt_to_the_bit_and_ends_the_run(config, tmp_path):
    violent = {"class_path": "torch.optim.SGD", "init_args": {"lr": 30.0}}
    changes = {"trainer__callbacks": [], "model__fwm_optimizer": violent, "model__idm_optimizer": violent}
    for storage in ("separate", "shared"):
        made = {}
        for name, more in (
            ("warmup", {"model__schedule": {"warmup_epochs": 1, "iterations": 0}}),
            ("guarded", {"model__schedule": {"warmup_epochs": 1, "iterations": 3}, "model__guard": {"measure": "likelihood"}}),
        ):
            run = str(tmp_path / storage / name)
            assert main(config(run_dir=run, model__world_model__storage=storage, **changes, **more)) == 0
            made[name] = torch.load(tmp_path / storage / name / "checkpoints" / "last.ckpt", weights_only=True)
        weights = {name: made[name]["state_dict"] for name in made}
        roles = [key for key in weights["warmup"] if key.startswith(("world_model.models.fwm", "world_model.models.idm"))]
        roles += [key for key in weights["warmup"] if key.startswith("world_model.models.both")]
        assert roles
        assert all(torch.equal(weights["warmup"][key], weights["guarded"][key]) for key in roles)
        assert made["guarded"]["epoch"] == 3  # the warm-up and one iteration of three
        assert made["guarded"]["guard"]["undone"] == 2
