"""Model cards of exported folders: what a model is, what it was trained on and how, what it measures, under which licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from swirl_lightning.files import METRICS
from swirl_lightning.types import Role

CARD = "README.md"
_ABOUT = {
    Role.FWM: "a forward world model: given a state and an action, it says the next state",
    Role.IDM: "an inverse dynamics model: given a state and the next one, it says the action between them",
}
_TEXT = """
# {title}

This is {about}. It was trained with SWIRL ([arXiv:2602.06130](https://arxiv.org/abs/2602.06130)) by swirl-lightning {version}.
`swirl.json` beside the weights holds the wording of its prompts; `swirl forecast`, `swirl imagine` and `swirl label` use it.

## Trained from

{base}

## Trained on

```yaml
{data}```

## Recipe

```yaml
{recipe}```

## Measures

{measures}
"""


def write_card(folder: Path, role: Role, run_dir: Path) -> Path:
    """Writes the card of an exported role.

    Args:
        folder: written by ``export_role``.
        role: of the model in it.
        run_dir: of the run that trained it; its ``config.yaml`` and ``metrics.jsonl`` are read, as far as they are there.

    Returns:
        The file.
    """
    file = run_dir / "config.yaml"
    config: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    model = config.get("model", {})
    models = model.get("world_model", {})
    base = models.get("base")
    base = (models.get("idm_base") or base) if role is Role.IDM else base
    licence = None if base is None or isinstance(base, Mapping) else licence_of(base)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["world-model", "swirl", role.value],
        license=licence,
        base_model=base if isinstance(base, str) and base.count("/") == 1 and not Path(base).exists() else None,
    )
    named = ("warmup", "warmup_until", "warmup_idm_weight", "state_only_weight", "schedule", "guard", role.value)
    recipe = {name: model[name] for name in (*named, "warmup_optimizer", f"{role.value}_optimizer") if name in model}
    if isinstance(base, Mapping):
        trained_from = f"A new model, {json.dumps(base)}. No weights of others are in it: its licence is yours to choose."
    else:
        trained_from = f"`{base}`. " + (f"Its licence: {licence}." if licence else "Its card names no licence.")
    text = _TEXT.format(
        title=f"{role.value.upper()} of {run_dir.resolve().name}",
        about=_ABOUT[role],
        version=version("swirl-lightning"),
        base=trained_from,
        data=_as_yaml(config.get("data", {})),
        recipe=_as_yaml({"storage": models.get("storage"), **recipe}),
        measures=_measures(run_dir / METRICS, role),
    )
    card = folder / CARD
    ModelCard(f"---\n{data.to_yaml()}\n---\n{text}").save(card)
    return card


def licence_of(base: str) -> str | None:
    """The licence that a base's own card names; a hub name's card is read from the cache alone.

    Args:
        base: hub name or local folder.
    """
    card = Path(base) / CARD
    if not card.is_file() and not Path(base).exists():
        try:
            card = Path(hf_hub_download(base, CARD, local_files_only=True))
        except (OSError, HfHubHTTPError, HFValidationError):
            return None
    if not card.is_file():
        return None
    try:
        named: str | None = ModelCard.load(card).data.license
    except (ValueError, yaml.YAMLError):  # somebody's own idea of a card
        return None
    return named


def _as_yaml(settings: Mapping[str, Any]) -> str:
    """Settings that are set, as YAML."""
    return yaml.safe_dump(_set(settings), sort_keys=False)


def _set(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _set(inner) for key, inner in value.items() if inner is not None and inner != {}}
    return value


def _measures(metrics: Path, role: Role) -> str:
    """The last measures of a role as a table."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()] if metrics.is_file() else []
    lines = [
        f"| {row['split']} | {row['decoding']} | {name} | {value:.4f} |"
        for row in rows
        if row["label"] == rows[-1]["label"]
        for name, value in row[role.value].items()
        if not name.startswith("changed/")
    ]
    head = ["| split | decoding | measure | value |", "|---|---|---|---:|"]
    return "\n".join([*head, *lines]) if lines else "None were taken."
