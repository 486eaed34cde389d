"""What other libraries do without promising it, and we lean on: each name once, with its reason and what shows that it broke.

Tried with torch 2.13, transformers 5.23, lightning 2.6.6, peft 0.21 and jsonargparse 4.53. A test
(tests/packaging/test_internals.py) keeps private names of these libraries out of every other file; what a subclass shares with
its base stands in :data:`INHERITED`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed import Store
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.fsdp import FSDPModule

from swirl_lightning.hints import require

if TYPE_CHECKING:
    from argparse import Action, ArgumentParser

    from lightning import Trainer
    from lightning.fabric.plugins.environments import ClusterEnvironment
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["LoraConfig", "LoraLayer", "PeftModel", "get_peft_model"]  # the rest is defined here

INHERITED = {
    ("SwirlModule", "_trainer"): "LightningModule.trainer raises where there is none, and a module is also used without. "
    "Test: tests/reliability/test_old_runs.py. Goes when Lightning has a way to ask.",
    ("PhaseLR", "_last_lr"): "LRScheduler.get_last_lr reads it, and a phase starts without a step. "
    "Test: tests/reliability/test_phases.py. Goes when torch's schedulers can be started anew.",
    ("ShardedStrategy", "_data_parallel_size"): "ModelParallelStrategy takes it before it knows the number of processes; "
    "its 'auto' shards over nodes only. Test: tests/distributed/test_two_ranks.py. Goes when 'auto' may mean all processes.",
    (
        "RunCheckpoint",
        "_save_checkpoint",
    ): "ModelCheckpoint decides when to save; only this one writes. "
    "Test: tests/reliability/test_keep.py. Goes when it has a public save.",
    (
        "RunCheckpoint",
        "_last_global_step_saved",
    ): "ModelCheckpoint skips a step that it has saved, of which "
    "RunCheckpoint saves the end of the epoch, too. Test: tests/reliability/test_resume_variants.py. Goes with the one above.",
}
"""(our class, private name of its base): why, the test that breaks first, when it can go."""

# ---------------------------------------------------------------------- peft


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """Within it, an installed package looks as if it were not; nothing happens where it is imported already.

    peft (0.21) and diffusers (0.42) import bitsandbytes wherever it is installed, asked for or not: seconds at every start,
    and on some processors a complaint of its own on stderr. Both ask once whether the package is there, and remember the
    answer. Can go when they import it for quantised layers only. Test: tests/packaging/test_quiet.py.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # what the import system takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[module]


with hidden("bitsandbytes"):  # everyone takes peft from here
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.import_utils import is_bnb_available
    from peft.tuners.lora import LoraLayer

    is_bnb_available()  # remembered from now on


def vq_model() -> Any:
    """``diffusers.VQModel``: everyone takes it from here, as it imports bitsandbytes, see :func:`hidden`.

    Test: tests/packaging/test_quiet.py. Goes with :func:`hidden`.

    Raises:
        ImportError: with the ``pip install`` line that brings it.
    """
    with hidden("bitsandbytes"):
        diffusers = require("diffusers", "visual")  # asks what is installed
    return diffusers.VQModel  # imports what it found


def adapter_key(name: str, adapter: str) -> str | None:
    """A parameter's name without the name of its adapter; None where it is no tensor of that adapter.

    peft calls LoRA's tensors ``q_proj.lora_A.<adapter>.weight``, those of embeddings ``wte.lora_embedding_A.<adapter>``.
    Test: tests/world_model/test_adapters.py. Goes when peft gives an adapter's parameters by its name.
    """
    found = re.fullmatch(rf"(.*\.lora_\w+)\.{re.escape(adapter)}(\..+)?", name)
    return found[1] + (found[2] or "") if found else None


# ---------------------------------------------------------------------- transformers


def attention_name(model: PreTrainedModel) -> str:
    """Name of the attention implementation that a model uses.

    Set through ``set_attn_implementation``, it can be read from ``config._attn_implementation`` alone.
    Test: tests/scoring/test_scorer.py. Goes when transformers has a getter.
    """
    return str(model.config._attn_implementation)


@contextmanager
def attention_named(config: PretrainedConfig, name: str) -> Iterator[None]:
    """Within it, a configuration names another attention implementation; no model changes what it uses.

    A saved configuration holds the name, and ours is known to nobody else. ``set_attn_implementation`` would look for a kernel.
    Test: tests/end_to_end/test_export.py. Goes when ``save_pretrained`` leaves the name out.
    """
    own = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = own


def unsplit_blocks(model: PreTrainedModel) -> set[str]:
    """Class names of the blocks that must stay on one device: ``_no_split_modules``.

    A model is sharded by them. Test: tests/distributed/test_two_ranks.py. Goes when a model's layers have a public name.
    """
    return set(model._no_split_modules or ())


