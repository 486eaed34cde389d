"""The two world models, FWM and IDM, and how they are stored: two models, one, or one base with an adapter each."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from swirl_lightning.types import Role
from swirl_lightning.world_model.loading import load_causal_lm
from swirl_lightning.world_model.scorer import CausalScorer, ScoringPath, check_paths

Storage = Literal["separate", "shared", "adapters"]
_REFERENCE = "reference"


@dataclass(frozen=True)
class LoraSettings:
    """The LoRA adapter of a role (storage ``adapters``).

    Attributes:
        rank: r of the low-rank update.
        alpha: scale; the update is multiplied by ``alpha / rank``.
        target_modules: names of the linear layers, or ``all-linear``.
    """

    rank: int = 16
    alpha: int = 32
    target_modules: str | list[str] = "all-linear"


class WorldModel(nn.Module):
    """FWM and IDM behind one interface.

    * ``separate``: two models (the paper's main setting).
    * ``shared``: one model in both roles (theta = phi).
    * ``adapters``: one frozen base in memory, one LoRA adapter a role.

    The reference policy is a third model (a third adapter), made when ``with_reference`` is set.

    Args:
        model: hub name, local folder, or a configuration for random weights (see :func:`load_causal_lm`).
        storage: how the pair is stored.
        idm_model: another starting point for the IDM (``separate`` only); default: ``model``.
        lora: adapter settings (``adapters`` only).
        dtype: weight type.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    def __init__(
        self,
        model: str | Mapping[str, Any],
        storage: Storage = "separate",
        idm_model: str | Mapping[str, Any] | None = None,
        lora: LoraSettings | None = None,
        dtype: str = "float32",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if storage not in ("separate", "shared", "adapters"):
            raise ValueError(f"world_model.storage must be separate, shared or adapters, got {storage!r}")
        if idm_model is not None and storage != "separate":
            raise ValueError(f"world_model.idm_model needs storage: separate, got storage: {storage}")
        if lora is not None and storage != "adapters":
            raise ValueError(f"world_model.lora needs storage: adapters, got storage: {storage}")
        self.source = model
        self.idm_source = idm_model
        self.storage: Storage = storage
        self.lora = lora or LoraSettings()
        self.dtype_name = dtype
        self.gradient_checkpointing = gradient_checkpointing
        self.scorers = nn.ModuleDict()

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return len(self.scorers) > 0

    def build(self, vocab_size: int, pad_id: int, with_reference: bool) -> ScoringPath:
        """Loads the weights; both roles start equal unless ``idm_model`` says otherwise.

        Args:
            vocab_size: tokens of the codec.
            pad_id: padding token.
            with_reference: make room for the reference policy (needed when beta > 0).

        Returns:
            The scoring path that the architecture takes.
        """
        first = CausalScorer(load_causal_lm(self.source, vocab_size=vocab_size, dtype=self.dtype_name))
        path = check_paths(first, vocab_size, pad_id)
        if self.gradient_checkpointing:
            first.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.scorers["fwm"] = first
        if self.storage == "adapters":
            self._add_adapters(first, with_reference)
        elif self.storage == "separate":
            second = copy.deepcopy(first)
            if self.idm_source is not None:
                second.model = load_causal_lm(self.idm_source, vocab_size=vocab_size, dtype=self.dtype_name)
                if check_paths(second, vocab_size, pad_id).packed != path.packed:
                    raise ValueError("world_model.model and world_model.idm_model take different scoring paths")
            self.scorers["idm"] = second
        if with_reference and self.storage != "adapters":
            if self.idm_source is not None:
                raise ValueError("world_model.idm_model with another architecture needs beta: 0 (no reference policy)")
            self.scorers[_REFERENCE] = copy.deepcopy(first)
            self.scorers[_REFERENCE].requires_grad_(False)
        return path

    def _add_adapters(self, scorer: CausalScorer, with_reference: bool) -> None:
        settings = peft.LoraConfig(
            r=self.lora.rank, lora_alpha=self.lora.alpha, target_modules=self.lora.target_modules, task_type="CAUSAL_LM"
        )
        scorer.model.requires_grad_(False)
        for name in ("fwm", "idm", *([_REFERENCE] if with_reference else [])):
            try:
                scorer.model.add_adapter(settings, adapter_name=name)
            except ValueError as error:
                raise ValueError(f"world_model.lora does not fit model {self.source!r}: {error}") from error
        self._copy_adapter("fwm", "idm")
        for role in Role:
            for parameter in self.parameters_of(role):
                parameter.requires_grad_(True)

    # ------------------------------------------------------------------ access

    def _key(self, name: str) -> str:
        return name if name in self.scorers else "fwm"

    @contextlib.contextmanager
    def use(self, role: Role | Literal["reference"]) -> Iterator[CausalScorer]:
        """The scorer of a role (or of the reference policy), its adapter switched on inside the block."""
        name = role.value if isinstance(role, Role) else role
        scorer = self.scorers[self._key(name)]
        assert isinstance(scorer, CausalScorer)
        if self.storage != "adapters":
            yield scorer
            return
        previous = self._activate(name)
        try:
            yield scorer
        finally:
            if previous is not None:
                self._activate(previous)

    def _activate(self, name: str) -> str | None:
        """Switches adapters and leaves ``requires_grad`` as it was: freezing is not peft's business here."""
        scorer = self.scorers["fwm"]
        flags = [(p, p.requires_grad) for p in scorer.parameters()]
        previous: str | None = None
        for module in scorer.modules():
            if isinstance(module, BaseTunerLayer):
                previous = module.active_adapters[0] if module.active_adapters else None
                module.set_adapter(name)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        return previous

    def parameters_of(self, role: Role) -> list[nn.Parameter]:
        """The parameters that training a role changes."""
        return [parameter for _, parameter in self.named_parameters_of(role.value)]

    def named_parameters_of(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Names (without the role) and parameters of a role or of the reference."""
        if self.storage != "adapters":
            yield from self.scorers[self._key(name)].named_parameters()
            return
        marker = f".{name}."
        for key, parameter in self.scorers["fwm"].named_parameters():
            if "lora_" in key and marker in key:
                yield key.replace(marker, "."), parameter

    @property
    def has_reference(self) -> bool:
        """Whether there is room for a reference policy."""
        if self.storage == "adapters":
            return next(self.named_parameters_of(_REFERENCE), None) is not None
        return _REFERENCE in self.scorers

    # ------------------------------------------------------------------ state

    def copy_role(self, source: Role, target: Role) -> None:
        """Copies the weights of one role into the other (after a joint warm-up)."""
        self._copy(source.value, target.value)

    def snapshot_reference(self, role: Role) -> None:
        """Makes the reference policy equal to ``role`` as it is now (arXiv:2602.06130, Section 3).

        Raises:
            RuntimeError: if the world model was built without a reference.
        """
        if not self.has_reference:
            raise RuntimeError("no reference policy: the world model was built with beta 0")
        self._copy(role.value, _REFERENCE)

    def _copy(self, source: str, target: str) -> None:
        if self.storage == "adapters":
            self._copy_adapter(source, target)
            return
        if self._key(source) != self._key(target):
            with torch.no_grad():
                pairs = zip(self.named_parameters_of(source), self.named_parameters_of(target), strict=True)
                for (_, one), (_, other) in pairs:
                    other.copy_(one)

    def _copy_adapter(self, source: str, target: str) -> None:
        with torch.no_grad():
            pairs = zip(self.named_parameters_of(source), self.named_parameters_of(target), strict=True)
            for (name, one), (other_name, other) in pairs:
                assert name == other_name, f"adapters differ: {name} and {other_name}"
                other.copy_(one)

    def train_only(self, roles: set[Role]) -> None:
        """Lets gradients reach the given roles only; the others are frozen.

        Base weights under adapters and the reference policy stay frozen always.
        """
        for role in Role:
            for parameter in self.parameters_of(role):
                parameter.requires_grad_(role in roles)
        if self.storage == "shared" and roles:
            for parameter in self.parameters_of(Role.FWM):
                parameter.requires_grad_(True)
