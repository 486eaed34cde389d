"""A random checkpoint in the taming layout against the computation as it is written down, block by block."""

import pytest
import torch
import torch.nn.functional as F
import yaml

diffusers = pytest.importorskip("diffusers")

from swirl_lightning.cli import main  # noqa: E402
from swirl_lightning.codecs.image_models import load_image_model  # noqa: E402
from swirl_lightning.conversion.taming import convert_taming, load_weights  # noqa: E402

CH, MULT, BLOCKS, Z, EMBED, CODES, SIDE = 32, (1, 2), 1, 8, 6, 20, 16
CONFIG = {
    "model": {
        "target": "taming.models.vqgan.VQModel",
        "params": {
            "embed_dim": EMBED,
            "n_embed": CODES,
            "ddconfig": {
                "double_z": False,
                "z_channels": Z,
                "resolution": SIDE,
                "in_channels": 3,
                "out_ch": 3,
                "ch": CH,
                "ch_mult": list(MULT),
                "num_res_blocks": BLOCKS,
                "attn_resolutions": [SIDE // 2],
                "dropout": 0.0,
            },
        },
    }
}


class Weights(dict):
    """Random weights by taming name, made when the computation first asks for them."""

    def conv(self, name, out, into, k):
        if name + ".weight" not in self:
            self[name + ".weight"] = torch.randn(out, into, k, k) / (into * k * k) ** 0.5
            self[name + ".bias"] = 0.1 * torch.randn(out)
        return self[name + ".weight"], self[name + ".bias"]

    def norm(self, name, channels):
        if name + ".weight" not in self:
            self[name + ".weight"], self[name + ".bias"] = 1 + 0.1 * torch.randn(channels), 0.1 * torch.randn(channels)
        return self[name + ".weight"], self[name + ".bias"]


def swish(x):
    return x * torch.sigmoid(x)


def norm(w, name, x):
    return F.group_norm(x, 32, *w.norm(name, x.shape[1]), eps=1e-6)


def block(w, name, x, out):
    h = F.conv2d(swish(norm(w, f"{name}.norm1", x)), *w.conv(f"{name}.conv1", out, x.shape[1], 3), padding=1)
    h = F.conv2d(swish(norm(w, f"{name}.norm2", h)), *w.conv(f"{name}.conv2", out, out, 3), padding=1)
    if x.shape[1] != out:
        x = F.conv2d(x, *w.conv(f"{name}.nin_shortcut", out, x.shape[1], 1))
    return x + h


def attention(w, name, x):
    b, c, height, width = x.shape
    h = norm(w, f"{name}.norm", x)
    q, k, v = (F.conv2d(h, *w.conv(f"{name}.{part}", c, c, 1)).flatten(2) for part in "qkv")  # [b, c, n]
    weights = torch.softmax(q.transpose(1, 2) @ k * c**-0.5, dim=-1)  # [b, n, n]
    h = (v @ weights.transpose(1, 2)).view(b, c, height, width)
    return x + F.conv2d(h, *w.conv(f"{name}.proj_out", c, c, 1))


def middle(w, half, x):
    x = block(w, f"{half}.mid.block_1", x, x.shape[1])
    return block(w, f"{half}.mid.block_2", attention(w, f"{half}.mid.attn_1", x), x.shape[1])


def encode(w, image):
    x = F.conv2d(image, *w.conv("encoder.conv_in", CH, 3, 3), padding=1)
    for level, factor in enumerate(MULT):
        for j in range(BLOCKS):
            x = block(w, f"encoder.down.{level}.block.{j}", x, CH * factor)
            if x.shape[-1] == SIDE // 2:
                x = attention(w, f"encoder.down.{level}.attn.{j}", x)
        if level + 1 < len(MULT):
            down = w.conv(f"encoder.down.{level}.downsample.conv", CH * factor, CH * factor, 3)
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), *down, stride=2)
    x = swish(norm(w, "encoder.norm_out", middle(w, "encoder", x)))
    x = F.conv2d(x, *w.conv("encoder.conv_out", Z, x.shape[1], 3), padding=1)
    return F.conv2d(x, *w.conv("quant_conv", EMBED, Z, 1))


def codes_of(w, latents):
    flat = latents.permute(0, 2, 3, 1).reshape(-1, EMBED)
    book = w["quantize.embedding.weight"]
    distance = (flat**2).sum(1, keepdim=True) + (book**2).sum(1) - 2 * flat @ book.T
    return distance.argmin(1).view(len(latents), -1)