def exact_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of modules that must compute in float32: ``_keep_in_fp32_modules_strict``.

    Test: tests/world_model/test_precision.py. Goes when transformers makes it public.
    """
    return tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())


@contextmanager
def forward_as(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Calls ``forward`` in the place of the module's own; may be nested.

    Models let nobody stand between their decoder and their head: hooks see what was computed, but cannot leave it out.
    Test: tests/scoring/test_self_check.py. Goes when a head can be given to a model's forward pass.
    """
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward  # the instance attribute; the class's forward shows again
        else:
            module.forward = before


# ---------------------------------------------------------------------- torch

# aten's CPU flash kernel also returns the log-sum-exp with which two parts of one attention are merged; the public
# scaled_dot_product_attention does not. Test: tests/scoring/test_scorer.py. Goes when FlexAttention returns it on a CPU, with
# gradients, as fast.
cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
cpu_attention_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

# The same of GPUs. Test: tests/scoring/test_two_parts.py (its signature; it was not run on a GPU, where the self-check at the
# start of a run compares what it gives with the model's own). Goes when a public function returns the log-sum-exp, with
# gradients.
flash_attention = torch.ops.aten._scaled_dot_product_flash_attention
flash_attention_backward = torch.ops.aten._scaled_dot_product_flash_attention_backward


def is_compiled(module: nn.Module) -> bool:
    """Whether ``module.compile()`` was called: then its ``forward`` may not be replaced unseen.

    Test: tests/scoring/test_compile.py. Goes when torch can be asked.
    """
    return module._compiled_call_impl is not None


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The parameters of one module, as it holds them: what is put here takes part in its forward pass.

    A cast weight is no ``nn.Parameter``, so that gradients go through to its origin; ``setattr`` refuses it, and
    ``torch.func.functional_call`` wants the whole pass as one call.
    Test: tests/world_model/test_precision.py. Goes when parametrisations may change their type.
    """
    return module._parameters


def each_tensor(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Replaces every parameter and buffer in place; ``nn.Module._apply``, by which ``to`` and ``cuda`` do it.

    Only what is on the meta device is made anew, which ``to_empty`` cannot tell apart.
    Test: tests/distributed/test_two_ranks.py. Goes when ``to_empty`` takes a condition.
    """
    module._apply(change)


def default_store() -> Store:
    """The store of the job's process group, on which ranks watch each other beside the collectives that may hang.

    Test: tests/distributed/test_failing_ranks.py. Goes when torch hands it out.
    """
    store: Store = _get_default_store()
    return store


def computes_in(model: nn.Module) -> torch.dtype | None:
    """Type that FSDP2 casts a model's parameters to for a pass; None where it casts nothing, or there is no FSDP2.

    Test: tests/distributed/test_two_ranks.py. Goes when a sharded module shows its policy.
    """
    policy = model._get_fsdp_state()._mp_policy if isinstance(model, FSDPModule) else None
    dtype: torch.dtype | None = None if policy is None else policy.param_dtype
    return dtype


def settle_gradient_types(model: FSDPModule) -> None:
    """Lets FSDP2 look now at which type the gradients of trainable parameters are to have.

    It looks once, before the first forward pass: a role that is frozen then would get bfloat16 gradients for its float32
    weights, which torch refuses. Test: tests/distributed/test_two_ranks.py. Goes when FSDP2 looks at every backward pass.
    """
    model._get_fsdp_state()._lazy_init()


# ---------------------------------------------------------------------- jsonargparse


def options_of(parser: ArgumentParser) -> list[Action]:
    """Options of a parser: argparse keeps them in ``_actions``.

    Test: tests/reliability/test_wrong_inputs.py. Goes when argparse lists them.
    """
    return list(parser._actions)


def type_of_option(option: Action) -> Any:
    """What an option takes: jsonargparse keeps the type in ``_typehint``; None for an option without one.

    Test: tests/reliability/test_wrong_inputs.py. Goes when jsonargparse shows it.
    """
    return getattr(option, "_typehint", None)


# ---------------------------------------------------------------------- Lightning


def cluster_environment(trainer: Trainer) -> ClusterEnvironment:
    """What started the job: strategies of one device do not know, ``_accelerator_connector`` does.

    Test: tests/reliability/test_preemption.py. Goes when the trainer shows it.
    """
    environment: ClusterEnvironment = trainer._accelerator_connector.cluster_environment
    return environment


def validates_now(trainer: Trainer) -> bool:
    """Whether the epoch that is ending is validated, which Lightning counts as one more batch.

    Test: tests/reliability/test_resume_variants.py. Goes when a checkpoint of an epoch's last batch resumes rightly.
    """
    loop = trainer.fit_loop
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))  # type: ignore[arg-type]


def batches_that_stepped(loop_state: dict[str, Any], by: int) -> None:
    """Corrects Lightning's count of steps in the state of a fit loop; it knows the count by a private name only.

    Test: tests/reliability/test_resume_variants.py. Goes with the one above.
    """
    loop_state["epoch_loop.state_dict"]["_batches_that_stepped"] += by
