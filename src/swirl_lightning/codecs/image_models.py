"""Image tokenizers: pixels to a grid of codes and back, by the VQ models of ``diffusers`` and ``transformers``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from swirl_lightning.hints import require
from swirl_lightning.internals import vq_model

TILES = "tiles.json"  # beside an image model: it sees single tiles of an image


class ImageModel(Protocol):
    """A vector-quantised autoencoder of square images."""

    size: int  # side of an image, pixels
    grid: int  # side of the grid of codes
    codes: int  # size of the codebook
    key: str  # changes with the weights and the size

    def encode(self, images: Tensor) -> Tensor:
        """Codes int64 [N, grid * grid] in reading order of images uint8 [N, 3, size, size]."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Images uint8 [N, 3, size, size] of codes int64 [N, grid * grid]."""
        ...

    def save(self, folder: Path) -> None:
        """Writes what ``load_image_model`` reads."""
        ...


class _TorchImageModel:
    """What the backends share: device, value range (the networks see [-1, 1]), batches, a key of the weights."""

    batch_size = 64

    def __init__(self, network: Any, size: int, codes: int) -> None:
        self.network: Any = network.eval().requires_grad_(False)
        self.size, self.codes = size, codes
        self.key = _key(network, size)
        self.grid = 0
        with torch.no_grad():
            shape = self._to_codes(torch.zeros(1, 3, size, size, device=self._device())).shape
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(f"an image model must give a square grid of codes, got {tuple(shape)}")
        self.grid = shape[1]

    def _device(self) -> torch.device:
        """The current CUDA device where there is one; the network follows."""
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        self.network.to(device)
        return device

    def _to_codes(self, images: Tensor) -> Tensor:
        """Codes [N, grid, grid] of images float32 [N, 3, size, size] in [-1, 1]."""
        raise NotImplementedError

    def _to_images(self, codes: Tensor) -> Tensor:
        """Images float32 [N, 3, size, size], about [-1, 1], of codes [N, grid, grid]."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Codes int64 [N, grid * grid] in reading order of images uint8 [N, 3, size, size].

        Raises:
            ValueError: for another shape.
        """
        if images.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"images must be [N, 3, {self.size}, {self.size}], got {tuple(images.shape)}")
        device = self._device()
        parts = [
            self._to_codes(part.to(device).float() / 127.5 - 1).flatten(1).long().cpu()
            for part in images.split(self.batch_size)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, self.grid**2, dtype=torch.long)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Images uint8 [N, 3, size, size] of codes int64 [N, grid * grid]."""
        device = self._device()
        parts = []
        for part in codes.split(self.batch_size):
            image = self._to_images(part.to(device).view(-1, self.grid, self.grid))
            parts.append(((image.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu())
        return torch.cat(parts) if parts else torch.zeros(0, 3, self.size, self.size, dtype=torch.uint8)

    def save(self, folder: Path) -> None:
        """Writes the network as its own library does (safetensors)."""
        self.network.save_pretrained(str(folder))


class DiffusersVQ(_TorchImageModel):
    """``diffusers.VQModel``: VQGAN, Chameleon's and Liquid's tokenizer once converted, and the codecs trained here.

    Args:
        network: ``diffusers.VQModel``; its ``sample_size`` is the side of the images.
    """

    def __init__(self, network: Any) -> None:
        super().__init__(network, int(network.config.sample_size), int(network.config.num_vq_embeddings))

    def _to_codes(self, images: Tensor) -> Tensor:
        latents = self.network.encode(images).latents  # [N, d, g, g]
        indices: Tensor = self.network.quantize(latents)[2][2]  # [N * g * g]
        return indices.view(latents.shape[0], *latents.shape[2:])

    def _to_images(self, codes: Tensor) -> Tensor:
        network = self.network
        shape = (*codes.shape, network.quantize.vq_embed_dim)
        entries = network.quantize.get_codebook_entry(codes.flatten(), shape)  # [N, d, g, g]
        spatial = entries if network.config.norm_type == "spatial" else None
        image: Tensor = network.decoder(network.post_quant_conv(entries), spatial)
        return image


class JanusVQ(_TorchImageModel):
    """``transformers.JanusVQVAE``, the tokenizer of Janus and LlamaGen, with codes as that class computes them.

    Args:
        network: ``transformers.JanusVQVAE``; its ``num_patches`` is the side of the grid.
    """

    def __init__(self, network: Any) -> None:
        config = network.config
        size = int(config.num_patches) * 2 ** (len(config.channel_multiplier) - 1)
        super().__init__(network, size, int(config.num_embeddings))

    def _to_codes(self, images: Tensor) -> Tensor:
        side = int(self.network.config.num_patches)
        tokens: Tensor = self.network.encode(images).image_tokens  # [N * g * g]
        return tokens.view(-1, side, side)

    def _to_images(self, codes: Tensor) -> Tensor:
        image: Tensor = self.network.decode(codes.flatten(1))
        return image


class Emu3VQ(_TorchImageModel):
    """``transformers.Emu3VQVAE``, Emu3's tokenizer of videos, here of single images.

    Args:
        network: ``transformers.Emu3VQVAE``. It takes images of any size; ``image_size`` in its ``config.json`` says which side
            is used, 512 where it is not there.
    """

    def __init__(self, network: Any) -> None:
        config = network.config
        config.image_size = int(getattr(config, "image_size", 512))
        super().__init__(network, config.image_size, int(config.codebook_size))

    def _to_codes(self, images: Tensor) -> Tensor:
        sizes = torch.tensor([[self.size, self.size]] * len(images))
        return torch.stack(self.network.encode(images, sizes).image_tokens)

    def _to_images(self, codes: Tensor) -> Tensor:
        image: Tensor = self.network.decode(codes)
        return image


class Tiled:
    """An image model that gets each tile of an image as a little image of its own.

    A convolutional encoder sees the surroundings of a cell, and its norms the whole image, so a code may change where no pixel
    does. Here equal tiles have equal codes wherever they are, which suits images made of cells; each distinct tile of a call
    is computed once. An image drawn so may show seams, so natural images go as a whole.

    Args:
        model: of the tiles.
        size: side of the images, pixels; a multiple of the tiles' side.

    Raises:
        ValueError: if the tiles do not fill the image.
    """

    def __init__(self, model: ImageModel, size: int) -> None:
        if size % model.size:
            raise ValueError(f"images of {size} pixels cannot be cut into tiles of {model.size}")
        self.model, self.size, self.codes = model, size, model.codes
        self.tiles = size // model.size  # of a side
        self.grid = self.tiles * model.grid
        self.key = hashlib.blake2b(f"{model.key} {size}".encode(), digest_size=8).hexdigest()

    def encode(self, images: Tensor) -> Tensor:
        """Codes int64 [N, grid * grid] in reading order of images uint8 [N, 3, size, size].

        Raises:
            ValueError: for another shape.
        """
        if images.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"images must be [N, 3, {self.size}, {self.size}], got {tuple(images.shape)}")
        codes = _once(self.model.encode, split_tiles(images, self.model.size))  # [N * tiles * tiles, g * g]
        side = self.model.grid
        grid: Tensor = codes.view(-1, 1, side, side)
        return join_tiles(grid, self.tiles).flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Images uint8 [N, 3, size, size] of codes int64 [N, grid * grid]."""
        blocks = split_tiles(codes.view(-1, 1, self.grid, self.grid), self.model.grid)
        return join_tiles(_once(self.model.decode, blocks.flatten(1)), self.tiles)

    def save(self, folder: Path) -> None:
        """Writes the model of the tiles as its own library does, and ``tiles.json``."""
        self.model.save(folder)
        write_tiles(folder, self.size)


