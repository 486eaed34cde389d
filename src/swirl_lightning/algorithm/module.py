"""SwirlModule: one LightningModule that holds FWM and IDM and alternates their phases by epoch. Wiring, no maths."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from typing_extensions import override

from swirl_lightning.algorithm import checks
from swirl_lightning.algorithm.candidates import LatentPosterior
from swirl_lightning.algorithm.closed_form import ClosedForm
from swirl_lightning.algorithm.experience import Experience
from swirl_lightning.algorithm.guard import GuardSettings, PhaseGuard, warn_without_pairs
from swirl_lightning.algorithm.nonfinite import NonFiniteRewardError
from swirl_lightning.algorithm.optimizers import PhaseLR, adamw, warn_of_lost_updates
from swirl_lightning.algorithm.phase_log import COUNT, summary
from swirl_lightning.algorithm.reports import ReportingModule
from swirl_lightning.algorithm.schedule import PhaseSchedule
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.algorithm.steps import PhaseSteps
from swirl_lightning.algorithm.warmup import announce_end, check_thresholds, measure_roles
from swirl_lightning.codecs import CodecCallable, known_stops, load_codec
from swirl_lightning.distributed.ranks import add_over_ranks, reduce_gradients
from swirl_lightning.distributed.sharding import whole
from swirl_lightning.distributed.strategies import check_strategy, sharding_of
from swirl_lightning.rollout import RolloutEngine, TransformersEngine
from swirl_lightning.scoring.scorer import CausalScorer
from swirl_lightning.types import Batch, EpochPlan, Phase, Role, RunData, Splits, seeded_generator
from swirl_lightning.world_model.inference import Inference
from swirl_lightning.world_model.loading import check_base, check_hub_name
from swirl_lightning.world_model.new import NewModel, check_made_from, identity
from swirl_lightning.world_model.pair import WorldModel, WorldModelConfig, WorldModelLike
from swirl_lightning.world_model.prompts import PromptBuilder, PromptTemplates

_OPTIMIZERS: dict[str, int] = {Phase.WARMUP: 0, Phase.FWM: 1, Phase.PSEUDO: 1, Phase.IDM: 2}


class SwirlModule(ReportingModule):
    """Self-improving world modelling with latent actions (arXiv:2602.06130, Algorithm 1).

    Epochs follow ``schedule``: supervised warm-up of both roles, then alternately Phase I (FWM is the policy, the frozen
    IDM judges) and Phase II (IDM is the policy, the frozen FWM judges).

    Args:
        world_model: The pair and its storage; in Python also the base model alone, a hub name or local folder.
        tokenizer: Hub name or local folder; None takes the base model's.
        codec: Turns states and actions into token ids; by default text or images, as the base's folder says. Another one is
            a subclass of ``TextCodec``, called with the tokenizer's name or folder.
        prompts: Wordings of both roles.
        max_prompt_tokens: Longer prompts lose the middle of their states, never the action. None is what the model's positions
            leave beside the longest completion, 4096 at most.
        schedule: Phases by epoch.
        fwm: Settings of the forward world model as policy.
        idm: Settings of the inverse dynamics model as policy.
        warmup: ``joint`` trains one model on the mixture of both tasks and copies it into both roles, as the paper's SFT
            model; ``each`` trains each role on its own task.
        warmup_idm_weight: Weight of the IDM's task in the warm-up. The judge must be good before the policy is: SWIRL fails
            with a weak one.
        state_only_weight: Weight of ``log P(y|x)`` of state-only pairs beside the labelled batches of the warm-up: the FWM
            learns from them how the world changes, with ``prompts.unknown_action`` for the action. 0 is the paper.
        warmup_until: End the warm-up at the first epoch after which each role named (``{idm: 0.97}``) is right, greedily,
            on this share of the validation pairs; ``schedule.warmup_epochs`` is then the most. None always takes them all.
        guard: Validation pairs decide after each phase whether it is kept; None, or no validation pairs, keeps them all. A run
            ends where as many phases in a row as an iteration has were undone.
        warmup_optimizer: Optimizer of the warm-up.
        fwm_optimizer: Optimizer of Phase I.
        idm_optimizer: Optimizer of Phase II.
        lr_scheduler: Learning-rate schedule of every optimizer; ``PhaseLR`` starts anew with each phase.
        engine: Draws completions: by default the trained model, else ``ProcessEngine`` (a second process) or ``VllmEngine``.
        token_budget: Tokens of one forward and backward pass; larger steps are split, gradients stay the same.
        gradient_clip: Maximal gradient norm; None for no clipping.
        pseudo_temperature: Temperature of the pseudo-labels in the baseline phase ``pseudo``; 0 is greedy.
        nonfinite: ``raise`` at a reward or loss that is not finite (the sample is written out), or ``skip`` and count it.
        seed: Seed of rollouts; None takes what ``seed_everything`` was given.
    """

    def __init__(
        self,
        world_model: WorldModelLike,
        tokenizer: str | None = None,
        codec: CodecCallable = load_codec,
        prompts: PromptTemplates = PromptTemplates(),  # noqa: B008  # frozen
        max_prompt_tokens: int | None = None,
        schedule: PhaseSchedule = PhaseSchedule(),  # noqa: B008  # frozen
        fwm: RoleSettings = RoleSettings(),  # noqa: B008  # frozen
        idm: RoleSettings = RoleSettings(),  # noqa: B008  # frozen
        warmup: Literal["joint", "each"] = "joint",
        warmup_idm_weight: float = 1.0,
        state_only_weight: float = 0.0,
        warmup_until: dict[str, float] | None = None,
        guard: GuardSettings | None = None,
        warmup_optimizer: OptimizerCallable = adamw,
        fwm_optimizer: OptimizerCallable = adamw,
        idm_optimizer: OptimizerCallable = adamw,
        lr_scheduler: LRSchedulerCallable = PhaseLR,
        engine: RolloutEngine = TransformersEngine(),  # noqa: B008  # holds settings only
        token_budget: int = 16384,
        gradient_clip: float | None = 1.0,
        pseudo_temperature: float = 0.0,
        nonfinite: Literal["raise", "skip"] = "raise",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        world_model = WorldModelConfig(world_model) if isinstance(world_model, str) else world_model
        self.automatic_optimization = False
        checks.check_settings(world_model, schedule, warmup, {Role.FWM: fwm, Role.IDM: idm}, state_only_weight)
        self.world_model_config, self.schedule, self.warmup = world_model, schedule, warmup
        self.state_only_weight = state_only_weight
        self.warmup_idm_weight, self.warmup_until = warmup_idm_weight, check_thresholds(warmup_until)
        self.roles = {Role.FWM: fwm, Role.IDM: idm}
        self._guard_settings = guard
        self.guard: PhaseGuard | None = None
        self.gradient_clip, self.pseudo_temperature, self.nonfinite = gradient_clip, pseudo_temperature, nonfinite
        self._wording, self._codec = (tokenizer, prompts, max_prompt_tokens), codec
        if isinstance(world_model.base, str):
            self.take_base(world_model.base)
        self.scorer, self.engine, self.seed = CausalScorer(token_budget), engine, seed
        self._optimizer_callables, self._lr_scheduler = (warmup_optimizer, fwm_optimizer, idm_optimizer), lr_scheduler
        self.splits = Splits()  # what the data gave when they were connected
        self.last_experience: Experience | LatentPosterior | None = None  # this step's, for callbacks
        self._batch = Batch()  # this step's
        self.generated_tokens = 0  # by training so far, of all ranks
        self.place: dict[str, Any] = {"phase": schedule.phase(0).value, "iteration": 0, "epoch": 0, "global_step": 0}
        self.skipped_parts = 0  # losses and gradients of this step that were not finite
        self.last_values: Mapping[str, float] = {}  # what the last step logged, for callbacks
        self._step_values: dict[str, float] = {}  # gradient norm and learning rate of the last step, equal on every rank

    # ------------------------------------------------------------------ set-up

    def take_base(self, base: str) -> None:
        """Takes a base and its tokenizer; the weights come in ``configure_model``."""
        check_base(base)
        if (idm_base := self.world_model_config.idm_base) is not None:
            check_base(idm_base, "world_model.idm_base")
        tokenizer, templates, max_prompt_tokens = self._wording
        if tokenizer is not None and not os.path.isdir(tokenizer):
            check_hub_name(tokenizer, "model.tokenizer")
        self.world_model_config = replace(self.world_model_config, base=base)
        self.codec = self._codec(tokenizer or base, stop_ids=known_stops(base), **templates.codec_options)  # type: ignore[call-arg]
        self.prompts = PromptBuilder(self.codec, templates, max_prompt_tokens or checks.MOST_PROMPT_TOKENS)

    @override
    def configure_model(self) -> None:
        if hasattr(self, "world_model"):
            return
        needs_reference = any(self.roles[role].needs_reference for role in self.schedule.policies)
        self.world_model = WorldModel(
            self.world_model_config,
            reference=needs_reference or self._guard_settings is not None,
            judge=self.schedule.iterations > 0,
            sharding=sharding_of(self.trainer if self._trainer else None),
        )
        with self.world_model.use(Role.FWM) as model:
            if self._wording[2] is None:
                self.prompts = replace(self.prompts, max_prompt_tokens=checks.prompt_room(model, self.roles))
            checks.check_fit(model, self.world_model_config.base_name, self.prompts, self.roles)
            self.engine.check(model)
        self.inference = Inference(
            self.world_model,
            self.prompts,
            sampling={role: settings.sampling for role, settings in self.roles.items()},
            constraints={
                role: self.codec.constraint(role) if settings.constraint is None else settings.constraint.build(self.codec)
                for role, settings in self.roles.items()
            },
            engine=self.engine,
            scorer=self.scorer,
        )
        if (guard := self._guard_settings) is not None and self.splits.val:
            patience, agree = len(self.schedule.order), self.trainer.strategy.broadcast
            self.guard = PhaseGuard(guard, self.inference, self.splits.val[: guard.limit], patience, agree, rank_zero_warn)
        self.steps = PhaseSteps(
            self.inference,
            self.roles,
            backward=self.manual_backward,
            optimise=self._optimise,
            nonfinite=self.report_nonfinite,
            seed=self.run_seed,
            skip_nonfinite=self.nonfinite == "skip",
            warmup=self.warmup,
            warmup_idm_weight=self.warmup_idm_weight,
            state_only_weight=self.state_only_weight,
            pseudo_temperature=self.pseudo_temperature,
        )
        self.closed_form = ClosedForm(self.steps, tuple(transition.action for transition in self.splits.labelled))
        for proposals in self.roles[Role.IDM].posterior.proposals:
            proposals.prepare(self.splits.labelled, self.codec)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        warmup, fwm, idm = self._optimizer_callables
        optimizers = [warmup(self.warmup_parameters())]
        optimizers += [make(self.world_model.role_parameters(role)) for make, role in ((fwm, Role.FWM), (idm, Role.IDM))]
        warn_of_lost_updates(optimizers)
        return optimizers, [self._lr_scheduler(optimizer) for optimizer in optimizers]  # type: ignore[return-value]

    def warmup_parameters(self) -> list[nn.Parameter]:
        """Parameters that the warm-up trains."""
        roles = [Role.FWM] if self.warmup == "joint" else list(Role)
        return list({id(p): p for role in roles for p in self.world_model.role_parameters(role)}.values())

    def phase_parameters(self) -> list[nn.Parameter]:
        """Parameters that the current phase trains."""
        if self.phase is Phase.WARMUP:
            return self.warmup_parameters()
        return self.world_model.role_parameters(self._policy)

    @property
    def _policy(self) -> Role:
        """Role that the current phase, which is not the warm-up, trains."""
        return Role.FWM if self.phase is Phase.PSEUDO else Role(self.phase.value)

    @property
    def run_seed(self) -> int:
        """Seed of rollouts: ``seed``, or what ``seed_everything`` was given."""
        return self.seed if self.seed is not None else int(os.environ.get("PL_GLOBAL_SEED", "0"))

    @property
    def phase(self) -> Phase:
        """Phase of the current epoch."""
        return self.schedule.phase(self.current_epoch)

    @property
    def iteration(self) -> int:
        """Iteration of the current epoch, from 1; 0 during the warm-up."""
        return self.schedule.iteration(self.current_epoch)

    @property
    def phases(self) -> frozenset[Phase]:
        """Every phase of the schedule."""
        return self.schedule.phases

    def plan(self, epoch: int) -> EpochPlan:
        """What an epoch reads of its data."""
        phase = self.schedule.phase(epoch)
        number = epoch if phase is Phase.WARMUP else epoch - self.schedule.warmup_epochs
        if phase not in (Phase.FWM, Phase.IDM):
            return EpochPlan(phase, number, phase is Phase.WARMUP and self.state_only_weight > 0)
        settings = self.roles[Role(phase.value)]
        ahead = self.engine.looks_ahead and settings.objective == "grpo"
        return EpochPlan(phase, number, group_size=settings.group_size, ahead=ahead)

    @override
    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.splits = data.connect(self) if isinstance(data, RunData) else Splits()
        if isinstance(new := self.world_model_config.base, NewModel):
            self.take_base(new.for_run(self.trainer, self.splits if stage == "fit" else None))
        if stage == "fit":
            checks.check_replay(self.splits, self.schedule.policies, self.roles)
            checks.suit_trainer(self.trainer, self.schedule)
            warn_without_pairs(self._guard_settings, self.splits.val, rank_zero_warn)
        check_strategy(self.trainer.strategy)

    @override
    def on_fit_start(self) -> None:
        checks.check_numbers(self.world_model)
        for rows in (self.splits.labelled, self.splits.unlabelled, self.splits.val, self.splits.test):
            self.codec.prepare(state for row in rows for state in (row.state, row.next_state))
        checks.check_labelled(self.splits.labelled, self.prompts, self.roles, self.steps.row, self.state_only_weight)

    @override
    def on_train_epoch_start(self) -> None:
        # not called when a run resumes inside an epoch: all of this is in the checkpoint then
        phase, epoch = self.phase, self.current_epoch
        if phase is Phase.WARMUP and self.warmup == "joint" and epoch == 0:
            self.world_model.start_joint_warmup()
        if phase is not Phase.WARMUP:
            self.world_model.freeze_judge()
            self.world_model.snapshot(self._policy, starts_iteration=self.schedule.starts_iteration(epoch))
            if self.guard is not None:
                self.guard.begin(self._policy)
            self._calibrate()
        if phase is Phase.WARMUP and epoch > 0:
            return
        # phases of the paper are separate runs: moments start anew as the learning rate does, and others' take no memory
        for optimizer in self.optimizers(use_pl_optimizer=False):  # type: ignore[union-attr]
            optimizer.state.clear()
        scheduler = self.lr_schedulers()[_OPTIMIZERS[phase]]  # type: ignore[index]
        if isinstance(scheduler, PhaseLR):
            batches = int(self.trainer.num_training_batches)
            scheduler.start(batches * self.schedule.warmup_epochs if phase is Phase.WARMUP else batches)

    def _calibrate(self) -> None:
        """Fits how sure the IDM may be, where the phase weighs latent actions and validation pairs are to say."""
        role, settings = self._policy, self.roles[self._policy]
        if (limit := settings.posterior.calibrate) and self.phase is not Phase.PSEUDO and settings.objective != "grpo":
            rank_zero_info(self.closed_form.calibrate(role, self.splits.val[:limit], self.trainer.strategy.broadcast))

    @override
    def on_train_epoch_end(self) -> None:
        if self.phase is Phase.WARMUP and self.schedule.ends_phase(self.current_epoch):
            self.world_model.end_joint_warmup()

    # ------------------------------------------------------------------ training

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        phase, started = self.phase, time.perf_counter()
        self._batch, self.skipped_parts, epoch = batch, 0, self.current_epoch
        # dropout draws from the global generator: from now on what it draws depends on the step only, resumed or not
        torch.manual_seed(seeded_generator(self.run_seed, epoch, batch_idx, self.global_rank).initial_seed())
        try:
            if phase is Phase.WARMUP:
                sums = self.steps.warm_up(batch, epoch)
            elif phase is Phase.PSEUDO:
                sums = self.steps.pseudo(batch, epoch)
            else:
                role = Role(phase.value)
                steps = self.steps if self.roles[role].objective == "grpo" else self.closed_form
                self.last_experience, sums = steps.swirl(role, batch, epoch)
        except NonFiniteRewardError as error:
            self.write_sample(error.sample)
            raise
        sums |= {"time/step": time.perf_counter() - started, f"time/step{COUNT}": 1.0}
        sums["nonfinite"] = float(self.skipped_parts)
        values = summary(add_over_ranks(sums)) | self._step_values
        if phase is Phase.WARMUP and self.trainer.is_last_batch and self.warmup_until:
            values |= self._maybe_end_warmup(self.warmup_until)
        if phase is not Phase.WARMUP and self.trainer.is_last_batch and self.guard is not None:
            values |= self.guard.end(self._policy, self.schedule.label(epoch))
            self.trainer.should_stop |= self.guard.finished
        self.place = {"phase": phase.value, "iteration": self.iteration, "epoch": epoch, "global_step": self.global_step}
        values["iteration"] = float(self.iteration)
        self.generated_tokens += int(values.get("generated_tokens", 0))
        self.log_values(phase, values, len(batch.unlabelled) or len(batch.labelled))

    def _maybe_end_warmup(self, thresholds: dict[str, float]) -> dict[str, float]:
        """Makes this epoch the warm-up's last where the roles are good enough; returns their shares of right answers."""
        right, short = measure_roles(self.inference, self.splits.val, thresholds, self.trainer.strategy.broadcast)
        epochs = self.current_epoch + 1
        announce_end(right, short, thresholds, epochs, self.schedule.warmup_epochs)
        if short is None:
            self._shorten_warmup(epochs)
        return {f"{role}_exact_match": share for role, share in right.items()}

    @override
    def on_train_start(self) -> None:
        # a run that was killed at its end ends when it resumes
        self.trainer.should_stop |= self.guard is not None and self.guard.finished

    def _shorten_warmup(self, epochs: int) -> None:
        if self.trainer.max_epochs == self.schedule.total_epochs:
            self.trainer.fit_loop.max_epochs = self.schedule.total_epochs - self.schedule.warmup_epochs + epochs
        self.schedule = replace(self.schedule, warmup_epochs=epochs)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"warmup_epochs": self.schedule.warmup_epochs, "generated_tokens": self.generated_tokens}
        checkpoint |= {"place": self.place, "temperatures": self.closed_form.temperatures}
        checkpoint["new_model"] = identity(self.world_model_config.base_name)
        if self.guard is not None:
            checkpoint["guard"] = self.guard.state_dict()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_made_from(checkpoint.get("new_model"), self.world_model_config.base_name)
        checks.check_weights(self.state_dict(), checkpoint["state_dict"])
        self.generated_tokens, self.place = checkpoint.get("generated_tokens", 0), checkpoint.get("place", self.place)
        self.closed_form.temperatures.update(checkpoint.get("temperatures", {}))
        if self.guard is not None and "guard" in checkpoint:
            self.guard.load_state_dict(checkpoint["guard"])
        if (epochs := checkpoint.get("warmup_epochs", math.inf)) < self.schedule.warmup_epochs:
            self._shorten_warmup(epochs)

    @override
    def teardown(self, stage: str) -> None:
        self.engine.close()

    def _optimise(self, last: bool) -> None:
        """Reduces over ranks, clips, steps the phase's optimizer and its schedule.

        Only the ``last`` step of a batch advances ``global_step``, which so counts batches: checkpoints by step and
        TensorBoard rely on it.
        """
        index = _OPTIMIZERS[self.phase]
        optimizer = self.optimizers()[index]  # type: ignore[index]
        reduce_gradients(parameters := [p for group in optimizer.param_groups for p in group["params"]])
        parameters = [p for p in parameters if p.grad is not None]
        clip = math.inf if self.gradient_clip is None else self.gradient_clip
        norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, clip))) if parameters else 0.0
        self._step_values = {"grad_norm": norm, "lr": float(optimizer.param_groups[0]["lr"])}
        if not math.isfinite(norm):
            self.report_nonfinite("gradient norm", norm)
            for parameter in parameters:  # without gradients an optimizer moves nothing, where zeros would leave its momentum
                parameter.grad = None
        (optimizer if last else optimizer.optimizer).step()
        optimizer.zero_grad(set_to_none=True)
        if last:
            self.lr_schedulers()[index].step()  # type: ignore[index]