def decode(w, codes):
    side = SIDE // 2 ** (len(MULT) - 1)
    x = w["quantize.embedding.weight"][codes].view(-1, side, side, EMBED).permute(0, 3, 1, 2)
    x = F.conv2d(x, *w.conv("post_quant_conv", Z, EMBED, 1))
    x = middle(w, "decoder", F.conv2d(x, *w.conv("decoder.conv_in", CH * MULT[-1], Z, 3), padding=1))
    for level in reversed(range(len(MULT))):
        for j in range(BLOCKS + 1):
            x = block(w, f"decoder.up.{level}.block.{j}", x, CH * MULT[level])
            if x.shape[-1] == SIDE // 2:
                x = attention(w, f"decoder.up.{level}.attn.{j}", x)
        if level:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = F.conv2d(x, *w.conv(f"decoder.up.{level}.upsample.conv", x.shape[1], x.shape[1], 3), padding=1)
    x = swish(norm(w, "decoder.norm_out", x))
    return F.conv2d(x, *w.conv("decoder.conv_out", 3, x.shape[1], 3), padding=1)


@pytest.fixture
def original(tmp_path):
    """The weights, and a folder with ``vqgan.ckpt`` and ``vqgan.yaml``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = Weights({"quantize.embedding.weight": torch.randn(CODES, EMBED)})
        decode(weights, codes_of(weights, encode(weights, torch.zeros(1, 3, SIDE, SIDE))))
    saved = {**weights, "loss.discriminator.main.0.weight": torch.zeros(3)}
    torch.save({"state_dict": saved, "global_step": 7}, tmp_path / "vqgan.ckpt")
    (tmp_path / "vqgan.yaml").write_text(yaml.safe_dump(CONFIG))
    return weights, tmp_path


@torch.no_grad()
def test_codes_and_pixels_are_those_of_the_original_computation(original):
    weights, folder = original
    files = ["--checkpoint", str(folder / "vqgan.ckpt"), "--configuration", str(folder / "vqgan.yaml")]
    assert main(["convert", "vqgan", *files, "--out", str(folder / "codec")]) == 0
    model = load_image_model(folder / "codec")
    assert (model.size, model.grid, model.codes) == (SIDE, SIDE // 2, CODES)
    images = torch.randint(0, 256, (5, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    latents = encode(weights, images.float() / 127.5 - 1)
    assert torch.allclose(model.network.encode(images.float() / 127.5 - 1).latents, latents, atol=1e-4)
    codes = model.encode(images)
    assert torch.equal(codes, codes_of(weights, latents))
    assert len(codes.unique()) > 3
    expected = ((decode(weights, codes).clamp(-1, 1) + 1) * 127.5).round()
    assert (model.decode(codes).float() - expected).abs().max() <= 1


def test_a_round_trip_through_files_is_exact(original):
    _, folder = original
    convert_taming(folder / "vqgan.ckpt", folder / "vqgan.yaml", folder / "codec")
    network = diffusers.VQModel.from_pretrained(folder / "codec")
    network.save_pretrained(str(folder / "again"))
    again = diffusers.VQModel.from_pretrained(folder / "again")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    assert load_image_model(folder / "codec").key == load_image_model(folder / "again").key


def test_weights_that_do_not_fit_the_configuration_are_named(original):
    _, folder = original
    config = yaml.safe_load((folder / "vqgan.yaml").read_text())
    config["model"]["params"]["n_embed"] = 99
    (folder / "vqgan.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"weight quantize\.embedding\.weight is \(20, 6\), but .* asks for \(99, 6\)"):
        convert_taming(folder / "vqgan.ckpt", folder / "vqgan.yaml", folder / "codec")
    (folder / "vqgan.yaml").write_text("model: {params: {n_embed: 3}}")
    with pytest.raises(ValueError, match="'ddconfig' is missing"):
        convert_taming(folder / "vqgan.ckpt", folder / "vqgan.yaml", folder / "codec")


class Anything:
    """An object that a checkpoint must not be able to bring along."""


def test_a_checkpoint_that_holds_more_than_weights_is_refused(tmp_path):
    torch.save({"state_dict": {}, "callbacks": Anything()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="cannot be loaded as weights alone"):
        load_weights(tmp_path / "evil.ckpt")
