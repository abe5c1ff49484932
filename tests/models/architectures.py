"""Tiny random models of decoder families: two layers of width 32, weights large enough that every layer matters."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY, CONTEXT, WINDOW = 128, 64, 8

# Each family takes those that its configuration knows, under its own names or transformers' common ones.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "max_seq_len": CONTEXT,
    "sliding_window": WINDOW,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_intermediate_size": 24,
    "n_group": 1,
    "topk_group": 1,
}


def known(model_type: str) -> dict[str, Any]:
    """The part of `SIZES` that a family's configuration has."""
    kind = CONFIG_MAPPING[model_type]
    names = {*inspect.signature(kind.__init__).parameters, *kind.attribute_map}
    return {name: size for name, size in SIZES.items() if name in names}


@dataclass(frozen=True)
class Family:
    """One decoder family: transformers' `model_type`, what its tiny configuration has besides `SIZES`, whether it is
    tested by default, whether it reads packed rows, and the message of each step that is refused."""

    model_type: str
    sizes: dict[str, Any] = field(default_factory=dict)
    default: bool = False
    packs: bool = True
    refused: dict[str, str] = field(default_factory=dict)

    def config(self) -> Any:
        """The tiny configuration."""
        return AutoConfig.for_model(self.model_type, **{**known(self.model_type), **self.sizes})

    def build(self, seed: int = 0) -> PreTrainedModel:
        """A random model, in evaluation mode."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(self.config()).eval()
            for weight in model.parameters():
                weight.add_((0.2 if weight.ndim > 1 else 0.05) * torch.randn(weight.shape))
        return model


LATENT: dict[str, Any] = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
    "head_dim": 4,
    "first_k_dense_replace": 1,
}
MAMBA: dict[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
DELTA: dict[str, Any] = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 24,
    "layer_types": ["linear_attention", "full_attention"],
}
JAMBA: dict[str, Any] = {
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "mamba_d_state": 8,
    "mamba_dt_rank": 4,
}
ZAMBA: dict[str, Any] = {
    "layer_types": ["mamba", "hybrid"],
    "hybrid_layer_ids": [1],
    "mamba_d_state": 8,
    "n_mamba_heads": 4,
    "mamba_headdim": 16,
    "mamba_ngroups": 1,
    "chunk_size": 8,
    "num_mem_blocks": 1,
    "attention_head_dim": 16,
    "adapter_rank": 4,
}
LONG: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "factor": 2.0,
    },
    "original_max_position_embeddings": CONTEXT // 2,
}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"]}
VISION: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    },
    "mm_tokens_per_image": 4,
    "image_token_index": 120,
    "boi_token_index": 121,
    "eoi_token_index": 122,
}

EXPERTS = {"fila": "stacks the matrices of several experts"}

FAMILIES = {
    "llama": Family("llama", default=True),
    "qwen3": Family("qwen3", default=True),
    "mixtral": Family("mixtral", default=True, refused=EXPERTS),
    "mistral": Family("mistral", default=True),
    "gemma3_text": Family("gemma3_text", ALTERNATING, default=True),
    "gemma3": Family("gemma3", {"text_config": {**known("gemma3_text"), **ALTERNATING}, **VISION}, default=True),
    "phi3, longrope": Family("phi3", LONG, default=True),
    "gpt2": Family("gpt2", default=True),
    "opt": Family("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, default=True),
    "bloom": Family("bloom", default=True, packs=False),
    "mamba": Family("mamba", default=True, packs=False),
    "lfm2": Family(
        "lfm2",
        {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
        default=True,
        packs=False,
    ),
    "apertus": Family("apertus"),
    "bamba": Family("bamba", {**MAMBA, "attn_layer_indices": [1]}, packs=False),
    "biogpt": Family("biogpt"),
    "codegen": Family("codegen", {"rotary_dim": 4}),
    "cohere": Family("cohere"),
    "cohere2": Family("cohere2"),
    "deepseek_v2": Family("deepseek_v2", LATENT, refused=EXPERTS),
    "deepseek_v3": Family("deepseek_v3", LATENT, refused=EXPERTS),
    "ernie4_5": Family("ernie4_5"),
    "ernie4_5_moe": Family("ernie4_5_moe", refused=EXPERTS),
    "exaone4": Family("exaone4"),
    "falcon": Family("falcon"),
    "falcon, alibi": Family(
        "falcon", {"alibi": True, "new_decoder_architecture": False, "multi_query": False}, packs=False
    ),
    "falcon_h1": Family("falcon_h1", {**MAMBA, "mamba_d_ssm": 64}, packs=False),
    "falcon_mamba": Family("falcon_mamba", packs=False),
    "gemma": Family("gemma"),
    "gemma2": Family("gemma2"),
    "gemma4_text": Family(
        "gemma4_text", {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 4, **ALTERNATING}
    ),
    "glm": Family("glm"),
    "glm4": Family("glm4"),
    "glm4_moe": Family("glm4_moe", refused=EXPERTS),
    "gpt_bigcode": Family("gpt_bigcode"),
    "gpt_neo": Family("gpt_neo", {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW}, packs=False),
    "gpt_neox": Family("gpt_neox"),
    "gpt_oss": Family("gpt_oss", refused=EXPERTS),
    "gptj": Family("gptj", {"rotary_dim": 4}),
    "granite": Family("granite"),
    "granitemoe": Family("granitemoe", refused=EXPERTS),
    "granitemoehybrid": Family(
        "granitemoehybrid",
        {**MAMBA, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 24},
        refused=EXPERTS,
        packs=False,
    ),
    "hunyuan_v1_dense": Family("hunyuan_v1_dense"),
    "jamba": Family("jamba", JAMBA, refused=EXPERTS, packs=False),
    "jetmoe": Family("jetmoe", {"kv_channels": 8}, refused=EXPERTS),
    "llama4_text": Family("llama4_text", refused=EXPERTS, packs=False),
    "mamba2": Family(
        "mamba2", {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8}, packs=False
    ),
    "minimax": Family("minimax", refused=EXPERTS, packs=False),
    "ministral": Family("ministral"),
    "mpt": Family("mpt", packs=False),
    "nemotron": Family("nemotron"),
    "nemotron_h": Family(
        "nemotron_h",
        {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8},
        refused=EXPERTS,
        packs=False,
    ),
    "olmo": Family("olmo"),
    "olmo2": Family("olmo2"),
    "olmo3": Family("olmo3"),
    "olmoe": Family("olmoe", refused=EXPERTS),
    "persimmon": Family("persimmon"),
    "phi": Family("phi"),
    "phimoe": Family("phimoe", refused=EXPERTS),
    "qwen2": Family("qwen2"),
    "qwen2_moe": Family("qwen2_moe", {"shared_expert_intermediate_size": 24}, refused=EXPERTS),
    "qwen3_5_text": Family("qwen3_5_text", DELTA, packs=False),
    "qwen3_moe": Family("qwen3_moe", refused=EXPERTS),
    "qwen3_next": Family("qwen3_next", DELTA, refused=EXPERTS, packs=False),
    "recurrent_gemma": Family(
        "recurrent_gemma",
        {"block_types": ["recurrent", "attention"], "attention_window_size": WINDOW, "lru_width": 32},
        packs=False,
    ),
    "rwkv": Family("rwkv", {"attention_hidden_size": 32}, packs=False),
    "seed_oss": Family("seed_oss"),
    "smollm3": Family("smollm3"),
    "stablelm": Family("stablelm"),
    "starcoder2": Family("starcoder2"),
    "xglm": Family("xglm"),
    "xlstm": Family("xlstm", {"hidden_size": 64, "num_heads": 2, "qk_dim_factor": 1.0, "chunk_size": 4}, packs=False),
    "zamba2": Family("zamba2", ZAMBA, packs=False),
}
