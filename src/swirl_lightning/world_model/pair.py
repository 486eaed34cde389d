"""The pair of world models: how FWM and IDM are stored, the reference snapshot, and which parameters belong to whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from swirl_lightning.distributed.sharding import Sharding, load_from_first, whole
from swirl_lightning.internals import PeftModel, adapter_key
from swirl_lightning.scoring.scorer import prefer_shared_prefix
from swirl_lightning.types import Role
from swirl_lightning.world_model.adapters import LoraSettings, with_adapters
from swirl_lightning.world_model.loading import compile_between_attention, load_causal_lm, without_weights
from swirl_lightning.world_model.new import NewModel
from swirl_lightning.world_model.precision import ComputeDtype, Dtype, compute_type, computing_in

REFERENCE = "reference"
JUDGE = "judge"  # with shared weights only
COPIES = (REFERENCE, JUDGE)  # what was, never trained
BOTH = "both"  # with shared weights, the model that plays both roles


@dataclass(frozen=True)
class WorldModelConfig:
    """Which models are trained and how they are stored.

    Attributes:
        base: Hub name or local folder of a causal LM; a folder with ``config.json`` but no weights is initialised at random. Or
            what a new small model is to be (``{hidden_size: 96, layers: 3, vocab_size: 400}``): the first ``fit`` makes it and
            its tokenizer from the training split, in the folder ``model`` of the run.
        idm_base: Another base for the IDM (``separate`` only); None takes ``base``.
        storage: ``separate`` (two models), ``shared`` (one model plays both roles; a copy of what it was when the phase began
            judges) or ``adapters`` (one frozen base, one LoRA adapter a role).
        lora: Adapter settings, used with ``adapters``.
        dtype: What weights, gradients and optimizer states are kept in; ``auto`` is float32, but for what is never trained (a
            frozen LoRA base, the reference policy): that is kept in what is computed in.
        compute_dtype: What products are computed in; ``auto`` is bfloat16 on CUDA and float32 elsewhere. A wide model gains by
            bfloat16 on a CPU with AVX512-BF16 or AMX, too: ``fastest`` is bfloat16 wherever the processor has it.
        gradient_checkpointing: Recompute activations in the backward pass.
        compile: Let ``torch.compile`` fuse what is between attention layers (norms, MLPs), and on a GPU a decoding step's
            attention. It costs a minute at the start and needs a C++ compiler on a CPU.
        trust_remote_code: Run model code that comes with the checkpoint. Off: strangers' code is not run.
        seed: Seed of a random initialisation.
    """

    base: str | NewModel
    idm_base: str | None = None
    storage: Literal["separate", "shared", "adapters"] = "separate"
    lora: LoraSettings = field(default_factory=LoraSettings)
    dtype: Dtype = "auto"
    compute_dtype: ComputeDtype = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    trust_remote_code: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work.

        Raises:
            ValueError: if ``idm_base`` is given for a storage that has one base only.
        """
        if self.idm_base is not None and self.storage != "separate":
            raise ValueError(f"world_model.idm_base needs storage 'separate', got storage {self.storage!r}")

    @property
    def base_name(self) -> str:
        """Hub name or folder of the base.

        Raises:
            RuntimeError: if it is a new model that nobody has made yet.
        """
        if isinstance(self.base, NewModel):
            raise RuntimeError("world_model.base describes a new model, which is made when a trainer sets up the module")
        return self.base


if TYPE_CHECKING:
    WorldModelLike: TypeAlias = WorldModelConfig | str  # the base alone
else:
    WorldModelLike = WorldModelConfig  # of a union, a command line would not show the options


