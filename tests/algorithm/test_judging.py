"""What the frozen model's judgement makes of members that were cut off or have no finite reward."""

import math
from types import SimpleNamespace

import pytest
import torch

from swirl_lightning.algorithm import rollouts as lines
from swirl_lightning.algorithm.experience import Rollouts
from swirl_lightning.algorithm.nonfinite import NonFiniteRewardError
from swirl_lightning.algorithm.objectives.grpo import group_advantages
from swirl_lightning.algorithm.rewards import JudgeLogprob, RewardPart
from swirl_lightning.algorithm.rollouts import judge
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.types import Role, TokenScores, Trajectory, UnlabelledPair

JUDGED = torch.tensor([[-1.0, -2.0, -0.5, -3.0], [-1.0, -2.0, -4.0, -3.0]])  # a token
FINISHED = torch.tensor([[True, True, False, True], [False, False, True, False]])


def judgement(monkeypatch, judged=JUDGED, skip_nonfinite=False, **settings):
    monkeypatch.setattr(lines, "_judge_rows", lambda *args: [])
    scores = judged.flatten()[:, None].expand(-1, 2)
    given = TokenScores(scores, torch.ones(8, 2, dtype=torch.bool), torch.zeros(8, 2))
    tokens = torch.ones(2, 4, 3, dtype=torch.int64)
    drawn = Trajectory(((1,), (2,)), tokens, tokens > 0, -tokens.float(), FINISHED)
    pairs = (UnlabelledPair("a", "b"), UnlabelledPair("c", "d"))
    rollouts = Rollouts(Role.IDM, pairs, None, (("z",) * 4, ("w",) * 4), drawn, (), None, 0)
    inference = SimpleNamespace(score_rows=lambda role, rows, prefixes: given, codec=None)
    return judge(inference, rollouts, RoleSettings(**settings), 0, skip_nonfinite=skip_nonfinite)


def test_cut_members_are_left_out_where_two_ended(monkeypatch):
    found = judgement(monkeypatch)  # the default
    assert found.skipped.tolist() == [[False, False, True, False], [False] * 4]
    assert torch.equal(found.rewards, JUDGED)
    advantages, _ = group_advantages(found.rewards, counted=~found.skipped)
    alone, _ = group_advantages(JUDGED[:1, [0, 1, 3]])
    torch.testing.assert_close(advantages[:1], torch.cat([alone[:, :2], torch.zeros(1, 1), alone[:, 2:]], 1))


@pytest.mark.parametrize(("reduce", "floor"), [("mean", -10.0), ("sum", -20.0)])
def test_cut_members_are_worth_the_floor(monkeypatch, reduce, floor):
    found = judgement(monkeypatch, truncated="floor", rewards=[RewardPart(JudgeLogprob(reduce))])
    assert (found.rewards[~FINISHED] == floor).all()
    torch.testing.assert_close(found.rewards[FINISHED], JUDGED[FINISHED] * (1 if reduce == "mean" else 2))
    assert not found.skipped.any()


def test_cut_members_are_worth_what_there_is_of_them(monkeypatch):
    found = judgement(monkeypatch, truncated="reward")
    assert torch.equal(found.rewards, JUDGED)
    assert not found.skipped.any()


def test_settings_of_cut_members_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="'reward', 'mask' or 'floor', got 'drop'"):
        RoleSettings(truncated="drop")
    with pytest.raises(ValueError, match="needs the floor of JudgeLogprob"):
        RoleSettings(truncated="floor", rewards=[RewardPart(JudgeLogprob(floor=None))])


def test_a_reward_that_is_not_finite_raises_or_leaves_its_member_out(monkeypatch):
    broken = JUDGED.clone()
    broken[0, 1] = math.nan
    with pytest.raises(NonFiniteRewardError):
        judgement(monkeypatch, broken)
    found = judgement(monkeypatch, broken, skip_nonfinite=True, truncated="reward")
    assert found.skipped.tolist() == [[False, True, False, False], [False] * 4]
    advantages, _ = group_advantages(found.rewards, counted=~found.skipped)
    alone, _ = group_advantages(JUDGED[:1, [0, 2, 3]])
    torch.testing.assert_close(advantages[:1, [0, 2, 3]], alone)
