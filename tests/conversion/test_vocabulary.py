"""A text model that learns image ids: text stays as it was, new rows are sensible, tied or not."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

pytest.importorskip("diffusers")

from swirl_lightning.cli import main
from swirl_lightning.codecs.image import load_codec
from swirl_lightning.codecs.image_models import DiffusersVQ
from tests.visual import CODES, picture, tokenizer, vq_network


@pytest.fixture(params=["tied", "untied", "padded"])
def base(request, tmp_path, monkeypatch):
    """A tiny text model; ``padded`` has more embeddings than its tokenizer has tokens."""
    monkeypatch.setenv("SWIRL_CACHE", str(tmp_path / "cache"))
    text = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(text) + (300 if request.param == "padded" else 0),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=request.param == "tied",
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "base")
    text.save_pretrained(str(tmp_path / "base"))
    DiffusersVQ(vq_network()).save(tmp_path / "codec")
    return model, tmp_path


@torch.no_grad()
@pytest.mark.parametrize("first_code", [None, 400])
def test_text_is_untouched_and_every_image_id_has_a_row(base, first_code):
    model, folder = base
    options = [] if first_code is None else ["--first_code", str(first_code)]
    out = folder / "out"
    arguments = ["--base", str(folder / "base"), "--codec", str(folder / "codec"), "--out", str(out), *options]
    assert main(["extend", *arguments]) == 0
    codec, extended = load_codec(out), AutoModelForCausalLM.from_pretrained(out).eval()
    text = len(tokenizer())
    assert codec.first_code == (text + 2 if first_code is None else first_code)
    assert extended.get_input_embeddings().num_embeddings == max(codec.first_code + CODES, model.config.vocab_size)
    prompt = torch.tensor([[5, 9, 100]])
    assert torch.allclose(extended(prompt).logits[..., :text], model(prompt).logits[..., :text], atol=1e-5)
    for table in (extended.get_input_embeddings().weight, extended.get_output_embeddings().weight):
        codes = table[codec.first_code : codec.vocab_size]
        assert 0.5 < float(codes.std() / table[:text].std()) < 2
        assert len(codes.unique(dim=0)) == CODES
    tied = extended.get_input_embeddings().weight is extended.get_output_embeddings().weight
    assert tied == model.config.tie_word_embeddings
    logits = extended(torch.tensor([codec.encode_state(picture(4, 4))])).logits
    assert torch.isfinite(logits).all()
