"""Tiny random-weight models of many architectures, a line each: a model type and what its configuration needs."""

import torch
from transformers import CONFIG_MAPPING

from swirl_lightning.world_model.loading import kind_of

VOCAB = 120
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "max_position_embeddings": 128,
    "sliding_window": 6,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "state_size": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_expand": 2,
}
"""Given to every configuration that knows them."""
_SLIDING = {"layer_types": ["sliding_attention", "full_attention"]}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "head_dim": 4}
_LATENT |= {"num_key_value_heads": 4}
_EXPERT_GROUPS = {"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
_CHOSEN = {"index_head_dim": 8, "index_n_heads": 16, "index_topk": 12}  # few heads give many keys a score of exactly 0
_PER_LAYER = {"vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 8}
_LINEAR = {"layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_LINEAR |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
_SCALED = {"logits_scaling": 4.0, "attention_multiplier": 0.3, "residual_multiplier": 0.5}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
_DECODER = {"is_decoder": True}
_HYBRID = {"layers_block_type": ["mamba", "hybrid"], "attention_hidden_size": 64, "attention_head_dim": 16}

FAMILIES = {
    # full and sliding-window attention
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {},
    "ministral": {},
    "gemma": {},
    "gemma2": _SLIDING,
    "gemma3_text": _SLIDING,
    "vaultgemma": _SLIDING,
    "gpt_oss": _SLIDING,
    "granite": {**_SCALED, "embedding_multiplier": 3.0},
    "granite_swa": {},
    "cohere": {"logit_scale": 0.25},
    "cohere2": _SLIDING,
    "hyperclovax": _SCALED,
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "phi": {},
    "phi3": {},
    "smollm3": {},
    "starcoder2": {},
    "stablelm": {},
    "exaone4": _SLIDING,
    "seed_oss": {},
    "glm": {},
    "glm4": {},
    "helium": {},
    "nemotron": {},
    "apertus": {},
    "arcee": {},
    "ernie4_5": {},
    "hunyuan_v1_dense": {},
    "nanochat": {},
    "bitnet": {},
    "cwm": {},
    "diffllama": {},
    "doge": {},
    "persimmon": {},
    "gemma3n_text": {
        **_SLIDING,
        **_PER_LAYER,
        "num_kv_shared_layers": 0,
        "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.0] * 2,
    },
    "gemma4_text": {**_SLIDING, **_PER_LAYER},
    "ministral3": {},
    "jais2": {},
    "internlm3": {},
    "mellum": {},
    "laguna": {},
    "flint": {},
    "beam": {},
    # mixtures of experts
    "mixtral": {},
    "qwen2_moe": {},
    "qwen3_moe": {},
    "olmoe": {},
    "granitemoe": {"logits_scaling": 4.0},
    "granitemoeshared": {"logits_scaling": 4.0, "shared_intermediate_size": 32},
    "phimoe": {},
    "ernie4_5_moe": {},
    "glm4_moe": {},
    "dots1": {"n_shared_experts": 1, **_EXPERT_GROUPS},
    "hunyuan_v1_moe": {},
    "minimax_m2": {},
    "jetmoe": {},
    "llama4_text": {
        "attention_chunk_size": 6,
        "intermediate_size_mlp": 64,
        "layer_types": ["chunked_attention", "full_attention"],
    },
    "afmoe": {},
    "aria_text": {},
    "cohere2_moe": {},
    "exaone_moe": {},
    "flex_olmo": {},
    "granitemoe_swa": {},
    "hy_v3": {},
    "kolibri1": {},
    "mimo_v2_flash": {},
    "solar_open": {},
    # latent attention
    "deepseek_v2": {**_LATENT, "first_k_dense_replace": 1},
    "deepseek_v3": {**_LATENT, **_EXPERT_GROUPS},
    "minicpm3": _LATENT,
    "glm4_moe_lite": {**_LATENT, **_EXPERT_GROUPS},
    "longcat_flash": _LATENT,
    "youtu": _LATENT,
    # attention to chosen or compressed keys
    "deepseek_v32": {**_LATENT, **_EXPERT_GROUPS, **_CHOSEN},
    "glm_moe_dsa": {**_LATENT, **_EXPERT_GROUPS, **_CHOSEN},
    "axk2": {**_LATENT, **_EXPERT_GROUPS, **_CHOSEN},
    "minimax_m3_vl_text": {
        "layer_types": ["minimax_m3_sparse", "full_attention"],
        "index_head_dim": 8,
        "index_n_heads": 2,
        "index_topk_blocks": 2,
        "index_block_size": 4,
    },
    "deepseek_v4": {"index_head_dim": 8, "index_n_heads": 8, "max_position_embeddings": 256},
    # linear attention, convolution, state space
    "qwen3_5_text": _LINEAR,
    "qwen3_next": _LINEAR,
    "qwen3_5_moe_text": _LINEAR,
    "lfm3": {},
    "zaya": {"num_experts_per_tok": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_chunk_size": 8},
    "mamba": {},
    "mamba2": {"num_heads": 4, "head_dim": 16, "chunk_size": 8, "n_groups": 2},
    "falcon_mamba": {},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "mamba_dt_rank": 4},
    "bamba": {"attn_layer_indices": [1], "mamba_chunk_size": 8},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "mamba_chunk_size": 8, "shared_intermediate_size": 32},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2},
    "zamba": {**_HYBRID, "num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2, "mamba_dt_rank": 4},
    "zamba2": {**_HYBRID, "mamba_ngroups": 1, "mamba_headdim": 16, "n_mamba_heads": 4, "chunk_size": 8, "num_mem_blocks": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 6},
    "minimax": {"layer_types": ["linear_attention", "full_attention"], "block_size": 4},
    "rwkv": {},
    "xlstm": {},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "olmo_hybrid": {"layer_types": ["linear_attention", "full_attention"]},
    # older ones
    "gpt2": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 6},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "gpt_bigcode": {},
    "codegen": {"rotary_dim": 4},
    "bloom": {},
    "mpt": {},
    "falcon": {"head_dim": None},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64},
    "openai-gpt": {},
    "xglm": {"ffn_dim": 64},
    "biogpt": {},
    "xlm": {},
    "modernbert-decoder": {},
    "ctrl": {},
    "gpt_neox_japanese": {},
    "bert": _DECODER,
    "roberta": _DECODER,
    "bert-generation": _DECODER,
    "electra": _DECODER,
    "xlm-roberta": _DECODER,
    "roformer": _DECODER,
    # vision-language models, of which the language model is used
    "gemma3": {},
    "qwen2_vl": _MROPE,
    "qwen2_5_vl": _MROPE,
    "qwen3_vl": {},
    "qwen3_vl_moe": {},
    "glm4v": _MROPE,
    "smolvlm": {},
    "idefics3": {},
    "llava": {},
    "paligemma": {},
    "internvl": {},
    "mistral3": {},
    "aya_vision": {},
    "deepseek_vl": {},
    "exaone4_5": {},
    "lfm2_vl": {},
}


