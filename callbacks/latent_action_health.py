"""Are the latent actions still actions? Two models that teach each other can agree on a private code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.phase_end import PhaseEnd
from swirl_lightning.files import HEALTH, append_row, drop_later
from swirl_lightning.metrics.perplexity import FrozenLanguageModel
from swirl_lightning.types import Role, Transition


class LatentActionHealth(PhaseEnd):
    """Watches the IDM's actions on labelled validation pairs (arXiv:2602.06130, Figure 6).

    Logged under ``health/`` after the warm-up (where there is none, before the first batch) and after every phase, and
    appended to ``health.jsonl``:

    * ``unique_share`` of the inferred actions, and ``unique_ratio`` to that of the true ones;
    * ``length`` in tokens, and ``length_ratio`` to the true actions';
    * ``accuracy``: exact matches with the true action;
    * ``code_gap``: log P(y|x,z) under the IDM's sampled action minus under the true action, nats per sequence. A gap that
      grows while accuracy does not is a private code or a leak of the next state into the action;
    * ``agreement``: share of pairs whose best candidate action is the same for both models, and ``agreed_accuracy``: how often
      it is right then; ``posterior_entropy`` in nats and ``effective_candidates`` (where a phase is solved in closed form);
    * ``perplexity_ratio`` of inferred to true actions under a language model that is not trained, if one is given.

    Args:
        limit: Validation pairs looked at.
        language_model: Hub name or folder of a frozen language model with a tokenizer.
        min_unique_ratio: Warn when the inferred actions have fewer distinct ones than this share of the true ones'.
        max_gap_growth: Warn when ``code_gap`` grew by this many nats since the first look without accuracy growing.
    """

    looks_at_start = True

    def __init__(
        self,
        limit: int = 256,
        language_model: str | None = None,
        min_unique_ratio: float = 0.5,
        max_gap_growth: float = 1.0,
    ) -> None:
        self.limit = limit
        self.language_model = language_model
        self.min_unique_ratio = min_unique_ratio
        self.max_gap_growth = max_gap_growth
        self._first: dict[str, float] | None = None

    @override
    def state_dict(self) -> dict[str, dict[str, float] | None]:
        return {"first": self._first}

    @override
    def load_state_dict(self, state_dict: dict[str, dict[str, float] | None]) -> None:
        self._first = state_dict["first"]

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            drop_later(Path(trainer.default_root_dir) / HEALTH, trainer.global_step)
        super().on_train_start(trainer, pl_module)

    @override
    def on_phase_end(self, trainer: L.Trainer, module: SwirlModule, label: str) -> None:
        transitions = module.splits.val
        if not transitions:
            return
        values = self.measure(module, transitions[: self.limit])
        self._warn(values)
        if self._first is None:
            self._first = values
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics({f"health/{k}": v for k, v in values.items()}, step=trainer.global_step)
            row = {"label": label, "epoch": trainer.current_epoch, "global_step": trainer.global_step, **values}
            append_row(Path(trainer.default_root_dir) / HEALTH, row, key=("label",))

    def measure(self, module: SwirlModule, transitions: Sequence[Transition]) -> dict[str, float]:
        """All health measures on labelled transitions; actions are drawn with the IDM's training settings."""
        inference, builder = module.inference, module.prompts
        form = inference.codec.canonical  # texts that the tokenizer cannot tell apart are equal
        inferred = [str(form(actions[0])) for actions in inference.infer_actions(transitions, seed=module.run_seed)]
        true = [str(form(t.action)) for t in transitions]
        groups = [
            [builder.fwm_row(t, z, t.next_state), builder.fwm_row(t, t.action, t.next_state)]
            for t, z in zip(transitions, inferred, strict=True)
        ]
        logprob = inference.score_rows(Role.FWM, groups).logprobs.sum(-1).view(-1, 2)  # [n, (inferred, true)]
        length = _mean_length(module, inferred)
        values = {
            "unique_share": len(set(inferred)) / len(inferred),
            "unique_ratio": len(set(inferred)) / len(set(true)),
            "length": length,
            "length_ratio": length / _mean_length(module, true),
            "accuracy": sum(a == b for a, b in zip(inferred, true, strict=True)) / len(true),
            "code_gap": float((logprob[:, 0] - logprob[:, 1]).mean()),
        }
        if any(settings.objective != "grpo" for settings in module.roles.values()):
            values |= _agreement(module, transitions)
        if self.language_model is not None:
            if any(inferred):
                judge = FrozenLanguageModel(self.language_model)
                values["perplexity_ratio"] = judge.perplexity(inferred) / judge.perplexity(true)
            else:
                rank_zero_warn("LatentActionHealth: no perplexity_ratio, since every inferred action is empty")
        return values

    def _warn(self, values: dict[str, float]) -> None:
        if values["unique_ratio"] < self.min_unique_ratio:
            rank_zero_warn(
                f"latent actions collapse: the IDM uses {values['unique_ratio']:.0%} as many distinct actions as the data; "
                "raise model.idm.grpo.beta or the temperature, or constrain the IDM to known actions (model.idm.constraint)"
            )
        if values.get("agreed_accuracy", 1.0) < values["accuracy"]:
            rank_zero_warn(
                f"what both models agree on is right in {values['agreed_accuracy']:.0%}, the IDM alone in "
                f"{values['accuracy']:.0%}: agreement is no evidence here; set model.idm.posterior.gate.explained"
            )
        if self._first is None:
            return
        grown = values["code_gap"] - self._first["code_gap"]
        if grown > self.max_gap_growth and values["accuracy"] <= self._first["accuracy"]:
            rank_zero_warn(
                f"private code: inferred actions explain the next state {grown:.2f} nats better than at the start, but are "
                "not more often right; raise model.idm.grpo.beta, constrain the IDM, or replay labelled batches"
            )


def _agreement(module: SwirlModule, transitions: Sequence[Transition]) -> dict[str, float]:
    """What both models think of candidate actions together."""
    latent, form = module.closed_form.look([t.without_action() for t in transitions]), module.codec.canonical
    posterior = latent.posterior
    values = {
        "agreement": float(posterior.agreement.float().mean()),
        "posterior_entropy": float(posterior.entropy.mean()),
        "effective_candidates": float(posterior.effective.mean()),
    }
    best = zip(latent.actions, posterior.best.tolist(), posterior.agreement.tolist(), transitions, strict=True)
    if right := [form(actions[b]) == form(t.action) for actions, b, agreed, t in best if agreed]:
        values["agreed_accuracy"] = sum(right) / len(right)
    return values


def _mean_length(module: SwirlModule, actions: Sequence[str]) -> float:
    """Mean length in tokens, the end token included."""
    return sum(len(module.prompts.action_completion(action)) for action in actions) / len(actions)
