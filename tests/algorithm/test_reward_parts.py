"""Rewards as parts: what each is worth by hand, how they combine, how YAML names them."""

from __future__ import annotations

import math

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser

from swirl_lightning.algorithm.rewards import (
    ChangedElements,
    ChangedUnits,
    DomSimilarity,
    ExactMatch,
    FieldF1,
    Finished,
    FunctionReward,
    ImageSimilarity,
    JsonForm,
    JudgeLogprob,
    Member,
    Members,
    Pattern,
    Reward,
    RewardPart,
    UnitAccuracy,
    WordF1,
    combine,
)
from swirl_lightning.algorithm.rewards.base import check_parts
from swirl_lightning.types import Role, TokenScores, UnlabelledPair


class Codec:
    """What rewards ask of a codec: text, in which case does not count."""

    def canonical(self, state):
        return state.lower() if isinstance(state, str) else state

    def units(self, state):
        return list(state)

    def render(self, state):
        return state


def judged(rows):
    values = torch.tensor(rows)
    return TokenScores(values, torch.ones_like(values, dtype=torch.bool), torch.zeros_like(values))


def members(answers, *, before="", observed="", role=Role.FWM, finished=None, judge=None):
    pair = UnlabelledPair(before, observed)
    made = []
    for i, answer in enumerate(answers):
        ended = finished is None or finished[i]
        made.append(Member(pair, *(("go", answer) if role is Role.FWM else (answer, observed)), ended))
    return Members(role, made, Codec(), lambda: judged(judge))


PAGE = "<div><p>one</p><p>two</p></div>"
NEW = "<div><p>one</p><p>three</p></div>"


@pytest.mark.parametrize(
    ("reward", "before", "observed", "worth"),
    [
        (ExactMatch(), "a b", "A C", {"a c": 1.0, "a b": 0.0}),
        (WordF1(), "", "a b c d", {"d c b a": 1.0, "a b": 2 / 3, "x": 0.0}),
        (UnitAccuracy(), "", "a b c d", {"a b c d": 1.0, "a x c": 0.5, "d c b a": 0.0}),
        (ChangedUnits(), "a b c d", "a x c y", {"a x c y": 1.0, "a x c d": 0.5, "a b c d": 0.0}),
        (ChangedUnits(), "a b", "a b", {"a b": 1.0, "a c": 0.0}),  # nothing changed: no share of it
        (FieldF1(), "", '{"a": 1, "b": {"c": 2}}', {'{"b": {"c": 2}, "a": 1}': 1.0, '{"a": 1}': 2 / 3, "no json": 0.0}),
        (FieldF1(), "", "door: open\nkey = held", {"key: held\ndoor = open": 1.0, "door: open": 2 / 3, "door: shut": 0.0}),
        (FieldF1(), "", "just a text", {"just a text": 1.0, "another": 0.0}),
        (DomSimilarity(), PAGE, NEW, {NEW: 1.0, PAGE: 1 - 1 / 5}),  # html, body, div, two p
        (ChangedElements(), PAGE, NEW, {NEW: 1.0, PAGE: 0.0}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, (str, dict)) else "",
)
def test_grounded_rewards_by_hand(reward, before, observed, worth):
    found = reward(members(list(worth), before=before, observed=observed))
    assert found.tolist() == pytest.approx(list(worth.values()))
    assert found.dtype == torch.float32


def test_image_similarity_prefers_what_looks_like_the_observed_picture():
    pytest.importorskip("PIL")
    from swirl_lightning.codecs.image_pixels import to_png

    generator = torch.Generator().manual_seed(0)
    true = torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8).numpy()
    near, far = true.copy(), torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8).numpy()
    near[:4] = 0
    pictures = [to_png(picture) for picture in (true, near, far)]
    for measure, best in (("ssim", 1.0), ("psnr", 100.0)):
        same, close, other = ImageSimilarity(measure)(members(pictures, observed=pictures[0])).tolist()
        assert same == pytest.approx(best)
        assert same > close > other


