"""Every adapter tensor belongs to one role, is trained, checkpointed, exported and pushed; merged models compute the same."""

from dataclasses import dataclass

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from swirl_lightning.algorithm.checks import check_numbers
from swirl_lightning.conversion.export import export_role
from swirl_lightning.rollout import VllmEngine
from swirl_lightning.types import Role, SamplingParams
from swirl_lightning.world_model import REFERENCE, WorldModel, WorldModelConfig
from swirl_lightning.world_model.adapters import LoraSettings, merged
from swirl_lightning.world_model.inference import Inference
from tests.models import _COMMON, ARCHITECTURES

IDS = torch.tensor([[5, 7, 11, 13, 17, 19, 23], [29, 31, 37, 41, 43, 47, 53]])
_VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def _vision_and_text():
    text = Gemma3TextConfig(head_dim=8, sliding_window=6, **_COMMON)
    vision = {"model_type": "siglip_vision_model", "image_size": 8, "patch_size": 4, **_VISION}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))


BASES = {
    **ARCHITECTURES,
    "tied llama": lambda: LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **_COMMON)),
    "experts": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(head_dim=8, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, **_COMMON)
    ),
    "vision and text": _vision_and_text,
}
CASES = {  # base, target modules, tensors of one role
    "all linear": ("llama", "all-linear", 2 * 7 * 2),
    "attention of gpt2": ("gpt2", ["c_attn"], 2 * 1 * 2),
    "embedding": ("llama", ["embed_tokens"], 2),
    "head": ("llama", ["lm_head"], 2),
    "tied embedding": ("tied llama", ["embed_tokens"], 2),
    "tied head": ("tied llama", ["lm_head", "q_proj"], 2 + 2 * 1 * 2),
    "tied ends": ("gpt2", ["wte", "lm_head"], 4),
    "experts": ("experts", "all-linear", 2 * (4 + 2 + 1) * 2),  # with the router
    "text of a vision model": ("vision and text", "all-linear", 2 * 7 * 2),
    "projections of a vision model": ("vision and text", ["q_proj", "v_proj"], 2 * 2 * 2),
}


@dataclass
class Adapted:
    pair: WorldModel
    folder: str
    tensors: int


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def adapted(request, tmp_path_factory):
    name, modules, tensors = request.param
    folder = str(tmp_path_factory.mktemp("base"))
    torch.manual_seed(0)
    BASES[name]().eval().save_pretrained(folder)
    config = WorldModelConfig(folder, storage="adapters", lora=LoraSettings(r=4, target_modules=modules))
    pair = WorldModel(config, reference=True)
    with torch.no_grad():
        for role in (Role.FWM, Role.IDM, REFERENCE):
            for parameter in pair.role_parameters(role):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return Adapted(pair, folder, tensors)


def loss_of(pair, role):
    with pair.use(role, training=True) as model:
        return torch.log_softmax(model(input_ids=IDS).logits, -1)[:, :-1].gather(-1, IDS[:, 1:, None]).mean()


def test_every_tensor_belongs_to_one_role_and_stands_in_the_checkpoint(adapted):
    named = {name: parameter for name, parameter in adapted.pair.named_parameters() if ".lora_" in name}
    owned = [id(p) for role in (Role.FWM, Role.IDM, REFERENCE) for p in adapted.pair.role_parameters(role)]
    assert sorted(owned) == sorted(id(parameter) for parameter in named.values())
    assert len(owned) == 3 * adapted.tensors
    assert named.keys() <= adapted.pair.state_dict().keys()


@pytest.mark.parametrize("role", list(Role))
def test_every_tensor_of_a_role_is_trained_and_no_other(adapted, role):
    adapted.pair.unfreeze()
    adapted.pair.zero_grad()
    loss_of(adapted.pair, role).backward()
    mine = {id(parameter) for parameter in adapted.pair.role_parameters(role)}
    for name, parameter in adapted.pair.named_parameters():
        moves = parameter.grad is not None and bool(parameter.grad.any())
        assert moves == (id(parameter) in mine), name


def test_numbers_are_the_models_own_before_training(adapted):
    check_numbers(adapted.pair)


class NoCodec:
    def save_pretrained(self, folder):
        pass


@pytest.fixture
def inference(adapted, monkeypatch):
    monkeypatch.setattr("swirl_lightning.conversion.export.asdict", lambda value: {})
    prompts = type("Prompts", (), {"codec": NoCodec(), "templates": None, "max_prompt_tokens": 10})()
    return Inference(adapted.pair, prompts, sampling=dict.fromkeys(Role, SamplingParams()))


@pytest.mark.parametrize("role", list(Role))
def test_merged_exports_compute_what_the_run_computes(adapted, inference, role, tmp_path):
    export_role(inference, role, tmp_path / "merged")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    with adapted.pair.use(role) as model, torch.no_grad():
        own = model(input_ids=IDS).logits
        torch.testing.assert_close(read(input_ids=IDS).logits, own, atol=1e-5, rtol=1e-5)
    with adapted.pair.use(role.opposite) as model, torch.no_grad():
        assert float((model(input_ids=IDS).logits - own).abs().max()) > 1e-3


def test_every_tensor_is_in_the_adapter_that_is_exported_and_in_that_which_is_pushed(adapted, inference, tmp_path, monkeypatch):
    export_role(inference, Role.IDM, tmp_path / "adapter", adapter_only=True)
    engine = VllmEngine(folder=str(tmp_path / "pushed"))
    monkeypatch.setattr(engine, "_ask", lambda path, body: {})
    with adapted.pair.use(Role.IDM) as model:
        pushed = tmp_path / "pushed" / engine._push(model)
    found = []
    for folder in (tmp_path / "adapter", pushed):
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            found.append({key: file.get_tensor(key) for key in file.keys() if ".lora_" in key})  # noqa: SIM118
    assert len(found[0]) == adapted.tensors
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][key]) for key, tensor in found[0].items())


def test_a_merge_that_changes_what_the_model_computes_is_refused(adapted, monkeypatch):
    adapted.pair.causal_lm(Role.FWM)
    values = iter([torch.zeros(1), torch.full((1,), 2e-5)])
    monkeypatch.setattr("swirl_lightning.world_model.adapters._some_logits", lambda model: next(values))
    with pytest.raises(ValueError, match=r"changes logits by 2e-05 .* --adapter_only"):
        merged(adapted.pair.models["base"])


def test_tensors_that_belong_to_no_role_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("swirl_lightning.world_model.adapters.adapter_key", lambda name, adapter: None)
    torch.manual_seed(0)
    BASES["llama"]().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="belongs to no role"):
        WorldModel(WorldModelConfig(str(tmp_path), storage="adapters"))
