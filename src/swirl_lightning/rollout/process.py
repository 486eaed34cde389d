"""Rollouts by a second process, which draws the next batch while this one is trained on."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from pickle import PicklingError

import torch
from torch import nn
from transformers import PreTrainedModel
from typing_extensions import override

from swirl_lightning.distributed.parent import end_with_parent
from swirl_lightning.distributed.sharding import device_of, is_sharded
from swirl_lightning.internals import LoraLayer
from swirl_lightning.rollout.base import Begun, RolloutEngine, RolloutRequest
from swirl_lightning.rollout.decoders import RolloutPath
from swirl_lightning.rollout.drawing import draw
from swirl_lightning.rollout.sampler import TransformersEngine
from swirl_lightning.rollout.self_check import rollout_path
from swirl_lightning.types import Trajectory


class ProcessEngine(RolloutEngine):
    """Samples the next batch in a second process, with a copy of the policy, while the first one trains on this batch.

    What it draws is a step old by then. The ratio of GRPO is formed with the log-probabilities that the copy drew with, as in
    any later pass over one rollout. The first batch of an epoch, and all that is drawn outside of training, comes from the
    model itself. The copy shares its memory with this process and takes the trained weights over before every rollout.

    Args:
        device: Where the copy is; None is the model's own device.
        threads: Of the second process, for what it computes on a CPU.
        cache_tokens: Key/value slots that may exist at once, in either process.
    """

    looks_ahead = True

    def __init__(self, device: str | None = None, threads: int = 1, cache_tokens: int = 1 << 18) -> None:
        if threads < 1:
            raise ValueError(f"engine.threads must be at least 1, got {threads}")
        self.device, self.threads, self.cache_tokens = device, threads, cache_tokens
        self._own = TransformersEngine(cache_tokens)
        self._process: ProcessPoolExecutor | None = None
        self._copy: _Copy | None = None
        self._taken: Future[None] | None = None
        self._begun: Begun | None = None
        self._end: Finalize | None = None  # ends the process; with the engine, or before this process waits for its children

    @override
    def check(self, model: PreTrainedModel) -> None:
        """Asks for whole models that can be sent; see ``RolloutEngine``."""
        if is_sharded(model):
            raise ValueError("model.engine: a second process needs the policy whole; use trainer.strategy ddp, not fsdp")
        empty = {id(x): torch.empty_like(x, device="meta") for x in (*model.parameters(), *model.buffers())}
        try:
            ForkingPickler.dumps(deepcopy(model, empty))  # without its weights
        except (PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"model.engine: the model cannot be sent to a second process ({type(error).__name__}: {error}); something in "
                "it was replaced by what only this process knows: leave model.engine out"
            ) from error

    @override
    def generate(self, model: PreTrainedModel, request: RolloutRequest) -> Trajectory:
        """What was begun, if that is asked for; otherwise drawn by the model itself.

        Raises:
            ValueError: as ``TransformersEngine``, or if the second process has died.
        """
        begun, copy = self._begun, self._copy
        if begun is None or copy is None or not copy.serves(model) or not begun.answers(request):
            return self._own.generate(model, request)
        self._begun, device = None, device_of(model)
        with _told():
            return replace(_on(self._result(begun), device), current=False)

    @override
    @torch.no_grad()
    def begin(self, model: PreTrainedModel, request: RolloutRequest) -> None:
        """Starts to draw with the weights as they are; see ``RolloutEngine``.

        Raises:
            ValueError: if the second process has died.
        """
        with _told():
            if self._begun is not None:  # it was not asked for, but reads the weights that are going to be written
                self._result(self._begun)
            if self._process is None:
                context = multiprocessing.get_context("spawn")
                self._process = ProcessPoolExecutor(1, context, _start, (os.getpid(), self.threads))
                self._end = Finalize(self, self._process.shutdown, kwargs={"cancel_futures": True}, exitpriority=1)
            if self._copy is None or not self._copy.serves(model):
                self._copy = _Copy.made(model, self.device)
                self._taken = self._process.submit(_take, self._copy.model)
            self._copy.update()
            asked = replace(request, progress=None, keep="nothing")
            self._begun = Begun.of(request, self._process.submit(_draw, asked, rollout_path(model), self.cache_tokens))

    @override
    def close(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._copy = self._taken = self._begun = self._end = None

    def _result(self, begun: Begun) -> Trajectory:
        assert self._taken is not None
        self._taken.result()
        return begun.drawn.result()


@contextmanager
def _told() -> Iterator[None]:
    """Says what it means that the pool is broken.

    Raises:
        ValueError: if the second process has died.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise ValueError(
            "model.engine: the second process, which draws rollouts, has ended; what it printed is above (out of memory, or a "
            "script without `if __name__ == '__main__':`)"
        ) from error


class _Copy:
    """A copy of a policy that another process computes with.

    Attributes:
        of: the policy.
        model: the copy, in memory that both processes see.
    """

    def __init__(self, of: PreTrainedModel, model: PreTrainedModel) -> None:
        self.of, self.model = of, model
        self._adapters = _active_adapters(of)

    @classmethod
    def made(cls, model: PreTrainedModel, device: str | None) -> _Copy:
        """Copies a model as it computes now."""
        copy = deepcopy(model).eval().requires_grad_(requires_grad=False)
        return cls(model, copy.to(device or device_of(model)).share_memory())  # type: ignore[arg-type]

    def serves(self, model: PreTrainedModel) -> bool:
        """Whether it is a copy of this model, the same adapter active."""
        return self.of is model and self._adapters == _active_adapters(model)

    def update(self) -> None:
        """Takes over the weights that are trained; nobody says which have changed (fused optimizers leave no trace)."""
        copies = dict(self.model.named_parameters(remove_duplicate=False))
        for name, weight in self.of.named_parameters(remove_duplicate=False):
            if weight.requires_grad or not isinstance(weight, nn.Parameter):  # a cast of another type, new every time
                copies[name].copy_(weight)
        if (device := device_of(self.model)).type == "cuda":
            torch.cuda.synchronize(device)  # the other process does not wait for this one's stream


def _active_adapters(model: PreTrainedModel) -> tuple[str, ...]:
    layer = next((module for module in model.modules() if isinstance(module, LoraLayer)), None)
    return () if layer is None else tuple(layer.active_adapters)


def _on(drawn: Trajectory, device: torch.device) -> Trajectory:
    """The same on another device."""
    completions, mask, logprobs, finished = (
        x.to(device) for x in (drawn.completions, drawn.mask, drawn.logprobs, drawn.finished)
    )
    return replace(drawn, completions=completions, mask=mask, logprobs=logprobs, finished=finished)


# ---------------------------------------------------------------------- in the second process

_taken: list[PreTrainedModel] = []  # the copy, in memory that both processes see


def _start(parent: int, threads: int) -> None:
    end_with_parent(parent, what="rollout process")
    torch.set_num_threads(threads)


def _take(model: PreTrainedModel) -> None:
    _taken[:] = [model]


def _draw(request: RolloutRequest, path: RolloutPath, cache_tokens: int) -> Trajectory:
    return _on(draw(_taken[0], request, path, cache_tokens), torch.device("cpu"))
