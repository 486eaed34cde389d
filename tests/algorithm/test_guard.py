"""When a phase is undone: the rule, what is remembered, and when nothing helps any more."""

import pytest

from swirl_lightning.algorithm.guard import GuardSettings, PhaseGuard, is_worse, warn_without_pairs
from swirl_lightning.types import Role


@pytest.mark.parametrize(
    ("broken", "mended", "margin", "worse"),
    [
        (1, 0, 1.0, False),  # one answer may be chance
        (2, 0, 1.0, True),
        (3, 1, 1.0, False),
        (4, 1, 1.0, True),
        (20, 14, 1.0, True),
        (20, 14, 2.0, False),
        (1, 0, 0.0, True),
        (5, 5, 0.0, False),
        (0, 3, 0.0, False),
    ],
)
def test_answers_are_compared_pair_by_pair(broken, mended, margin, worse):
    unchanged = [1.0, 0.0] * 10
    before = [1.0] * broken + [0.0] * mended + unchanged
    after = [0.0] * broken + [1.0] * mended + unchanged
    assert is_worse(before, after, margin) == worse


def test_likelihoods_are_compared_by_their_differences():
    before = [-1.0, -2.0, -3.0, -4.0]
    assert not is_worse(before, [-1.1, -2.1, -2.9, -3.9], 1.0)
    assert is_worse(before, [-1.5, -2.5, -3.5, -4.4], 1.0)


class Models:
    """Answers of two models that somebody else changes."""

    def __init__(self, shared=False):
        self.answers = {role: [True] * 6 + [False] * 2 for role in Role}
        self.undone, self.asked, self.shared = [], [], shared
        self.world_model = self

    def right_answers(self, role, pairs):
        self.asked.append(role)
        return self.answers[role]

    def answer_logprobs(self, role, pairs):
        return [float(len(pairs))] * len(pairs)

    def moved_with(self, role):
        return tuple(Role) if self.shared else (role,)

    def undo(self, role):
        self.undone.append(role)


def made(models, **settings):
    said = []
    return PhaseGuard(GuardSettings(**settings), models, range(8), 2, lambda values: values, said.append), said


def test_a_phase_that_hurts_is_undone_and_said_and_the_best_is_remembered():
    models = Models()
    guard, said = made(models)
    guard.begin(Role.FWM)
    assert models.asked == [Role.FWM]
    models.answers[Role.FWM] = [True] * 7 + [False]
    assert guard.end(Role.FWM, "swirl-1-fwm") == {"guard/kept": 1.0, "guard/fwm": 7 / 8}
    guard.begin(Role.FWM)  # known already
    assert models.asked == [Role.FWM] * 2
    models.answers[Role.FWM] = [True] * 6 + [False] * 2
    assert guard.end(Role.FWM, "swirl-2-fwm")["guard/kept"] == 1.0  # one answer less may be chance ...
    models.answers[Role.FWM] = [True] * 5 + [False] * 3
    assert guard.end(Role.FWM, "swirl-3-fwm")["guard/kept"] == 0.0  # ... but chance is not forgotten
    assert models.undone == [Role.FWM]
    assert said == ["swirl-3-fwm is undone; on 8 validation pairs: FWM exact match 0.875 -> 0.625"]
    assert not guard.finished


def test_shared_weights_are_undone_where_either_role_loses():
    models = Models(shared=True)
    guard, said = made(models)
    guard.begin(Role.FWM)
    models.answers = {Role.FWM: [True] * 8, Role.IDM: [False] * 8}
    assert guard.end(Role.FWM, "swirl-1-fwm")["guard/kept"] == 0.0
    assert "IDM exact match 0.750 -> 0.000" in said[0]


def test_as_many_undone_phases_as_an_iteration_has_end_the_run_resumed_or_not():
    models = Models()
    guard, said = made(models, margin=0.0)
    for role in Role:
        guard.begin(role)
        models.answers[role] = [False] * 8
        assert not guard.finished
        guard.end(role, role.value)
    assert guard.finished
    assert "the run ends" in said[-1]
    resumed, _ = made(models, margin=0.0)
    resumed.load_state_dict(guard.state_dict())
    assert resumed.finished
    assert resumed.state_dict() == guard.state_dict()
    models.answers = {role: [True] * 8 for role in Role}
    resumed.end(Role.FWM, "swirl-2-fwm")
    assert not resumed.finished


def test_settings_and_missing_pairs_are_named():
    with pytest.raises(ValueError, match="margin must be >= 0"):
        GuardSettings(margin=-1.0)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        GuardSettings(limit=0)
    said = []
    warn_without_pairs(GuardSettings(), [], said.append)
    warn_without_pairs(None, [], said.append)
    warn_without_pairs(GuardSettings(), [1], said.append)
    assert len(said) == 1
    assert "guard is off" in said[0]
