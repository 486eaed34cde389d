"""What the engine computes is compared with the model's own logits on a small input; the first way that agrees is taken.

The model's own numbers are ``model(ids).logits`` with eager attention, unpadded, nothing of ours in the way. Ways of scoring
are a ladder: rows that share prefixes, plain rows, plain rows with eager attention. If no way agrees, nothing is trained.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from swirl_lightning.distributed.sharding import any_rank, compute_dtype, device_of, is_sharded, local_rows
from swirl_lightning.internals import attention_name
from swirl_lightning.scoring.attention import ATTENTION_NAME
from swirl_lightning.scoring.packing import Group
from swirl_lightning.scoring.passes import ScoringPath, prefill, score_in_turns, score_pass
from swirl_lightning.scoring.positions import positions_of
from swirl_lightning.types import ScoredRow

log = logging.getLogger(__name__)
P = TypeVar("P")
EAGER = "eager"
WINDOW = 6  # tokens; sliding windows and the like are narrowed to it while a check runs, so that small inputs leave them
_SCALES_BY_PLACE = ("floor_scale", "log_scaling_n_floor")  # of queries, from so many tokens on
_WINDOWS = ("sliding_window", "attention_chunk_size", *_SCALES_BY_PLACE)
_LENGTHS = re.compile("chunk|block|compress|topk")  # in names of a configuration: tokens after which something else begins
_FARTHEST = 512  # of them that a check looks beyond; sparse attention tells of itself (scoring/attention.py)
_ANY_TROUBLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Whatever an architecture throws at inputs that it does not take."""


def _first_line(error: Exception) -> str:
    return f"{error}".split("\n")[0] or type(error).__name__


class UnsupportedModelError(ValueError):
    """No way of computing agrees with the model's own logits."""


class _DisagreementError(Exception):
    """A way of computing gives other numbers than the model."""


@dataclass(frozen=True)
class Tolerance:
    """How far numbers may be off: what rounding explains, and not much more.

    Attributes:
        nats: of a token: the largest in float32, the mean where less is computed in.
        share: of a log-probability's size, added to ``nats``.
        gradient: of a parameter's norm.
        floor: gradients smaller than this share of the largest are compared with that share of it.
        exact: whether all is float32.
    """

    nats: float
    share: float
    gradient: float
    floor: float
    exact: bool

    @classmethod
    def of(cls, model: PreTrainedModel) -> Tolerance:
        """Of what a model computes in."""
        if {model.dtype, compute_dtype(model)} == {torch.float32} and torch.get_float32_matmul_precision() == "highest":
            return cls(nats=1e-3, share=0.0, gradient=1e-2, floor=1e-2, exact=True)
        return cls(nats=0.1, share=0.02, gradient=0.3, floor=0.1, exact=False)


def scoring_path(model: PreTrainedModel, *, gradients: bool = False) -> ScoringPath:
    """How a model's rows are scored: the first way whose log-probabilities are the model's own.

    Found once a configuration, device and type, and logged with its reason. Where no way agrees with the attention that the
    model has, it is switched to eager attention.

    Args:
        model: a causal LM.
        gradients: compare the gradients of all trainable parameters, too (of a whole model, twice their memory for a moment).

    Returns:
        The path.

    Raises:
        UnsupportedModelError: if no way agrees.
    """
    found = _found.get(model)
    if found is None or (gradients and not found.gradients):
        found = _by_key.get(_key(model, gradients))
        if found is None:
            key = _key(model, gradients)
            found = _choose(model, gradients)
            _by_key[key] = _by_key[_key(model, gradients, found.attention)] = found
        if found.attention != attention_name(model):
            model.set_attn_implementation(found.attention)
        _found[model] = found
    return found.path


@dataclass(frozen=True)
class _Found:
    path: ScoringPath
    attention: str
    gradients: bool


_found: WeakKeyDictionary[PreTrainedModel, _Found] = WeakKeyDictionary()
_by_key: dict[tuple[object, ...], _Found] = {}


def model_key(model: PreTrainedModel) -> tuple[object, ...]:
    """Equal for models that compute in the same way."""
    config = model.config.to_json_string(use_diff=False)
    return type(model), config, device_of(model).type, model.dtype, compute_dtype(model), is_sharded(model)


def _key(model: PreTrainedModel, gradients: bool, attention: str | None = None) -> tuple[object, ...]:
    return *model_key(model), gradients, bool(_recomputed(model)), attention or attention_name(model)


def _choose(model: PreTrainedModel, gradients: bool) -> _Found:
    own = attention_name(model)
    rungs = [(ScoringPath.SHARED, own), (ScoringPath.PLAIN, own), (ScoringPath.PLAIN, EAGER)]
    try:
        probe = _Probe(model, gradients=gradients and any(p.requires_grad for p in model.parameters()))
    except torch.OutOfMemoryError:
        raise
    except _ANY_TROUBLE as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} (model_type {model.config.model_type!r}) cannot continue plain token ids, so nothing is "
            f"trained: {_first_line(error)}. Choose another base model"
        ) from error

    def check(rung: tuple[ScoringPath, str]) -> str:
        if rung[0] is ScoringPath.SHARED and own != ATTENTION_NAME:
            raise _DisagreementError(f"attention implementation is {own}")
        with attention_as(model, rung[1]):
            return probe.compare(rung[0])

    path, attention = first_that_agrees(
        model, "scoring", rungs, check, name=lambda rung: f"{rung[0]} rows" + (", eager attention" if rung[1] == EAGER else "")
    )
    return _Found(path, attention, gradients)