class WorldModel(nn.Module):
    """FWM, IDM and the reference policy of the running iteration (arXiv:2602.06130, Section 3 and Algorithm 1).

    Args:
        config: Which models, how stored.
        reference: Whether any phase has a KL term and so needs a reference policy.
        judge: Whether any phase has a judge, of which ``shared`` keeps a frozen copy.
        sharding: How to spread the weights over ranks; None keeps them whole.
    """

    def __init__(
        self, config: WorldModelConfig, *, reference: bool = True, judge: bool = True, sharding: Sharding | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.has_reference = reference
        self._judging: Role | None = None
        self.compute_dtype = compute_type(config.compute_dtype, config.dtype)
        if sharding is not None and sharding.compute_dtype is None and self.compute_dtype != torch.float32:
            sharding = replace(sharding, compute_dtype=self.compute_dtype)
        if sharding is not None and config.storage == "adapters" and config.dtype == "bfloat16":
            raise ValueError("fsdp shards weights of one type, and adapters are float32: set world_model.dtype to auto")
        self.sharding = sharding
        self.models = nn.ModuleDict()
        self.joint: Tensor
        self.register_buffer("joint", torch.tensor(False))  # True while one warm-up model plays both roles
        if config.storage == "adapters":
            self.models["base"] = self._build(config.base_name)
        elif config.storage == "shared":
            self.models[BOTH] = self._build(config.base_name)
            if judge:
                self.models[JUDGE] = self._build(config.base_name, copy=True)
        else:
            self.models[Role.FWM.value] = self._build(config.base_name)
            self.models[Role.IDM.value] = self._build(config.idm_base or config.base_name)
        if reference and config.storage != "adapters":
            self.models[REFERENCE] = self._build(config.base_name, copy=True)
        if reference and config.idm_base is not None:
            self._check_one_shape(config.idm_base)
        self.unfreeze()

    def _check_one_shape(self, idm_base: str) -> None:
        """One reference serves both phases, so both roles must fit into it.

        Raises:
            ValueError: naming both bases and a parameter that differs.
        """
        shapes = [{name: tuple(p.shape) for name, p in self._named(role)} for role in Role]
        if differing := [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]:
            raise ValueError(
                f"world_model.idm_base {idm_base!r} and base {self.config.base_name!r} differ in {differing[0]} "
                f"({shapes[1].get(differing[0])} and {shapes[0].get(differing[0])}), but one reference policy serves both: "
                "give bases of one shape, or set fwm.grpo.beta and idm.grpo.beta to 0"
            )

    def _build(self, base: str, *, copy: bool = False) -> PreTrainedModel | PeftModel:
        """A model with its adapters, if any; under sharding rank 0 alone ever holds it whole, on the CPU."""
        if self.sharding is None:
            return self._load(base, trained=not copy)
        source = self._load(base, trained=not copy) if dist.get_rank() == 0 else None
        model = self._load(base, trained=not copy, empty=True)
        lm = model.get_base_model() if isinstance(model, PeftModel) else model
        assert isinstance(lm, PreTrainedModel)
        self.sharding.apply(lm, reference=copy)
        load_from_first(lm, source.get_base_model() if isinstance(source, PeftModel) else source, self.sharding)
        return model

    def _load(self, base: str, *, trained: bool, empty: bool = False) -> PreTrainedModel | PeftModel:
        config, dtype = self.config, self.config.dtype
        frozen = not trained or (config.storage == "adapters" and self.sharding is None)  # FSDP shards weights of one type only
        if dtype == "auto" and frozen and self.compute_dtype == torch.bfloat16:
            dtype = "bfloat16"
        model = load_causal_lm(base, dtype=dtype, trust_remote_code=config.trust_remote_code, seed=config.seed, empty=empty)
        prefer_shared_prefix(model)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if config.compile:
            compile_between_attention(model)
        if config.storage == "adapters":
            with without_weights() if empty else nullcontext():
                return self._with_adapters(model)
        return model

    def _with_adapters(self, base: PreTrainedModel) -> PeftModel:
        names = [*(role.value for role in Role), *([REFERENCE] if self.has_reference else [])]
        return with_adapters(base, self.config.lora, names, self.config.base_name)

    def _key(self, role: Role | str) -> str:
        """Name of the model (or adapter) that plays ``role``."""
        if role in COPIES:
            return role
        if self.config.storage == "shared":
            return JUDGE if role == self._judging and JUDGE in self.models else BOTH
        return Role.FWM.value if bool(self.joint) else Role(role).value

    def causal_lm(self, role: Role | str) -> PreTrainedModel:
        """The causal LM that plays a role (or ``reference``); with ``adapters`` its adapter is made the active one.

        Raises:
            ValueError: if there is no reference policy.
        """
        if role == REFERENCE and not self.has_reference:
            raise ValueError("this world model was built without a reference policy (every beta is 0)")
        if self.config.storage != "adapters":
            model = self.models[self._key(role)]
            assert isinstance(model, PreTrainedModel)
            return model
        peft_model = self.models["base"]
        assert isinstance(peft_model, PeftModel)
        name = self._key(role)
        if peft_model.active_adapter != name:
            trainable = [p.requires_grad for p in peft_model.parameters()]
            peft_model.set_adapter(name)  # also toggles requires_grad, which is the phases' business
            for parameter, flag in zip(peft_model.parameters(), trainable, strict=True):
                parameter.requires_grad_(flag)
        model = peft_model.get_base_model()
        assert isinstance(model, PreTrainedModel)
        return model

    @contextmanager
    def use(
        self, role: Role | str, *, training: bool = False, gradients: bool = False, exact: bool = False
    ) -> Iterator[PreTrainedModel]:
        """The causal LM of a role, in eval mode unless it is being trained, as it computes.

        Args:
            role: a role or ``reference``.
            training: train mode (dropout, gradient checkpointing).
            gradients: let gradients through to the weights in eval mode, too.
            exact: compute with the weights as they are kept, not in ``compute_dtype``; shards are computed with as ever.

        Yields:
            The model, its adapter active.
        """
        model = self.causal_lm(role)
        model.train(training)
        if isinstance(model, FSDPModule):
            yield model
            model.reshard()  # what is left of a pass without gradients: embeddings and head
            return
        with computing_in(model, torch.float32 if exact else self.compute_dtype, training=training or gradients):
            yield model

    def role_parameters(self, role: Role | str) -> list[nn.Parameter]:
        """Parameters that a role trains (the same list for both roles where they share weights)."""
        return [parameter for _, parameter in self._named(role)]

    def _named(self, role: Role | str) -> list[tuple[str, nn.Parameter]]:
        """Parameters of a role with names that are equal for every role."""
        if self.config.storage == "adapters":
            adapter = role if role == REFERENCE else Role(role).value
            named = ((adapter_key(name, adapter), parameter) for name, parameter in self.models["base"].named_parameters())
            return [(key, parameter) for key, parameter in named if key is not None]
        key = role if role in COPIES else BOTH if self.config.storage == "shared" else Role(role).value
        return list(self.models[key].named_parameters())

    def gather(self, role: Role) -> WorldModel | None:
        """A whole copy, on the CPU of rank 0, of what plays a role in sharded models; every rank must ask.

        Returns:
            A world model in which ``role`` is as it is here, None on the other ranks.
        """
        config, key = self.config, self._key(role)
        adapters = config.storage == "adapters"
        base = config.idm_base or config.base_name if key == Role.IDM.value else config.base_name
        copy = None
        if dist.get_rank() == 0:
            config = replace(config, base=base, idm_base=None, storage="adapters" if adapters else "shared")
            copy = WorldModel(config, reference=self.has_reference and adapters, judge=False)
            copy.joint.copy_(self.joint)
        key = "base" if adapters else key
        into = {} if copy is None else dict(next(iter(copy.models.values())).named_parameters())
        for name, parameter in self.models[key].named_parameters():
            values = whole(parameter.detach())
            if into:
                into[name].data.copy_(values)
        return copy

    def unfreeze(self) -> None:
        """Makes the parameters of both roles trainable, those of the reference and of a LoRA base never."""
        self.requires_grad_(False)
        for role in Role:
            for parameter in self.role_parameters(role):
                parameter.requires_grad_(True)

    @torch.no_grad()
    def copy(self, source: Role | str, target: Role | str) -> None:
        """Copies the weights of one role into another, or into the reference or the frozen judge."""
        if self.config.storage == "shared" and target not in COPIES:
            return
        for (name, to), (other, from_) in zip(self._named(target), self._named(source), strict=True):
            if name != other or to.shape != from_.shape:
                raise ValueError(f"cannot copy {source} into {target}: {other} {tuple(from_.shape)} is not {name}")
            to.copy_(from_)

    def snapshot(self, role: Role, *, starts_iteration: bool = True) -> None:
        """Makes the reference the policy as it stood when the iteration began (arXiv:2602.06130, Algorithm 1).

        Stored apart, a role does not change before its own phase, so its phase's start is the iteration's start. With
        shared weights Phase I has already moved them, so the snapshot is taken at the iteration's first phase only.

        Args:
            role: the policy of the phase that begins.
            starts_iteration: whether the phase is the iteration's first.
        """
        if self.has_reference and (starts_iteration or self.config.storage != "shared"):
            self.copy(role, REFERENCE)

    def trains_as_it_samples(self, role: Role) -> bool:
        """Whether train mode computes what eval mode does: no dropout or other noise, nothing recomputed, nothing sharded."""
        if self.sharding is not None or self.config.gradient_checkpointing:
            return False
        model = self.causal_lm(role)
        noisy = any(
            "drop" in name or "jitter" in name for name, value in model.config.get_text_config().to_dict().items() if value
        )
        return not noisy and not any(isinstance(module, nn.Dropout) and module.p for module in model.modules())

    @torch.no_grad()
    def is_reference(self, role: Role) -> bool:
        """Whether ``role`` computes what the reference does: weight for weight the same, as at an iteration's first step."""
        if self.sharding is not None:  # nobody has the weights whole
            return False
        pairs = zip(self.role_parameters(role), self.role_parameters(REFERENCE), strict=True)
        ordered = sorted(pairs, key=lambda pair: pair[0].numel())  # one that differs is found in the small ones
        return all(torch.equal(own.to(kept.dtype), kept) for own, kept in ordered)

    def freeze_judge(self) -> None:
        """Makes the judge of the phase that begins what its role is now; a role with weights of its own needs no copy."""
        if JUDGE in self.models:
            self.copy(Role.FWM, JUDGE)

    def moved_with(self, role: Role) -> tuple[Role, ...]:
        """Roles that change when ``role`` is trained: both where they share weights."""
        return tuple(Role) if self.config.storage == "shared" else (role,)

    @torch.no_grad()
    def undo(self, role: Role) -> None:
        """Makes ``role`` what it was when the phase began: the frozen judge's copy of shared weights, else the reference."""
        source = JUDGE if self.config.storage == "shared" else REFERENCE
        for (_, to), (_, from_) in zip(self._named(role), self._named(source), strict=True):
            to.copy_(from_)

    @contextmanager
    def judging(self, role: Role) -> Iterator[None]:
        """Within it, ``role`` is what it was when the phase began, also where the policy shares its weights.

        Args:
            role: the role that judges.
        """
        self._judging = role
        try:
            yield
        finally:
            self._judging = None

    def start_joint_warmup(self) -> None:
        """From now on the FWM's model plays both roles; both tasks train it."""
        self.joint.fill_(True)

    def end_joint_warmup(self) -> None:
        """Gives the IDM a copy of the warm-up model; does nothing when no joint warm-up is under way."""
        if bool(self.joint):
            self.copy(Role.FWM, Role.IDM)
            self.joint.fill_(False)
