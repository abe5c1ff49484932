"""Names of the linear layers of common families, by the `model_type` of config.json: to refuse a name that no layer has
without torch, which takes seconds to import.

A family that is missing here, a dotted name or a pattern is `lethe.models.adapters`'s, which knows the exact layers.
"""

from __future__ import annotations

from lethe.errors import UserError

_LLAMA = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
_GPT2 = frozenset({"c_attn", "c_proj", "c_fc"})
LAYERS = {
    **dict.fromkeys(("llama", "mistral", "ministral", "qwen2", "qwen3", "smollm3", "granite", "seed_oss"), _LLAMA),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "olmo3", "cohere", "cohere2"), _LLAMA),
    "phi3": frozenset({"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
    "phi": frozenset({"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}),
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": frozenset({"q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"}),
    "gpt_neox": frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    "starcoder2": frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"}),
}


def check_targets(model_type: object, targets: str) -> None:
    """Raise UserError for a name among `targets` (`Lora.targets`) that no layer of the family has, if both are known
    here."""
    layers = LAYERS.get(str(model_type))
    if layers is None or targets.lower() == "all-linear":
        return
    for part in (part.strip() for part in targets.split(",")):
        if part.isidentifier() and part not in layers:
            known = ", ".join(["all-linear", *sorted(layers)])
            raise UserError(f"adapter.targets: no linear layer matches {part!r}: choose from {known}")