def first_that_agrees(
    model: PreTrainedModel, what: str, rungs: Sequence[P], check: Callable[[P], str], *, name: Callable[[P], str]
) -> P:
    """The first rung of a ladder that agrees with the model's own logits, logged with its reason.

    Args:
        model: a causal LM.
        what: is climbed, for the log.
        rungs: best first.
        check: raises where a rung disagrees or cannot be computed, otherwise says how closely it agrees.
        name: of a rung.

    Returns:
        The rung.

    Raises:
        UnsupportedModelError: if none agrees; it says what was wrong with each.
    """
    refused: list[str] = []
    for rung in rungs:
        reason, failed = "", False
        try:
            with quietly(model):
                reason = check(rung)
        except (_DisagreementError, *_ANY_TROUBLE) as error:  # the next rung is tried, this one's reason kept
            reason, failed = _first_line(error), True
        if not any_rank(failed, model):
            log.info(
                "%s of %s: %s (%s)", what, type(model).__name__, name(rung), "; ".join([*refused, f"{name(rung)} {reason}"])
            )
            return rung
        refused.append(f"{name(rung)}: {reason}")
    raise UnsupportedModelError(
        f"{type(model).__name__} (model_type {model.config.model_type!r}): no way of {what} agrees with the model's own "
        f"logits, so nothing is trained: {'; '.join(refused)}. Choose another base model, or report the architecture"
    )


class _Probe:
    """A small input for scoring, and the model's own numbers on it."""

    def __init__(self, model: PreTrainedModel, *, gradients: bool) -> None:
        self.model, self.tolerance = model, Tolerance.of(model)
        far = reach(model)
        ids = probe_ids(model, far + 16)
        self.groups = [[ScoredRow((*ids[:n], *ids[n + k : n + 2 * k + 2]), n) for k in range(3)] for n in (far + 7, 8)]
        rows = [row for group in self.groups for row in group]
        with quietly(model), torch.set_grad_enabled(gradients):
            own = own_logprobs(model, rows)
            self.own = torch.cat(own).detach()
            self.weights = torch.cos(torch.arange(len(self.own), device=self.own.device))
            self.gradients = self._gradients(torch.cat(own)) if gradients else None

    def compare(self, path: ScoringPath) -> str:
        """How closely a path agrees.

        Raises:
            _DisagreementError: saying by how much it does not.
        """
        with torch.set_grad_enabled(self.gradients is not None), _recomputing(self.model):
            scores = score_pass(self.model, self.groups, path)
            found = scores.logprobs[scores.mask]
            off = self.tolerance_check(found.detach())
            off_gradient = None if self.gradients is None else self._compare_gradients(self._gradients(found))
        if path is ScoringPath.SHARED and not is_sharded(self.model):
            turns = [score_in_turns(self.model, group, 5) for group in self.groups]
            self.tolerance_check(torch.cat([scores.logprobs[scores.mask] for scores in turns]))
            self._compare_continued()
        return f"equal within {off:.1g} nats" + ("" if off_gradient is None else f", gradients within {off_gradient:.1g}")

    def _compare_continued(self) -> None:
        """Rows on top of prompts that were computed before, with the gradients that go back through those."""
        with torch.set_grad_enabled(self.gradients is not None):
            _, prefixes = prefill(self.model, [group[0].ids[: group[0].start] for group in self.groups])
            scores = score_pass(self.model, self.groups, ScoringPath.SHARED, prefixes=prefixes)
            found = scores.logprobs[scores.mask]
            self.tolerance_check(found.detach())
            if self.gradients is not None:
                self._compare_gradients(self._gradients(found))

    def tolerance_check(self, found: Tensor) -> float:
        """Largest (in float32) or mean difference in nats."""
        return compare_nats(found, self.own, self.tolerance)

    def _gradients(self, logprobs: Tensor) -> list[Tensor | None]:
        """Gradients of a weighted sum, this rank's part; what the parameters held before is put back."""
        parameters = list(self.model.parameters())
        before = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        (logprobs * self.weights).sum().backward()
        found = [p.grad if p.grad is None else local_rows(p.grad) for p in parameters]
        for p, grad in zip(parameters, before, strict=True):
            p.grad = grad
        return found

    def _compare_gradients(self, found: Sequence[Tensor | None]) -> float:
        assert self.gradients is not None
        norms = [0.0 if g is None else float(g.norm()) for g in self.gradients]
        floor = self.tolerance.floor * max(norms)
        worst, where = 0.0, ""
        for (name, _), own, norm, mine in zip(self.model.named_parameters(), self.gradients, norms, found, strict=True):
            if own is None and mine is None:
                continue
            difference = mine if own is None else own if mine is None else mine - own
            assert difference is not None
            off = float(difference.norm()) / max(norm, floor, 1e-30)
            if not off <= worst:
                worst, where = off, name
        if not worst <= self.tolerance.gradient:
            raise _DisagreementError(f"the gradient of {where} is off by {worst:.2g} of its norm")
        return worst