def test_equal_predictions_are_compared_once():
    calls = []

    class Counted(ExactMatch):
        def compare(self, predicted, observed, before, codec):
            calls.append(predicted)
            return super().compare(predicted, observed, before, codec)

    assert Counted()(members(["a", "b", "a", "a"], observed="a")).tolist() == [1.0, 0.0, 1.0, 1.0]
    assert sorted(calls) == ["a", "b"]


def test_form_and_truncation_read_what_the_policy_gave():
    texts = ['{"a": 1}', "[]", "3", "go"]
    assert JsonForm()(members(texts)).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert JsonForm()(members(texts, observed="[1]", role=Role.IDM)).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert Pattern(r"go|stop")(members(["go", "gone", "stop"], role=Role.IDM)).tolist() == [1.0, 0.0, 1.0]
    assert Finished()(members(["a", "b"], finished=[True, False])).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="no regular expression"):
        Pattern("(")


def test_parts_add_up_by_weight_and_keep_their_names():
    seen = members(["a", "b"], observed="a", judge=[[-1.0, -3.0], [-30.0, -10.0]])
    parts = [RewardPart(JudgeLogprob()), RewardPart(ExactMatch(), 3.0), RewardPart(ExactMatch(), -1.0, "again")]
    total, values = combine(parts, seen)
    assert {name: value.tolist() for name, value in values.items()} == {
        "JudgeLogprob": [-2.0, -10.0],
        "ExactMatch": [1.0, 0.0],
        "again": [1.0, 0.0],
    }
    assert total.tolist() == [0.0, -10.0]
    assert seen.clamped.tolist() == [False, True]


def test_the_judge_is_not_asked_where_no_reward_asks():
    def judge():
        raise AssertionError

    quiet = Members(Role.FWM, members(["a"], observed="a"), Codec(), judge)
    assert combine([RewardPart(ExactMatch())], quiet)[0].tolist() == [1.0]
    with pytest.raises(AssertionError):
        combine([RewardPart(JudgeLogprob())], quiet)


def test_the_judges_sum_clamps_with_its_mean():
    seen = members(["a", "b"], judge=[[-1.0, -3.0], [-30.0, -10.0]])
    assert JudgeLogprob("sum")(seen).tolist() == [-4.0, -20.0]
    assert JudgeLogprob("mean", None)(seen).tolist() == [-2.0, -20.0]


def test_parts_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"idm.rewards: ExactMatch compares next states.*belongs to fwm.rewards"):
        check_parts(Role.IDM, [RewardPart(ExactMatch())])
    with pytest.raises(ValueError, match=r"fwm.rewards: 'ExactMatch' is there twice"):
        check_parts(Role.FWM, [RewardPart(ExactMatch()), RewardPart(ExactMatch())])


def test_an_answer_of_another_shape_is_named():
    class Wrong(Reward):
        def __call__(self, members):
            return torch.zeros(0)

    with pytest.raises(ValueError, match=r"reward 'Wrong' answered with shape \(0,\) for 1 members"):
        combine([RewardPart(Wrong())], members(["a"]))


def length(member: Member) -> float:
    """A function of one's own."""
    return -float(len(member.next_state))


def test_yaml_names_classes_shortly_and_functions_by_path():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--rewards", type=list[RewardPart])
    given = [
        {"reward": {"class_path": "JudgeLogprob", "init_args": {"reduce": "sum"}}},
        {"reward": {"class_path": "ExactMatch"}, "weight": 0.5},
        {"reward": {"class_path": "FunctionReward", "init_args": {"function": f"{__name__}.length"}}, "name": "short"},
    ]
    parsed = parser.parse_object({"rewards": given})
    judge, exact, own = parser.instantiate(parsed).rewards
    assert (judge.reward.reduce, judge.label) == ("sum", "JudgeLogprob")
    assert (exact.weight, exact.label) == (0.5, "ExactMatch")
    assert own.label == "short"
    assert own.reward(members(["abc"])).tolist() == [-3.0]
    assert parser.parse_string(parser.dump(parsed)).rewards == parsed.rewards
    with pytest.raises(ArgumentError, match="JudgeLogprop"):
        parser.parse_object({"rewards": [{"reward": {"class_path": "JudgeLogprop"}}]})


def test_nan_of_a_function_is_left_to_be_found():
    assert math.isnan(FunctionReward(lambda member: math.nan)(members(["a"])).item())
