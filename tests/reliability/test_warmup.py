"""A warm-up that validation may end early: what is asked, of whom, and what is refused."""

import pytest

from swirl_lightning.algorithm.warmup import check_thresholds, measure_roles
from swirl_lightning.types import Role


class Answers:
    def __init__(self, **shares):
        self.shares, self.asked = shares, []

    def exact_match(self, role, pairs):
        self.asked.append(role)
        return self.shares[role.value]


def test_all_roles_named_must_reach_their_share():
    answers = Answers(idm=0.98, fwm=0.8)
    assert measure_roles(answers, [], {"idm": 0.97, "fwm": 0.75}, float) == ({"idm": 0.98, "fwm": 0.8}, None)
    assert answers.asked == [Role.IDM, Role.FWM]


def test_the_first_role_that_falls_short_spares_the_others():
    answers = Answers(idm=0.5, fwm=0.8)
    assert measure_roles(answers, [], {"idm": 0.97, "fwm": 0.75}, float) == ({"idm": 0.5}, "idm")
    assert answers.asked == [Role.IDM]


def test_ranks_decide_on_the_share_that_they_agree_on():
    assert measure_roles(Answers(idm=0.98), [], {"idm": 0.97}, lambda share: 0.9) == ({"idm": 0.9}, "idm")


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [({"judge": 0.9}, "'judge' is not a role; name fwm or idm"), ({"idm": 97}, r"warmup_until\.idm is a share .* got 97")],
)
def test_unknown_roles_and_percentages_are_refused(thresholds, message):
    with pytest.raises(ValueError, match=message):
        check_thresholds(thresholds)
    assert check_thresholds(None) == {}
