"""Settings that cannot work together are refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from transformers import PreTrainedModel

from swirl_lightning.algorithm.rewards.base import check_parts
from swirl_lightning.algorithm.schedule import PhaseSchedule
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.codecs import Codec
from swirl_lightning.rollout.self_check import rollout_path
from swirl_lightning.scoring.positions import positions_of
from swirl_lightning.scoring.scorer import CausalScorer
from swirl_lightning.scoring.self_check import probe_ids, rows_of_embedding, scoring_path
from swirl_lightning.types import Role, ScoredRow, Splits, Transition
from swirl_lightning.world_model.pair import WorldModel, WorldModelConfig
from swirl_lightning.world_model.prompts import PromptBuilder

_ROUNDING = 0.5  # nats a token; bfloat16 makes a few hundredths
MOST_PROMPT_TOKENS = 4096  # where the model has room for more


def check_settings(
    world_model: WorldModelConfig,
    schedule: PhaseSchedule,
    warmup: str,
    roles: Mapping[Role, RoleSettings],
    state_only_weight: float,
) -> None:
    """Settings that contradict each other, or do not belong to their role, whatever the data.

    Raises:
        ValueError: naming the settings.
    """
    if world_model.idm_base is not None and warmup == "joint" and schedule.warmup_epochs:
        raise ValueError(
            f"world_model.idm_base={world_model.idm_base!r} would be overwritten: a joint warm-up trains one model and "
            "copies it into both roles; set model.warmup to each, or schedule.warmup_epochs to 0"
        )
    fwm, idm = roles[Role.FWM], roles[Role.IDM]
    explained = any(settings.posterior.gate.explained for settings in roles.values())
    refused = {
        "state_only_weight must be >= 0": state_only_weight < 0,
        "posterior.gate.explained needs a state_only_weight, or nothing teaches what an unknown action is": explained
        and not state_only_weight + fwm.state_only_weight,
        "idm.nll_weight: there is no label to learn from in Phase II; it belongs to fwm": idm.nll_weight,
        "idm.state_only_weight: the IDM predicts no states; it belongs to fwm": idm.state_only_weight,
        "idm.anchor: there is no observed action; it belongs to fwm": idm.anchor,
        "idm.objective: elbo is the likelihood of next states; it belongs to fwm": idm.objective == "elbo",
        "idm.objective is none, so it needs dream_weight or replay_weight": idm.objective == "none" and not idm.beside,
        "fwm.objective: none is for an idm that learns from dreams alone": fwm.objective == "none",
        "fwm.dream_weight: dreams are the FWM's own; they teach the idm": fwm.dream_weight,
        "fwm.nll_weight: with objective elbo the likelihood is the objective already": fwm.objective == "elbo"
        and fwm.nll_weight,
        "fwm.posterior.proposals: actions are proposed by idm.posterior.proposals": fwm.posterior.proposals,
        "fwm.posterior.gate is about latent actions: it needs fwm.objective elbo": fwm.objective != "elbo"
        and not fwm.posterior.gate.open,
        "idm.dream_weight needs the posterior of the latent action: set idm.objective to posterior or none": idm.dream_weight
        and idm.objective == "grpo",
    }
    for message, wrong in refused.items():
        if wrong:
            raise ValueError(message)
    for role, settings in roles.items():
        check_parts(role, settings.reward_parts)


def prompt_room(model: PreTrainedModel, roles: Mapping[Role, RoleSettings]) -> int:
    """Most tokens of a prompt that leave the longest completion its room.

    Args:
        model: a causal LM of the pair.
        roles: with the lengths of completions.

    Raises:
        ValueError: if completions alone fill the model's positions.
    """
    limit = positions_of(model)
    longest = max(settings.sampling.max_new_tokens for settings in roles.values())
    if limit is not None and longest >= limit:
        raise ValueError(f"sampling.max_new_tokens={longest} leaves no room for a prompt: the model has {limit} positions")
    return MOST_PROMPT_TOKENS if limit is None else min(MOST_PROMPT_TOKENS, limit - longest)


def check_fit(model: PreTrainedModel, base: str, prompts: PromptBuilder, roles: Mapping[Role, RoleSettings]) -> None:
    """Tokenizer, model and lengths must fit.

    Args:
        model: a causal LM of the pair.
        base: what it was loaded from.
        prompts: with the tokenizer and the prompt limit.
        roles: with the lengths of completions.

    Raises:
        ValueError: naming the settings that do not fit.
    """
    embeddings = rows_of_embedding(model)
    if embeddings < prompts.codec.vocab_size:
        raise ValueError(
            f"the codec has {prompts.codec.vocab_size} token ids but model {base!r} only "
            f"{embeddings} embeddings: they do not belong together"
        )
    limit = positions_of(model)
    for role, settings in roles.items():
        room = settings.sampling.max_new_tokens
        if limit is not None and prompts.max_prompt_tokens + room > limit:
            raise ValueError(
                f"max_prompt_tokens={prompts.max_prompt_tokens} leaves no room for a completion: "
                f"{role.value}.sampling.max_new_tokens={room}, and the model has {limit} positions; lower one of them"
            )


def check_weights(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """A checkpoint must hold the weights that the run has.

    Args:
        own: of the module.
        saved: of the checkpoint; empty where it keeps them in shards.

    Raises:
        ValueError: naming the setting that differs.
    """
    models = {"base": "adapters", "both": "shared", "fwm": "separate"}  # what a storage calls a model of its own
    here, there = (
        next((storage for name, storage in models.items() if any(f".models.{name}." in key for key in keys)), None)
        for keys in (own, saved)
    )
    if saved and here != there:
        raise ValueError(
            f"the checkpoint has model.world_model.storage={there}, and this run {here}: set it to {there}, or begin a new run "
            "from exported models"
        )
    for name in filter(saved.__contains__, own):
        if own[name].shape != saved[name].shape:
            raise ValueError(
                f"the checkpoint is of another model than model.world_model.base: {name} is {tuple(saved[name].shape)} in it "
                f"and {tuple(own[name].shape)} here; name the base that it was trained from"
            )


def check_numbers(world_model: WorldModel) -> None:
    """What is computed is the models' own: log-probabilities, gradients and rollouts, on a small input.

    Args:
        world_model: the pair, where it is going to be trained.

    Raises:
        UnsupportedModelError: if a model gives other numbers than the engine on every path.
        ValueError: if it cannot be computed in the ``compute_dtype`` of the pair.
    """
    for role in Role:
        with world_model.use(role, exact=True) as model:  # numbers are compared, not what bfloat16 makes of them
            scoring, rollouts = scoring_path(model, gradients=True), rollout_path(model)
            rank_zero_info(f"{role.upper()}, {type(model).__name__}: scored by {scoring} rows, rollouts by {rollouts}")
        _check_rounding(world_model, role)


def _check_rounding(world_model: WorldModel, role: Role) -> None:
    """What a model computes in ``compute_dtype`` is near what it computes with its weights as they are."""
    found = []
    for exact in (True, False):
        with world_model.use(role, exact=exact) as model:
            row = ScoredRow(tuple(probe_ids(model, 16)), 1)
            try:
                found.append(CausalScorer().score(model, [[row]]).logprobs)
                why = f"its log-probabilities are off by {float((found[0] - found[-1]).abs().mean()):.2g} nats a token"
            except RuntimeError as error:
                why = str(error)
    if len(found) < 2 or not float((found[0] - found[1]).abs().mean()) < _ROUNDING:
        raise ValueError(
            f"{type(model).__name__} cannot be computed in {str(world_model.compute_dtype).removeprefix('torch.')} ({why}): "
            "set model.world_model.compute_dtype to float32"
        )


def check_labelled(
    labelled: Sequence[Transition],
    prompts: PromptBuilder,
    roles: Mapping[Role, RoleSettings],
    row: Callable[[Role, Transition, int], ScoredRow],
    state_only_weight: float,
) -> None:
    """Labelled transitions must fit the tokenizer, the lengths of completions, and the wording of an unknown action.

    Args:
        labelled: transitions.
        prompts: with the tokenizer and the wordings.
        roles: with the lengths of completions.
        row: prompt and true answer of a role, in an epoch.
        state_only_weight: of the warm-up; Phase I has its own among the settings of its role.

    Raises:
        ValueError: naming the setting that does not fit.
    """
    check_texts(labelled, prompts.codec)
    state_only = state_only_weight + roles[Role.FWM].state_only_weight > 0
    if state_only and any(transition.action == prompts.templates.unknown_action for transition in labelled):
        raise ValueError(
            f"prompts.unknown_action is {prompts.templates.unknown_action!r}, which is an action of the labelled transitions: "
            "give it another wording"
        )
    check_lengths(labelled, roles, lambda role, transition: row(role, transition, 0))


def check_lengths(
    labelled: Sequence[Transition], roles: Mapping[Role, RoleSettings], rows: Callable[[Role, Transition], ScoredRow]
) -> None:
    """Answers that never fit into ``max_new_tokens`` are never right, and a judge that is cut off judges noise.

    Args:
        labelled: transitions, of which the first thousand are looked at.
        roles: with the lengths of completions.
        rows: prompt and true answer of a role.

    Raises:
        ValueError: naming the role, the longest answer among the first labelled transitions, and the setting.
    """
    some = labelled[:1000]
    for role, settings in roles.items():
        answers = [rows(role, transition) for transition in some]
        longest = max((len(row.ids) - row.start for row in answers), default=0)
        cut = sum(len(row.ids) - row.start > settings.sampling.max_new_tokens for row in answers)
        if cut > len(some) // 20:
            raise ValueError(
                f"{role.value}.sampling.max_new_tokens={settings.sampling.max_new_tokens} cuts off {cut} of {len(some)} "
                f"labelled answers; the longest has {longest} tokens, the end token included"
            )


def check_texts(labelled: Sequence[Transition], codec: Codec) -> None:
    """Says how many texts a tokenizer gives back otherwise than they are: answers are compared in its form.

    Args:
        labelled: transitions, of which the first thousand are looked at.
        codec: with the tokenizer.
    """
    some = labelled[:1000]
    states = [state for t in some for state in (t.state, t.next_state) if isinstance(state, str)]
    texts = dict.fromkeys([*states, *(t.action for t in some)])
    if changed := [(text, form) for text in texts if (form := codec.canonical(text)) != text]:
        text, form = min(changed, key=lambda pair: len(pair[0]))
        rank_zero_warn(
            f"the tokenizer gives back {len(changed)} of {len(texts)} labelled texts otherwise than they are, e.g. {text!r} as "
            f"{form!r}: predictions are compared in its form"
        )


def check_replay(splits: Splits, policies: Iterable[Role], roles: Mapping[Role, RoleSettings]) -> None:
    """What is replayed must be there.

    Args:
        splits: of the data.
        policies: roles that some phase trains.
        roles: their settings.

    Raises:
        ValueError: naming the setting to change.
    """
    for role in policies:
        if roles[role].replay_weight and not splits.replay_batch_size:
            raise ValueError(
                f"{role.value}.replay_weight is set, but there is nothing to replay: set data.replay_batch_size, now 0"
            )


def suit_trainer(trainer: Trainer, schedule: PhaseSchedule) -> None:
    """Makes any trainer one for phases: they read different data, and a run ends with its schedule.

    Args:
        trainer: gets its data anew at every epoch, and at most the schedule's number of epochs; -1 stays without a limit, and
            repeats the schedule's last iteration.
        schedule: of the run.
    """
    trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
    if (trainer.max_epochs or 0) > schedule.total_epochs:
        trainer.fit_loop.max_epochs = schedule.total_epochs
        rank_zero_info(f"the run has the {schedule.total_epochs} epochs of its schedule")