_VISION_TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "depth": 1,
    "num_attention_heads": 2,
    "num_heads": 2,
    "embed_dim": 16,
    "out_hidden_size": 32,
    "image_size": 16,
    "patch_size": 8,
}
"""Of a vision tower, which reads no text."""


def _known(config, common):
    names = config.to_dict()  # of some, asking for an attribute raises where layers differ in it
    return {key: value for key, value in common.items() if key in names or hasattr(config, key)}


def _config(name, changes):
    kind = CONFIG_MAPPING[name]
    known = kind()
    if "text_config" not in kind.sub_configs:
        given = {**_known(known, _COMMON), **FAMILIES[name], **changes}
        return kind(**{key: value for key, value in given.items() if value is not None})
    text, vision = known.text_config, known.vision_config
    text_config = {**_known(text, _COMMON), **FAMILIES.get(text.model_type, {}), **FAMILIES[name], **changes}
    kinds = {part: {"model_type": config.model_type} for part, config in (("text_config", text), ("vision_config", vision))}
    return kind(
        text_config=text_config | kinds["text_config"], vision_config=_known(vision, _VISION_TOWER) | kinds["vision_config"]
    )


def tiny(name, *, attention=None, **changes):
    """A small model with weights large enough that every part of it shows in its logits."""
    config = _config(name, changes)
    torch.manual_seed(0)
    model = kind_of(config, name).from_config(config, attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.08 * torch.randn(parameter.shape, generator=generator))
    return model


REFUSED = ("xlm",)
"""Families with which no way of scoring agrees; a fit with one stops before it trains."""