def split_tiles(images: Tensor, side: int) -> Tensor:
    """Tiles [N * n * n, C, side, side], in reading order, of images [N, C, n * side, n * side]."""
    cut: Tensor = images.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [N, C, n, side, n, side]
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def join_tiles(tiles: Tensor, count: int) -> Tensor:
    """Images [N, C, count * side, count * side] of tiles [N * count * count, C, side, side] in reading order."""
    cut: Tensor = tiles.unflatten(0, (-1, count, count))  # [N, count, count, C, side, side]
    return cut.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _once(compute: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """``compute(rows)`` for a function of single rows [N, ...] that is asked for each distinct one only."""
    if not len(rows):
        return compute(rows)
    _, first, which = np.unique(rows.flatten(1).numpy(), axis=0, return_index=True, return_inverse=True)
    return compute(rows[torch.from_numpy(first)])[torch.from_numpy(which.reshape(-1))]


def write_tiles(folder: Path, size: int) -> None:
    """Marks the image model of a folder as one of tiles, of images of ``size`` pixels a side."""
    (Path(folder) / TILES).write_text(json.dumps({"image_size": size}) + "\n", encoding="utf-8")


def load_image_model(folder: str | Path) -> ImageModel:
    """The image model of a local folder or hub name, whichever library wrote it.

    Args:
        folder: written by ``swirl codec``, ``VQModel.save_pretrained`` or the hub.

    Raises:
        FileNotFoundError: if a local path has no ``config.json``.
        ValueError: for a kind of model that is not known.
        ImportError: without the ``visual`` extra.
    """
    config_file = Path(folder) / "config.json"
    if not config_file.is_file():
        raise FileNotFoundError(f"{config_file} is missing: give the folder of an image codec (train one with `swirl codec`)")
    model = _of_library(folder, json.loads(config_file.read_text(encoding="utf-8")))
    tiles = Path(folder) / TILES
    return Tiled(model, int(json.loads(tiles.read_text(encoding="utf-8"))["image_size"])) if tiles.is_file() else model


def _of_library(folder: str | Path, config: Mapping[str, Any]) -> ImageModel:
    if config.get("_class_name") == "VQModel":
        return DiffusersVQ(vq_model().from_pretrained(str(folder), use_safetensors=True))
    if config.get("model_type") == "janus_vqgan":
        return JanusVQ(require("transformers", "visual").JanusVQVAE.from_pretrained(str(folder), use_safetensors=True))
    if config.get("model_type") == "emu3_vqgan":
        return Emu3VQ(require("transformers", "visual").Emu3VQVAE.from_pretrained(str(folder), use_safetensors=True))
    kind = config.get("_class_name") or config.get("model_type")
    raise ValueError(f"{Path(folder) / 'config.json'}: {kind!r} is no image model known here")


def _key(network: nn.Module, size: int) -> str:
    """16 hex digits of the weights and the size: equal keys give equal codes."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim() else b"")
    return digest.hexdigest()
