"""CLIP similarities of predicted images, with a model from a local folder.

torchmetrics' ``CLIPScore`` (1.9) takes no local folder, does not run under transformers 5, and knows no directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from swirl_lightning.codecs.image_pixels import load_rgb


class ClipEncoder:
    """Directions of images and texts in CLIP's space.

    Args:
        folder: Folder of a CLIP model with its processor, e.g. of ``openai/clip-vit-base-patch32``.

    Raises:
        FileNotFoundError: if the folder is not there; nothing is downloaded.
        ValueError: if it holds no CLIP model.
    """

    def __init__(self, folder: str | Path) -> None:
        if not (Path(folder) / "config.json").is_file():
            raise FileNotFoundError(
                f"CLIP: {folder} is no folder with a model (config.json is missing). Nothing is downloaded here: on a machine "
                "with network run `hf download openai/clip-vit-base-patch32 --local-dir FOLDER`, copy the folder and name it"
            )
        self._folder = str(folder)
        try:
            self._processor = CLIPImageProcessorPil.from_pretrained(self._folder, local_files_only=True)
            self._vision = self._load(CLIPVisionModelWithProjection)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"CLIP: {folder} holds no CLIP model with its image processor: {error}") from error

    def _load(self, kind: Any) -> Any:
        return (
            kind.from_pretrained(self._folder, local_files_only=True, use_safetensors=True).train(False).requires_grad_(False)
        )

    @cached_property
    def _text(self) -> tuple[Any, Any]:
        return AutoTokenizer.from_pretrained(self._folder, local_files_only=True), self._load(CLIPTextModelWithProjection)

    @torch.no_grad()
    def images(self, images: Sequence[bytes]) -> Tensor:
        """Unit vectors [N, d] of N encoded images."""
        inputs = self._processor(images=[load_rgb(image) for image in images], return_tensors="pt")
        return functional.normalize(self._vision(**inputs).image_embeds, dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, d] of N texts; the end of too long ones is cut."""
        tokenizer, model = self._text
        longest = int(model.config.max_position_embeddings)
        inputs = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return functional.normalize(model(**inputs).text_embeds, dim=-1)


def clip_similarities(
    clip: ClipEncoder,
    predictions: Sequence[bytes],
    references: Sequence[bytes],
    *,
    states: Sequence[bytes] | None = None,
    captions: Sequence[str] | None = None,
    state_captions: Sequence[str] | None = None,
) -> Mapping[str, Tensor]:
    """The four CLIP measures of ByteMorph, of which AURORA-Bench reports the first.

    Args:
        clip: the encoder.
        predictions: N predicted images.
        references: N true ones.
        states: N images before the action; needed for directions.
        captions: N descriptions of the true images.
        state_captions: N descriptions of the images before.

    Returns:
        Cosines [N] each: ``clip_image`` of prediction and reference; ``clip_text`` of prediction and caption;
        ``clip_direction_image`` and ``clip_direction_text`` of what changed from state to prediction and what changed in the
        true image, or in its caption. Directions are NaN where the prediction is the state.
    """
    drawn, true = clip.images(predictions), clip.images(references)
    values = {"clip_image": (drawn * true).sum(-1)}
    before = None if states is None else clip.images(states)
    described = None if captions is None else clip.texts(captions)
    if described is not None:
        values["clip_text"] = (drawn * described).sum(-1)
    if before is not None:
        values["clip_direction_image"] = _cosine(drawn - before, true - before)
        if described is not None and state_captions is not None:
            values["clip_direction_text"] = _cosine(drawn - before, described - clip.texts(state_captions))
    return values


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """Cosines of rows [N, d]; NaN where one of them is nothing."""
    lengths = one.norm(dim=-1) * other.norm(dim=-1)
    return torch.where(lengths > 1e-6, (one * other).sum(-1) / lengths, torch.nan)
