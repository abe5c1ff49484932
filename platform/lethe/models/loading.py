"""Loading models, adapters and tokenizers from local folders: safetensors only, no remote code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lethe.errors import UserError, first_line

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter_model.safetensors"

ModelT = TypeVar("ModelT", bound="torch.nn.Module")


def load_model(folder: Path) -> PreTrainedModel:
    """Load a causal language model in fp32, in evaluation mode. Raises UserError where that fails."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a model from {folder}: {error}") from error
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    return model


def on_device(model: ModelT, device: str | torch.device) -> ModelT:
    """Move `model` to a device in place and return it."""
    # As a module of torch: the `to` of transformers loses its types in a decorator.
    return model.to(device)


def load_adapted(base: Path, adapter: Path) -> PeftModel:
    """Load a model with a peft adapter on it, in fp32, in evaluation mode. Raises UserError where that fails."""
    model = load_model(base)
    try:
        return put_adapter(model, adapter).eval()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: shapes that do not fit
        raise UserError(f"cannot load the adapter in {adapter} on {base}: {first_line(error)}") from error


def put_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """Put the adapter of a folder on `model` and return the peft model. Raises UserError without safetensors."""
    # peft would take a pickle where there are no safetensors, and ask the hub where there is neither.
    if not (adapter / ADAPTER).is_file():
        raise UserError(f"{adapter} is an adapter and has no {ADAPTER}")
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer from a model's folder. Raises UserError where that fails."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a tokenizer from {folder}: {error}") from error
