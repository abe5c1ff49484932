"""Loading models, adapters and tokenizers from local folders: safetensors only, no remote code."""

from __future__ import annotations

import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lethe.errors import UserError, first_line

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter_model.safetensors"

ModelT = TypeVar("ModelT", bound="torch.nn.Module")

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # names in torch
STORED: dict[str, Precision] = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}  # names in safetensors


def load_model(folder: Path, precision: Precision | None = None) -> PreTrainedModel:
    """Load a causal language model in evaluation mode, with weights of `precision`; None: of the precision that they
    are stored in. Raises UserError where that fails."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    dtype = getattr(torch, DTYPES[precision or stored_precision(folder)])
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a model from {folder}: {error}") from error
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    return model


def on_device(model: ModelT, device: str | torch.device) -> ModelT:
    """Move `model` to a device in place and return it."""
    # As a module of torch: the `to` of transformers loses its types in a decorator.
    return model.to(device)


def load_adapted(base: Path, adapter: Path, precision: Precision | None = None) -> PeftModel:
    """Load a model with a peft adapter on it, both in `precision`, in evaluation mode; None: in that of the adapter,
    which is the base's that it was trained on. Raises UserError where that fails."""
    model = load_model(base, precision or stored_precision(adapter))
    try:
        return put_adapter(model, adapter).eval()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: shapes that do not fit
        raise UserError(f"cannot load the adapter in {adapter} on {base}: {first_line(error)}") from error


def put_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """Put the adapter of a folder on `model`, in the model's precision, and return the peft model. Raises UserError
    without safetensors."""
    # peft would take a pickle where there are no safetensors, and ask the hub where there is neither.
    if not (adapter / ADAPTER).is_file():
        raise UserError(f"{adapter} is an adapter and has no {ADAPTER}")
    from peft import PeftModel

    # As trained: an engine's adapters have the precision of its other weights, where peft would widen them to fp32.
    return PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)


def stored_precision(folder: Path) -> Precision:
    """Return the precision of most weights in the safetensors of a model or an adapter; fp32 where there are none or
    all have other types."""
    elements: Counter[Precision] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        for tensor in _header(path).values():
            if kind := STORED.get(tensor["dtype"]):
                elements[kind] += prod(tensor["shape"])
    return elements.most_common(1)[0][0] if elements else "fp32"


def _header(path: Path) -> dict[str, dict[str, Any]]:
    """Return dtype and shape of every tensor in a safetensors file; empty for a file that is none."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (OSError, ValueError, MemoryError):
        return {}
    return {name: value for name, value in header.items() if name != "__metadata__"}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer from a model's folder. Raises UserError where that fails."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a tokenizer from {folder}: {error}") from error
