"""What the models say, to be read: states, inferred actions and a group's samples with reward and advantage."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from swirl_lightning.callbacks.loggers import log_text
from typing_extensions import override

from swirl_lightning.algorithm.candidates import LatentPosterior
from swirl_lightning.algorithm.experience import Experience
from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.evaluation import show_state
from swirl_lightning.files import SAMPLES, drop_later
from swirl_lightning.types import UnlabelledPair


class RolloutSampler(Callback):
    """Writes groups of rollouts to the loggers that take texts (TensorBoard does) and to ``samples.jsonl`` in the run folder.

    A run that resumes drops the lines that it wrote after its checkpoint, since it takes those steps again.

    Args:
        every_n_batches: How often.
        groups: Groups per report.
        members: Members shown per group, best rewards first; of a phase in closed form candidates, those with most weight.
    """

    def __init__(self, every_n_batches: int = 50, groups: int = 2, members: int = 8) -> None:
        if min(every_n_batches, groups, members) < 1:
            raise ValueError("RolloutSampler: every_n_batches, groups and members must be at least 1")
        self.every_n_batches = every_n_batches
        self.groups = groups
        self.members = members

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            drop_later(Path(trainer.default_root_dir) / SAMPLES, trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SwirlModule)
        experience, pl_module.last_experience = pl_module.last_experience, None
        if experience is None or batch_idx % self.every_n_batches or not trainer.is_global_zero:
            return
        pairs = experience.pairs if isinstance(experience, LatentPosterior) else experience.rollouts.pairs
        records = [{**_pair(pair), **self._members(experience, b)} for b, pair in enumerate(pairs[: self.groups])]
        path = Path(trainer.default_root_dir) / SAMPLES
        path.parent.mkdir(parents=True, exist_ok=True)
        place = {"epoch": trainer.current_epoch, "batch": batch_idx, "phase": pl_module.phase.value}
        place["global_step"] = trainer.global_step
        with path.open("a", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps({**place, **record}) + "\n")
        text = "\n\n---\n\n".join(as_markdown(record) for record in records)
        log_text(trainer, f"samples/{pl_module.phase.value}", text, SAMPLES)

    def _members(self, experience: Experience | LatentPosterior, b: int) -> dict[str, Any]:
        if isinstance(experience, LatentPosterior):
            return self._candidates(experience, b)
        rollouts, rewards = experience.rollouts, experience.judgement.rewards[b]
        order = rewards.nan_to_num(-torch.inf).argsort(descending=True)[: self.members].tolist()
        return {
            "inferred_action": None if rollouts.latent is None else rollouts.latent.actions[b],
            "members": [
                {
                    "sample": show_state(rollouts.samples[b][k]),
                    "reward": round(float(rewards[k]), 4),
                    "advantage": round(float(experience.advantages[b, k]), 4),
                    "finished": bool(rollouts.trajectory.finished[b, k]),
                }
                for k in order
            ],
        }

    def _candidates(self, latent: LatentPosterior, b: int) -> dict[str, Any]:
        weights = latent.posterior.weights[b]
        order = weights.argsort(descending=True).tolist()
        return {
            "inferred_action": latent.actions[b][order[0]],
            "trusted": bool(latent.trusted[b]),
            "members": [
                {
                    "sample": latent.actions[b][k],
                    "reward": round(float(latent.rewards[b, k]), 4),
                    "weight": round(float(weights[k]), 4),
                }
                for k in order
                if k < len(latent.actions[b])
            ][: self.members],
        }


def _pair(pair: UnlabelledPair) -> dict[str, Any]:
    return {
        "episode": pair.episode,
        "step": pair.step,
        "context": pair.context,
        "state": show_state(pair.state),
        "next_state": show_state(pair.next_state),
    }


def as_markdown(record: dict[str, Any]) -> str:
    """One group: short samples as a table, samples of several lines (grids, pages) as blocks that keep their lines."""
    parts = [f"**state** {_code(record['state'])}"]
    if record["inferred_action"] is not None:
        parts.append(f"**inferred action** {_code(record['inferred_action'])}")
    parts.append(f"**true next state** {_code(record['next_state'])}")
    members = record["members"]
    value = "weight" if "weight" in members[0] else "advantage"
    if any("\n" in member["sample"] for member in members):
        parts += [
            f"**reward {member['reward']:.3f}, {value} {member[value]:+.2f}** {_code(member['sample'])}" for member in members
        ]
    else:
        table = [f"| reward | {value} | sample |", "|---|---|---|"]
        for member in members:
            table.append(f"| {member['reward']:.3f} | {member[value]:+.2f} | {_code(member['sample'])} |")
        parts.append("\n".join(table))
    return "\n\n".join(parts)


def _code(text: str) -> str:
    """Text as Markdown code, fenced by more backticks than it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    if "\n" in text:
        fence = "`" * max(3, longest + 1)
        return f"\n\n{fence}\n{text}\n{fence}"
    if not text.strip():
        return "*(empty)*"
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"`{text}`"
