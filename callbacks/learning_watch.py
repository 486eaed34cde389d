"""Does a run learn at all? What keeps it from learning is said once, with what to change."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.types import Phase, Role

LEAST = 10  # steps that say something
_NEAR_CHANCE = 0.8  # of the NLL of a guess among all tokens
_FLAT, _CUT = 0.9, 0.99  # shares of groups without spread, of cut answers


class LearningWatch(Callback):
    """Warns of a run that does not learn: NLL near chance, groups without spread, cut answers, temperature 0.

    Looks at means over the last steps of a phase, at its end, too; at the warm-up's from its middle on. Says each once, also
    over resumes. ``swirl fit`` adds this callback by itself.

    Args:
        window: Steps of a mean.
    """

    def __init__(self, window: int = 50) -> None:
        if window < LEAST:
            raise ValueError(f"LearningWatch.window must be at least {LEAST} steps, got {window}")
        self.window = window
        self._steps: deque[Mapping[str, float]] = deque(maxlen=window)
        self._label = ""  # of the phase that they belong to
        self._said: set[str] = set()

    @override
    def state_dict(self) -> dict[str, list[str]]:
        return {"said": sorted(self._said)}

    @override
    def load_state_dict(self, state_dict: dict[str, list[str]]) -> None:
        self._said = set(state_dict["said"])

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SwirlModule)
        for role in sorted(pl_module.schedule.policies):
            self._say(f"{role.value} temperature", without_exploration(role, pl_module.roles[role]))

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SwirlModule)
        epoch, phase, schedule = trainer.current_epoch, pl_module.phase, pl_module.schedule
        if (label := schedule.label(epoch)) != self._label:
            self._steps.clear()
            self._label = label
        self._steps.append(pl_module.last_values)
        if phase is Phase.WARMUP and 2 * (epoch + 1) <= schedule.warmup_epochs:
            return
        if batch_idx % self.window == 0 or trainer.is_last_batch:
            for kind, problem in problems(phase, pl_module.roles, self._steps, pl_module.codec.vocab_size):
                self._say(f"{phase.value} {kind}", problem)

    def _say(self, kind: str, problem: str | None) -> None:
        if problem is not None and kind not in self._said:
            self._said.add(kind)
            rank_zero_warn(problem)


def problems(
    phase: Phase, roles: Mapping[Role, RoleSettings], steps: Sequence[Mapping[str, float]], vocabulary: int
) -> Iterator[tuple[str, str]]:
    """What keeps a phase from learning.

    Args:
        phase: the steps'.
        roles: settings.
        steps: what the last steps logged; fewer than ten say nothing.
        vocabulary: token ids that there are.

    Yields:
        Kind of problem, and a sentence with what to change.
    """
    if len(steps) < LEAST:
        return
    means = {name: sum(step.get(name, math.nan) for step in steps) / len(steps) for name in steps[-1]}
    last = f"over the last {len(steps)} steps"
    for name in ("nll", "fwm_nll", "idm_nll"):
        if means.get(name, 0.0) > _NEAR_CHANCE * math.log(vocabulary):
            yield (
                name,
                f"{phase.value} learns nothing: {name} is {means[name]:.2f} nats a token {last}, a guess among {vocabulary:,} "
                f"tokens has {math.log(vocabulary):.2f}; raise the learning rate (model.{_optimizer(phase)}), train longer, or "
                "look at what the models see (swirl inspect)",
            )
    if phase not in (Phase.FWM, Phase.IDM):
        return
    role = phase.value
    if means.get("zero_spread_share", 0.0) >= _FLAT and roles[Role(role)].objective == "grpo":
        other = "model.fwm.anchor to true" if phase is Phase.FWM else "model.idm.objective to posterior, which needs no spread"
        yield (
            "spread",
            f"{role} hardly learns: in {means['zero_spread_share']:.0%} of its groups {last} all members have the same reward; "
            f"raise model.{role}.sampling.temperature or model.{role}.group_size, or set {other}",
        )
    if means.get("truncated_share", 0.0) >= _CUT:
        most = roles[Role(role)].sampling.max_new_tokens
        yield (
            "cut",
            f"{role} answers never end: {means['truncated_share']:.0%} of them were cut {last}; raise "
            f"model.{role}.sampling.max_new_tokens above {most}, or warm up longer (model.schedule.warmup_epochs)",
        )


def without_exploration(role: Role, settings: RoleSettings) -> str | None:
    """What is wrong with the sampling of a GRPO phase before it begins; None where nothing is."""
    if settings.objective != "grpo" or settings.sampling.temperature > 0:
        return None
    return (
        f"model.{role.value}.sampling.temperature is 0, so all members of a group are alike and GRPO learns nothing from them; "
        "set it to 1.0"
    )


def _optimizer(phase: Phase) -> str:
    return {Phase.WARMUP: "warmup_optimizer", Phase.IDM: "idm_optimizer"}.get(phase, "fwm_optimizer")
