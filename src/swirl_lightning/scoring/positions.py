"""How long a row of a model may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from transformers import PreTrainedModel


def positions_of(model: PreTrainedModel) -> int | None:
    """Most tokens of a row, or None where the architecture has no limit.

    A rotary embedding of the kinds ``longrope`` (Phi-3) and ``dynamic`` turns *all* tokens of a row otherwise once the row
    is longer than what the model was first trained on. Then keys that a rollout has cached, and shorter rows of the same
    batch, are no longer what the model itself computes. So rows end there.

    Args:
        model: a causal LM.
    """
    config = model.config.get_text_config()
    limit: int | None = getattr(config, "max_position_embeddings", None)
    first = getattr(config, "original_max_position_embeddings", None)
    return min((n for n in (limit, *_switches(getattr(config, "rope_parameters", None), first)) if n), default=None)


def _switches(parameters: object, first: int | None) -> Iterator[int | None]:
    """Lengths at which rotary embeddings change; of each kind of layer where those differ."""
    if not isinstance(parameters, Mapping):
        return
    if parameters.get("rope_type") in ("longrope", "dynamic"):
        yield parameters.get("original_max_position_embeddings", first)
    for inner in parameters.values():
        yield from _switches(inner, first)
