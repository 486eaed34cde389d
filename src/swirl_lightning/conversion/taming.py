"""VQGAN checkpoints in the layout of taming-transformers (``vqgan.ckpt`` and its YAML), as Chameleon and Liquid use them.

They become an ordinary ``diffusers.VQModel``: the computation is the same, only the names of the weights differ. Weights of the
training losses (discriminator, LPIPS) are left behind.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from swirl_lightning.internals import vq_model

_BLOCK = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "conv_shortcut"}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def convert_taming(checkpoint: Path, configuration: Path, out: Path) -> Path:
    """Write a diffusers VQModel folder, which `swirl init --codec` and `VQModel.from_pretrained` read.

    Args:
        checkpoint: the .ckpt file; loaded without running any code that it may hold.
        configuration: its YAML, with model.params.ddconfig.
        out: folder to write.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the checkpoint holds more than weights, or weights and configuration do not fit.
    """
    settings = read_config(configuration)
    network = vq_model()(**settings)
    weights = rename(load_weights(checkpoint), len(settings["block_out_channels"]))
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name in sorted(wanted.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else None
        if name in weights and name in wanted and weights[name].dim() == 4 and len(wanted[name]) == 2:
            found = found[:2] if found is not None else None  # 1 x 1 convolutions of attention are linear layers there
        if found != wanted.get(name):
            raise ValueError(f"{checkpoint}: weight {name} is {found}, but {configuration} asks for {wanted.get(name)}")
    network.load_state_dict({name: value.reshape(wanted[name]) for name, value in weights.items()})
    network.save_pretrained(str(out), safe_serialization=True)
    return out


def read_config(file: Path) -> dict[str, Any]:
    """Arguments of ``diffusers.VQModel`` from a taming YAML.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the field that is missing or cannot be converted.
    """
    text = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    try:
        params = text["model"]["params"]
        dd = params["ddconfig"]
        widths = [dd["ch"] * factor for factor in dd["ch_mult"]]
        resolutions = [dd["resolution"] // 2**level for level in range(len(widths))]
        attends = [resolution in set(dd.get("attn_resolutions", ())) for resolution in resolutions]
        if dd.get("double_z", False):
            raise ValueError(f"{file}: model.params.ddconfig.double_z is on: that is a KL autoencoder without codes")
        return {
            "sample_size": dd["resolution"],
            "in_channels": dd["in_channels"],
            "out_channels": dd["out_ch"],
            "latent_channels": dd["z_channels"],
            "block_out_channels": tuple(widths),
            "down_block_types": tuple("AttnDownEncoderBlock2D" if on else "DownEncoderBlock2D" for on in attends),
            "up_block_types": tuple("AttnUpDecoderBlock2D" if on else "UpDecoderBlock2D" for on in reversed(attends)),
            "layers_per_block": dd["num_res_blocks"],
            "num_vq_embeddings": params["n_embed"],
            "vq_embed_dim": params["embed_dim"],
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: no taming VQGAN configuration: {error} is missing below model.params") from error


def load_weights(file: Path) -> dict[str, Tensor]:
    """Weights of encoder, decoder and codebook by their taming names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no checkpoint, or holds objects besides weights.
    """
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file}: cannot be loaded as weights alone ({str(error).splitlines()[0]}); save its 'state_dict' by itself first"
        ) from error
    weights = loaded.get("state_dict", loaded)
    return {name: value for name, value in weights.items() if not name.startswith("loss.") and isinstance(value, Tensor)}


def rename(weights: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Taming names to those of ``diffusers.VQModel``; a name that is not known stays, and is reported as not fitting.

    Args:
        weights: by taming name.
        levels: number of resolutions; taming counts the decoder's from the largest, diffusers from the smallest.
    """
    return {_renamed(name, levels): value for name, value in weights.items()}


def _renamed(name: str, levels: int) -> str:
    name = re.sub(r"\.norm_out\.", ".conv_norm_out.", name)
    if found := re.fullmatch(r"(encoder|decoder)\.mid\.(block|attn)_(\d)\.(\w+)\.(\w+)", name):
        half, kind, number, part, leaf = found.groups()
        place = f"resnets.{int(number) - 1}.{_BLOCK[part]}" if kind == "block" else f"attentions.0.{_ATTENTION[part]}"
        return f"{half}.mid_block.{place}.{leaf}"
    if found := re.fullmatch(
        r"(encoder|decoder)\.(down|up)\.(\d+)\.(?:(block|attn)\.(\d+)|(?:down|up)sample)\.(\w+)\.(\w+)", name
    ):
        half, way, level, kind, number, part, leaf = found.groups()
        block = int(level) if way == "down" else levels - 1 - int(level)
        if kind is None:
            return f"{half}.{way}_blocks.{block}.{way}samplers.0.{part}.{leaf}"
        names = ("resnets", _BLOCK) if kind == "block" else ("attentions", _ATTENTION)
        return f"{half}.{way}_blocks.{block}.{names[0]}.{number}.{names[1][part]}.{leaf}"
    return name
