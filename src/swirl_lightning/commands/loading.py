"""Models for commands: from exported folders, or from a run and its checkpoint."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Any

import yaml

from swirl_lightning.codecs import load_codec
from swirl_lightning.commands.moved import renamed
from swirl_lightning.conversion.export import RECIPE, read_recipe
from swirl_lightning.types import Role
from swirl_lightning.world_model import WorldModel, WorldModelConfig
from swirl_lightning.world_model.inference import Inference
from swirl_lightning.world_model.new import MODEL, NewModel
from swirl_lightning.world_model.prompts import PromptBuilder


def exported_folders(pattern: str, role: Role) -> dict[str, Path]:
    """Folders of a role written by ``swirl export``.

    Args:
        pattern: a folder, or a run folder whose last models were exported (``export/last``); a ``*`` stands for several.
        role: which model.

    Returns:
        Folders by what ``*`` stands for.

    Raises:
        FileNotFoundError: if there is no such folder, or one without exported models.
        ValueError: if one holds the model of the other role.
    """
    before, after = pattern.partition("*")[0], pattern.rpartition("*")[2]
    if not (places := sorted(glob(pattern))):
        raise FileNotFoundError(f"there is no folder {pattern}")
    found = {place[len(before) : len(place) - len(after)]: Path(place) for place in places}
    folders = {name: place if (place / RECIPE).is_file() else place / "export/last" / role for name, place in found.items()}
    for folder in folders.values():
        read_recipe(folder, role)
    return folders


def inference_from_folders(fwm: Path | None, idm: Path | None) -> Inference:
    """Models out of folders written by ``swirl export``; a role that is not given must not be asked.

    Raises:
        FileNotFoundError: if a folder is missing or was not written by ``swirl export``.
        ValueError: if no folder is given, or one holds the model of the other role.
    """
    folders = {role: folder for role, folder in ((Role.FWM, fwm), (Role.IDM, idm)) if folder is not None}
    if not folders:
        raise ValueError("give at least one exported folder: --fwm or --idm")
    recipes = {role: read_recipe(folder, role) for role, folder in folders.items()}
    first = next(iter(folders.values()))
    templates, limit, _ = next(iter(recipes.values()))
    if len(folders) == 2:
        config = WorldModelConfig(base=str(folders[Role.FWM]), idm_base=str(folders[Role.IDM]))
    else:
        config = WorldModelConfig(base=str(first), storage="shared")
    sampling = {role: recipes.get(role, next(iter(recipes.values())))[2] for role in Role}
    codec = load_codec(first, **templates.codec_options)
    constraints = {role: codec.constraint(role) for role in Role}
    return Inference(WorldModel(config, reference=False), PromptBuilder(codec, templates, limit), sampling, constraints)


def run_parser(**options: Any) -> Any:
    """A parser of the YAML of ``swirl fit`` that makes its ``model`` and ``data``, and passes over the rest.

    Args:
        **options: of ``ArgumentParser``.

    Returns:
        ``LightningArgumentParser``.
    """
    from jsonargparse import ActionConfigFile

    import swirl_lightning.environments  # short class names in YAML: the classes must be imported
    from swirl_lightning.algorithm.module import SwirlModule
    from swirl_lightning.commands.trainer import RunParser
    from swirl_lightning.data import TransitionDataModule

    assert swirl_lightning.environments
    parser = RunParser(**options)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML of `swirl fit`; a later one changes an earlier one")
    parser.add_lightning_class_args(SwirlModule, "model")  # type: ignore[arg-type]
    parser.add_lightning_class_args(TransitionDataModule, "data", subclass_mode=True)
    for name in ("trainer", "checkpoint", "freezing", "seed_everything", "run_dir", "ckpt_path", "weights_only"):
        parser.add_argument(f"--{name}", type=Any, default=None, help="as in `swirl fit`; not used here")
    return parser


def inference_from_run(run_dir: Path, checkpoint: Path | None = None) -> Inference:
    """The models of a run with the weights of a checkpoint.

    Args:
        run_dir: Folder of the run; holds ``config.yaml``.
        checkpoint: Default: ``checkpoints/last.ckpt`` in the run folder.

    Raises:
        FileNotFoundError: if the configuration or the checkpoint is missing.
    """
    from swirl_lightning.algorithm.checks import check_weights
    from swirl_lightning.algorithm.module import SwirlModule
    from swirl_lightning.commands.trainer import RunParser
    from swirl_lightning.distributed.checkpointing import AtomicCheckpointIO, check_file

    config_file = run_dir / "config.yaml"
    if not config_file.is_file():
        raise FileNotFoundError(f"{config_file} is missing: {run_dir} is not the folder of a `swirl fit` run")
    checkpoint = checkpoint or run_dir / "checkpoints" / "last.ckpt"
    check_file(checkpoint)
    config: dict[str, Any] = renamed(yaml.safe_load(config_file.read_text(encoding="utf-8")))
    parser = RunParser()
    parser.add_lightning_class_args(SwirlModule, "model")  # type: ignore[arg-type]
    module = parser.instantiate_classes(parser.parse_object({"model": config["model"]})).model
    if isinstance(module.world_model_config.base, NewModel):
        module.take_base(str(run_dir / MODEL))
    module.configure_model()
    weights = AtomicCheckpointIO().load_checkpoint(checkpoint)["state_dict"]
    check_weights(module.state_dict(), weights)
    module.load_state_dict(weights)
    inference: Inference = module.eval().inference
    return inference