def compare_nats(found: Tensor, own: Tensor, tolerance: Tolerance) -> float:
    """Difference of log-probabilities: the largest in float32, the mean where rounding has tails.

    Raises:
        _DisagreementError: if it is larger than the tolerance, or not a number.
    """
    difference = (found - own).abs()
    off = float(difference.max() if tolerance.exact else difference.mean())
    if not off <= tolerance.nats + tolerance.share * float(own.abs().mean()):
        raise _DisagreementError(f"log-probabilities are off by {off:.2g} nats a token")
    return off


def own_logprobs(model: PreTrainedModel, rows: Group) -> list[Tensor]:
    """Log-probabilities of the rows' tails from ``model(ids).logits``: eager attention, no padding, no cache.

    Args:
        model: a causal LM.
        rows: what is scored.

    Returns:
        float32 [tail] a row.
    """
    return [
        torch.log_softmax(logits[row.start - 1 : -1].float(), dim=-1).gather(
            -1, torch.tensor(row.ids[row.start :], device=logits.device)[:, None]
        )[:, 0]
        for row, logits in zip(rows, own_logits(model, [row.ids for row in rows]), strict=True)
    ]


def own_logits(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """The model's own logits [T, V] of each row; rows of one length go through it together, so none is padded."""
    found: dict[int, Tensor] = {}
    with attention_as(model, EAGER):
        for length in sorted({len(row) for row in rows}):
            at = [i for i, row in enumerate(rows) if len(row) == length]
            ids = torch.tensor([list(rows[i]) for i in at], device=device_of(model))
            found |= dict(zip(at, model(input_ids=ids, use_cache=False).logits, strict=True))
    return [found[i] for i in range(len(rows))]


def rows_of_embedding(model: PreTrainedModel) -> int:
    """Token ids that a model knows; an embedding with an adapter on it has a weight, and no ``num_embeddings``."""
    return len(model.get_input_embeddings().weight)  # type: ignore[arg-type]


def probe_ids(model: PreTrainedModel, count: int) -> list[int]:
    """Ordinary token ids: none that the configuration gives a meaning."""
    vocabulary = rows_of_embedding(model)
    special = {value for name, value in model.config.to_dict().items() if name.endswith("token_id")}
    ordinary = [i for i in range(min(vocabulary, 1000)) if i not in special] or [0]
    return [ordinary[(7 + 37 * i) % len(ordinary)] for i in range(count)]


def reach(model: PreTrainedModel) -> int:
    """Tokens after which an architecture computes in another way: chunks, blocks, compressed keys; 0 where there are none.

    A check on shorter rows alone would not see what comes then. Sliding windows and the like are narrowed instead.
    """

    def lengths(value: object, named: bool) -> Iterator[int]:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                yield from lengths(inner, name not in _WINDOWS and (named or bool(_LENGTHS.search(str(name)))))
        elif isinstance(value, list):
            for inner in value:
                yield from lengths(inner, named)
        elif named and isinstance(value, int) and WINDOW < value <= _FARTHEST:
            yield value

    room = positions_of(model) or 2 * _FARTHEST
    found = lengths(model.config.get_text_config().to_dict(), False)
    return max((n for n in found if n + 16 <= room), default=0)


@contextlib.contextmanager
def attention_as(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Another attention implementation; architectures that have but one keep it."""
    before = attention_name(model)
    if implementation != before:
        model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        if implementation != before:
            model.set_attn_implementation(before)


def _recomputed(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """Layers that gradient checkpointing computes again in the backward pass; none where dropout would come along."""
    dropout = [value for name, value in model.config.get_text_config().to_dict().items() if "drop" in name]
    if any(isinstance(value, float) and value > 0 for value in dropout):
        return []
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]


@contextlib.contextmanager
def _recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Gradient checkpointing as in training; inside its layers all stays in eval mode."""
    layers = _recomputed(model)
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


@contextlib.contextmanager
def quietly(model: PreTrainedModel) -> Iterator[None]:
    """Eval mode, no autocast, narrow sliding windows: what a check computes in."""
    was_training = model.training
    model.eval()
    narrowed: list[tuple[object, str, int]] = []
    for holder in (model.config.get_text_config(), *model.modules()):
        for name in _WINDOWS:
            size = holder.__dict__.get(name)
            if isinstance(size, int) and size > WINDOW:
                narrowed.append((holder, name, size))
                setattr(holder, name, WINDOW)
    try:
        with torch.autocast(device_of(model).type, enabled=False):
            yield
    finally:
        for holder, name, size in narrowed:
            setattr(holder, name, size)
        model.train(was_training)
