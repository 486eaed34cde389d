"""CodecModule: trains a small image codec (a VQ-VAE, arXiv:1711.00937) on the frames of a world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam
from torchmetrics import MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from typing_extensions import override

from swirl_lightning.codecs.image_models import join_tiles, split_tiles, write_tiles
from swirl_lightning.codecs.image_pixels import to_png
from swirl_lightning.internals import vq_model
from swirl_lightning.metrics.images import DecodedSuccess

SHOWN = 16  # reconstructions in the picture
_KEPT_BATCHES = 32  # whose latents are clustered


def _adam(parameters: Any) -> Adam:
    return Adam(parameters, lr=2e-3, betas=(0.9, 0.99))


class CodecModule(L.LightningModule):
    """``diffusers.VQModel`` with reconstruction and codebook losses.

    Training begins without the codebook, as a plain autoencoder. Its latents are then clustered (k-means with D^2 seeding,
    which favours what is far from everything else), since a codebook that starts at random spends its codes on walls and
    leaves small things out. Codes that nothing uses are set anew, again to latents far from every code.

    A code sees its surroundings, so what happens in one cell can change the codes of others, which no action explains and no
    model can predict. With ``tile`` it cannot: each tile of an image is encoded and decoded by itself, and batches are of tiles
    (``FrameDataModule`` with the same ``tile``).

    Args:
        size: Side of the images, pixels.
        codes: Size of the codebook.
        channels: Width of each resolution; every one after the first halves the side, so the grid is
            ``size / 2 ** (len(channels) - 1)``.
        code_dim: Length of a code's vector.
        layers: Residual blocks of a resolution.
        norm_groups: Groups of the group norms; divides every width.
        attention: Attention over the whole grid in the middle. Without it a code sees its surroundings only.
        commitment: Weight of the commitment loss.
        tile: Side of the tiles, pixels; None encodes images as a whole.
        crop: Side of the squares that training sees first, half of them where a transition changes the image; None for whole
            images, and with ``tile``. What is rare in an image is frequent in small squares.
        cropped: Share of the steps that see squares; whole images follow.
        hard_share: Share of a batch's pixels, the worst ones, that count once more: small things would be left out otherwise.
        continuous: Share of the steps before the codebook comes in.
        restart_every: Steps after which codes that were not used since become latents of the batch.
        optimizer: Optimizer of all parameters.
        warmup_steps: Steps over which the learning rate rises; it then falls by a cosine to the end of training.
        reader: ``module:function`` that reads the parts of a world out of an encoded image, as of ``DecodedSuccess``:
            validation then measures how often a reconstruction still shows the right part, and the whole world. None: it
            does not.
    """

    def __init__(
        self,
        size: int = 64,
        codes: int = 256,
        channels: Sequence[int] = (8, 16, 32, 64),
        code_dim: int = 8,
        layers: int = 1,
        norm_groups: int = 4,
        attention: bool = False,
        commitment: float = 0.25,
        tile: int | None = None,
        crop: int | None = None,
        cropped: float = 0.4,
        hard_share: float = 0.02,
        continuous: float = 0.4,
        restart_every: int = 50,
        optimizer: OptimizerCallable = _adam,
        warmup_steps: int = 20,
        reader: str | None = None,
    ) -> None:
        super().__init__()
        side = size if tile is None else tile
        if size % side or side % 2 ** (len(channels) - 1):
            cut = "" if tile is None else f"cut into tiles of {tile} pixels that can be "
            many = len(channels)
            raise ValueError(f"size={size} cannot be {cut}halved {many - 1} times: channels has {many} widths")
        if tile is not None and crop is not None:
            raise ValueError(f"crop={crop} cuts squares out of whole images; tile={tile} trains on tiles: set one of them")
        self.network: Any = vq_model()(
            sample_size=side,
            num_vq_embeddings=codes,
            vq_embed_dim=code_dim,
            latent_channels=code_dim,
            block_out_channels=tuple(channels),
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            layers_per_block=layers,
            norm_num_groups=norm_groups,
            mid_block_add_attention=attention,
        )
        self.network.quantize.legacy = False  # ``beta`` then weighs the commitment, as the paper has it
        self.network.quantize.beta = commitment
        self.size, self.tile = size, tile
        self.cell = 2 ** (len(channels) - 1)  # pixels of the side that a code stands for
        self.crop, self.cropped = crop, cropped
        self.hard_share, self.continuous = hard_share, continuous
        self.restart_every, self.warmup_steps = restart_every, warmup_steps
        self._optimizer = optimizer
        self.register_buffer("used", torch.zeros(codes, dtype=torch.long), persistent=False)
        self.used: Tensor
        similarity: dict[str, Any] = {
            "psnr": PeakSignalNoiseRatio(data_range=(0.0, 255.0)),
            "ssim": StructuralSimilarityIndexMeasure(data_range=(0.0, 255.0)),
        }
        self.similarity = MetricCollection(similarity, prefix="val/")
        read = {"cells_right": True, "worlds_right": False} if reader is not None else {}
        self.readings = MetricCollection(
            {name: DecodedSuccess(str(reader), cells=cells) for name, cells in read.items()},  # type: ignore[arg-type]
            prefix="val/",
            compute_groups=False,
        )
        self._shown: list[Tensor] = []
        self._latents: list[Tensor] = []  # of the last batches before the codebook comes in

    @override
    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.network.parameters())
        total = max(1, int(self.trainer.estimated_stepping_batches))

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
            return rise * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * min(1.0, step / total)))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _pass(self, images: Tensor, quantised: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Reconstruction [N, 3, S, S], codebook loss, codes [N * g * g], latents [N, g, g, d] of images in [-1, 1]."""
        latents = self.network.encode(images).latents
        entries, loss, (_, _, codes) = self.network.quantize(latents)
        if not quantised:
            entries, loss = latents, loss.new_zeros(())
        image = self.network.decoder(self.network.post_quant_conv(entries), None)
        return image, loss, codes, latents.permute(0, 2, 3, 1)

    def _rebuilt(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions [N, 3, S, S], about [-1, 1], and codes [N, g, g] of images uint8 [N, 3, S, S]."""
        pieces = images if self.tile is None else split_tiles(images, self.tile)
        image, _, codes, latents = self._pass(pieces.float() / 127.5 - 1)
        codes = codes.view(latents.shape[:3])
        if self.tile is None:
            return image, codes
        count = self.size // self.tile
        return join_tiles(image, count), join_tiles(codes[:, None], count)[:, 0]

    def _same(self, images: Tensor, others: Tensor) -> Tensor:
        """Whether a cell's pixels are the same in both images [N, 3, S, S], bool [N, g, g]."""
        differ = (images != others).any(1).float()  # [N, S, S]
        return functional.max_pool2d(differ, self.cell) == 0

    @override
    def training_step(self, batch: Tensor | tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        total = self.trainer.estimated_stepping_batches
        first = int(self.continuous * total)  # step at which the codebook comes in
        if isinstance(batch, Tensor):
            images = batch  # tiles
        else:
            images, _, places = batch
            if self.crop is not None and self.global_step < int(self.cropped * total):
                images = self._crop(images, places)
        images = images.float() / 127.5 - 1
        image, codebook, codes, latents = self._pass(images, quantised=self.global_step >= first)
        loss: Tensor = self._reconstruction(image, images) + codebook
        latents = latents.detach().flatten(0, 2)
        if self.global_step < first:
            self._latents = [*self._latents[1 - _KEPT_BATCHES :], latents]
            if self.global_step + 1 == first:
                self.network.quantize.embedding.weight.data.copy_(cluster(torch.cat(self._latents), len(self.used)))
                self._latents = []
        else:
            self.used += torch.bincount(codes, minlength=len(self.used))
            if (self.global_step - first + 1) % self.restart_every == 0 and self.global_step < 0.8 * total:
                self._restart(latents)
        self.log_dict({"train/loss": loss, "train/codebook": codebook}, batch_size=len(images))
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=len(images))
        return loss

    def _crop(self, images: Tensor, places: Tensor) -> Tensor:
        """Squares of images [N, C, S, S], on the grid of codes: half hold the image's place [N, 2], half are anywhere."""
        assert self.crop is not None
        cell = self.cell
        width, room = self.crop // cell, (images.shape[-1] - self.crop) // cell  # in cells
        anywhere = torch.randint(room + 1, places.shape, device=places.device)
        holding = (places // cell - torch.randint(width, places.shape, device=places.device)).clamp(0, room)
        corners = torch.where(torch.rand(len(places), 1, device=places.device) < 0.5, holding, anywhere) * cell
        squares = zip(images, corners.tolist(), strict=True)
        return torch.stack([image[:, y : y + self.crop, x : x + self.crop] for image, (y, x) in squares])

    def _reconstruction(self, image: Tensor, target: Tensor) -> Tensor:
        """Mean absolute plus squared error, and that of the worst pixels on top (hard example mining, arXiv:1604.03540)."""
        difference = image - target
        error = (difference.abs() + difference**2).mean(1)  # [N, S, S]
        worst = error.flatten().topk(max(1, int(self.hard_share * error.numel()))).values
        return error.mean() + worst.mean()

    @torch.no_grad()
    def _restart(self, latents: Tensor) -> None:
        """Gives codes that were not used since the last call a latent of [N, d] each, those far from any code first."""
        unused = (self.used == 0).nonzero()[:, 0]
        weight = self.network.quantize.embedding.weight
        if len(unused):
            far = torch.cdist(latents, weight).amin(1) ** 2 + 1e-12
            weight[unused] = latents[torch.multinomial(far, len(unused), replacement=len(latents) < len(unused))]
        self.log("train/restarted", float(len(unused)))
        self.used.zero_()

    @override
    def on_validation_epoch_start(self) -> None:
        self.similarity.reset()
        self.readings.reset()
        self.seen = torch.zeros_like(self.used)
        self._kept = [0, 0]  # cells whose pixels stay as they are: those that keep their code, all
        self._shown = []

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        images, others, _ = batch
        image, codes = self._rebuilt(images)
        rebuilt = ((image.clamp(-1, 1) + 1) * 127.5).round()
        self.similarity.update(rebuilt, images.float())
        if len(self.readings):
            self.readings.update(_encoded(rebuilt), _encoded(images))
        same = self._same(images, others)
        kept = (codes == self._rebuilt(others)[1])[same]
        self._kept = [self._kept[0] + int(kept.sum()), self._kept[1] + kept.numel()]
        self.seen += torch.bincount(codes.flatten(), minlength=len(self.seen))
        room = SHOWN - sum(len(rows) for rows in self._shown)
        if room > 0:
            self._shown.append(torch.stack([images[:room], rebuilt[:room].to(torch.uint8)], 1))  # [n, 2, 3, S, S]

    @override
    def on_validation_epoch_end(self) -> None:
        share = self.seen.float() / self.seen.sum().clamp(min=1)
        entropy = -(share * share.clamp(min=1e-12).log()).sum()
        self.log_dict(self.similarity.compute())
        self.log_dict(self.readings.compute())
        self.log("val/codes_kept", self._kept[0] / max(1, self._kept[1]))
        self.log_dict({"val/codes_used": (self.seen > 0).float().sum(), "val/code_perplexity": entropy.exp()})
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger) and self._shown:
                logger.experiment.add_image("reconstructions", self.picture(), self.global_step)

    def picture(self) -> Tensor:
        """Validation frames above their reconstructions, uint8 [3, 2 * S, N * S]; N = 16 at most."""
        return torch.cat([torch.cat(list(row), 1) for row in torch.cat(self._shown)], 2)

    def save(self, folder: str | Path) -> None:
        """Writes the network as ``VQModel.from_pretrained`` and ``swirl init --codec`` read it."""
        self.network.save_pretrained(str(folder), safe_serialization=True)
        if self.tile is not None:
            write_tiles(Path(folder), self.size)


def _encoded(images: Tensor) -> list[bytes]:
    """PNG bytes of images [N, 3, S, S] with values 0 to 255."""
    return [to_png(image) for image in images.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()]


@torch.no_grad()
def cluster(points: Tensor, k: int, rounds: int = 8) -> Tensor:
    """Centres of k-means with D^2 seeding (k-means++): far points are likely seeds, however rare they are.

    Args:
        points: [N, d].
        k: number of centres.
        rounds: of Lloyd's algorithm.

    Returns:
        Centres [k, d]; duplicates of points where there are fewer than k distinct ones.
    """
    centres = points[torch.randint(len(points), (1,), device=points.device)]  # [1, d]
    nearest = ((points - centres) ** 2).sum(1)  # [N]
    for _ in range(k - 1):
        pick = torch.multinomial(nearest + 1e-12, 1)
        centres = torch.cat([centres, points[pick]])
        nearest = torch.minimum(nearest, ((points - points[pick]) ** 2).sum(1))
    for _ in range(rounds):
        owner = torch.cdist(points, centres).argmin(1)
        count = torch.bincount(owner, minlength=k).clamp(min=1)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        empty = torch.bincount(owner, minlength=k) == 0
        centres = torch.where(empty[:, None], centres, sums / count)
    return centres
