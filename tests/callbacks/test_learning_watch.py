"""A run that does not learn is warned about once, with what to change."""

import math
import warnings
from types import SimpleNamespace

import pytest
from swirl_lightning.callbacks import LearningWatch
from swirl_lightning.callbacks.learning_watch import problems, without_exploration

from swirl_lightning.algorithm.schedule import PhaseSchedule
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.cli import main
from swirl_lightning.types import Phase, Role, SamplingParams

ROLES = {role: RoleSettings(sampling=SamplingParams(max_new_tokens=24)) for role in Role}
CLOSED = {role: RoleSettings(objective="posterior") for role in Role}
VOCABULARY = 400


def kinds(phase, values, steps=20, roles=ROLES):
    return dict(problems(phase, roles, [values] * steps, VOCABULARY))


@pytest.mark.parametrize(
    ("phase", "values", "kind", "cure"),
    [
        (Phase.WARMUP, {"nll": 5.9}, "nll", "model.warmup_optimizer"),
        (Phase.WARMUP, {"fwm_nll": 1.0, "idm_nll": 5.5}, "idm_nll", "model.warmup_optimizer"),
        (Phase.PSEUDO, {"nll": 5.9}, "nll", "model.fwm_optimizer"),
        (Phase.FWM, {"zero_spread_share": 0.95}, "spread", "model.fwm.sampling.temperature"),
        (Phase.IDM, {"zero_spread_share": 0.9}, "spread", "model.idm.objective to posterior"),
        (Phase.FWM, {"truncated_share": 1.0}, "cut", "model.fwm.sampling.max_new_tokens above 24"),
        (Phase.IDM, {"truncated_share": 1.0}, "cut", "model.idm.sampling.max_new_tokens above 24"),
    ],
)
def test_what_does_not_learn_is_named_with_its_cure(phase, values, kind, cure):
    found = kinds(phase, values)
    assert list(found) == [kind]
    assert cure in found[kind]
    assert kinds(phase, values, steps=9) == {}  # too few to say


@pytest.mark.parametrize(
    ("phase", "values", "roles"),
    [
        (Phase.WARMUP, {"nll": 0.7 * math.log(VOCABULARY)}, ROLES),
        (Phase.FWM, {"zero_spread_share": 0.89, "truncated_share": 0.9}, ROLES),
        (Phase.IDM, {"zero_spread_share": 1.0}, CLOSED),  # needs no spread
        (Phase.IDM, {}, ROLES),
    ],
)
def test_what_learns_is_left_alone(phase, values, roles):
    assert kinds(phase, values, roles=roles) == {}


def test_means_count_not_single_steps():
    steps = [{"zero_spread_share": share} for share in [1.0, 0.0] * 10]
    assert list(problems(Phase.FWM, ROLES, steps, VOCABULARY)) == []


def test_temperature_0_is_no_exploration_for_grpo_alone():
    greedy = SamplingParams(temperature=0.0)
    assert "model.idm.sampling.temperature is 0" in without_exploration(Role.IDM, RoleSettings(sampling=greedy))
    assert without_exploration(Role.IDM, RoleSettings(sampling=greedy, objective="posterior")) is None
    assert without_exploration(Role.FWM, ROLES[Role.FWM]) is None


@pytest.fixture
def watch(monkeypatch):
    """A function that gives the warnings of a run whose every step logs the same."""
    monkeypatch.setattr("swirl_lightning.callbacks.learning_watch.SwirlModule", SimpleNamespace)

    def take(callback, values, epochs, schedule, steps=20):
        codec = SimpleNamespace(vocab_size=VOCABULARY)
        module, trainer = SimpleNamespace(schedule=schedule, roles=ROLES, codec=codec, last_values=values), SimpleNamespace()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for epoch in epochs:
                trainer.current_epoch, module.phase = epoch, schedule.phase(epoch)
                for batch in range(steps):
                    trainer.is_last_batch = batch == steps - 1
                    callback.on_train_batch_end(trainer, module, None, None, batch)
        return [str(warning.message) for warning in caught]

    return take


def test_each_is_said_once_and_not_again_after_a_resume(watch):
    schedule, flat = PhaseSchedule(1, 2), {"zero_spread_share": 1.0}
    callback = LearningWatch()
    said = watch(callback, flat, [1, 2, 3], schedule)
    assert [text.split()[0] for text in said] == ["fwm", "idm"]
    resumed = LearningWatch()
    resumed.load_state_dict(callback.state_dict())
    assert watch(resumed, flat, [4], schedule) == []


def test_the_first_half_of_a_warmup_may_be_near_chance(watch):
    schedule, guess = PhaseSchedule(4, 0), {"nll": 6.0}
    assert watch(LearningWatch(), guess, [0, 1], schedule) == []
    assert len(watch(LearningWatch(), guess, [0, 1, 2, 3], schedule)) == 1


def test_a_phase_forgets_the_one_before(watch):
    schedule = PhaseSchedule(0, 1)
    callback = LearningWatch()
    assert watch(callback, {"zero_spread_share": 0.0}, [0], schedule) == []
    assert len(watch(callback, {"zero_spread_share": 1.0}, [1], schedule)) == 1


def test_a_window_that_says_nothing_is_refused():
    with pytest.raises(ValueError, match=r"LearningWatch\.window must be at least 10"):
        LearningWatch(window=5)


def test_fit_warns_before_the_first_step(config):
    with pytest.warns(UserWarning, match=r"model\.idm\.sampling\.temperature is 0"):
        main(config(trainer__callbacks=[], trainer__fast_dev_run=True, model__idm__sampling__temperature=0.0))
