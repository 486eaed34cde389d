"""Measures of predicted images: of pixels, and of the world that they show."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from typing_extensions import override

from swirl_lightning.codecs.image_pixels import pixels
from swirl_lightning.metrics.text import MeanOf

Reader = Callable[[bytes], Sequence[Hashable]]


class DecodedSuccess(MeanOf):
    """Share of predicted images that show exactly the world that was observed.

    Args:
        reader: ``module:function`` that reads the parts of a world out of an encoded image, e.g.
            ``swirl_lightning.environments.visual.minigrid_images:read_cells``.
        cells: Count parts one by one instead of whole images.
        **kwargs: of a torchmetrics ``Metric``.
    """

    def __init__(self, reader: str, cells: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        module, _, name = reader.partition(":")
        self._read: Reader = getattr(importlib.import_module(module), name)
        self._cells = cells

    @override
    def update(self, rendered: Sequence[bytes], observed: Sequence[bytes]) -> None:
        """Adds predictions (PNG bytes) and what was observed."""
        for predicted, true in zip(rendered, observed, strict=True):
            same = [a == b for a, b in zip(self._read(predicted), self._read(true), strict=True)]
            self.total += sum(same) if self._cells else float(all(same))
            self.count += len(same) if self._cells else 1


class ImageSimilarity(MeanOf):
    """Mean PSNR (decibels, at most 100) or SSIM of predicted images, at the size of the prediction.

    Args:
        measure: ``psnr`` or ``ssim``.
        **kwargs: of a torchmetrics ``Metric``.
    """

    def __init__(self, measure: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if measure not in ("psnr", "ssim"):
            raise ValueError(f"ImageSimilarity.measure must be psnr or ssim, got {measure!r}")
        self._measure = measure

    @override
    def update(self, rendered: Sequence[bytes], observed: Sequence[bytes]) -> None:
        """Adds predictions (PNG bytes) and what was observed."""
        for predicted, true in zip(rendered, observed, strict=True):
            first = pixels(predicted, None)
            second = pixels(true, min(first.shape[:2]))
            pair = torch.from_numpy(np.stack([first, second])).permute(0, 3, 1, 2).float()  # [2, 3, S, S]
            if self._measure == "ssim":
                value = float(structural_similarity_index_measure(pair[:1], pair[1:], data_range=(0.0, 255.0)))  # type: ignore[arg-type]
            elif torch.equal(pair[0], pair[1]):
                value = 100.0
            else:
                value = min(100.0, float(peak_signal_noise_ratio(pair[:1], pair[1:], data_range=(0.0, 255.0))))
            self.total += value
            self.count += 1
