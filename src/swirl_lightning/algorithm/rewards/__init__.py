"""What a member of a group is worth: parts that are combined by weight. The paper's is the judge's log-probability alone."""

from swirl_lightning.algorithm.rewards.base import Member, Members, Reward, RewardPart, combine, least
from swirl_lightning.algorithm.rewards.forms import Finished, FunctionReward, JsonForm, Pattern
from swirl_lightning.algorithm.rewards.grounded import (
    ChangedElements,
    ChangedUnits,
    DomSimilarity,
    ExactMatch,
    FieldF1,
    Grounded,
    ImageSimilarity,
    UnitAccuracy,
    WordF1,
)
from swirl_lightning.algorithm.rewards.judge import JudgeLogprob

__all__ = [
    "ChangedElements",
    "ChangedUnits",
    "DomSimilarity",
    "ExactMatch",
    "FieldF1",
    "Finished",
    "FunctionReward",
    "Grounded",
    "ImageSimilarity",
    "JsonForm",
    "JudgeLogprob",
    "Member",
    "Members",
    "Pattern",
    "Reward",
    "RewardPart",
    "UnitAccuracy",
    "WordF1",
    "combine",
    "least",
]
