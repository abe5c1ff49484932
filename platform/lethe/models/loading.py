"""Loading models, adapters and tokenizers from local folders: safetensors only, no remote code, every tensor or none.

transformers fills tensors that a checkpoint lacks with random numbers, and leaves out those that it does not know; here
both are refused.
"""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lethe.config.run import Quantisation
from lethe.errors import UserError, first_line
from lethe.models.model_files import (
    ADAPTER,
    StoredTensor,
    absent,
    header,
    odd_experts,
    read_config,
    some,
    stored_tensors,
    weight_files,
)
from lethe.models.quantised import dequantised, keep_layout, loading_options
from lethe.storage.files import refuse_pointer

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BASE_QUANTISATION = "base_quantisation"  # in the metadata of an adapter's safetensors

# What older versions of transformers saved and newer ones compute: causal masks and rotary frequencies.
COMPUTED = re.compile(
    r"(^|\.)(attn|attention|self_attn|self_attention)\.(bias|masked_bias|causal_mask)$"
    r"|rotary_emb\.(inv_freq|cos_cached|sin_cached)$|(^|\.)position_ids$"
)
SIZES = re.compile(r"^(num_|n_(layer|head|embd|positions)|d_model)|_(size|heads|layers|dim)$")  # in a config.json
# Prefixes that a wrapper puts before every name when it is saved in the model's place.
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_forward_module.": "Lightning",
    "base_model.model.": "peft",
    "module.": "DataParallel or DeepSpeed",
}

ModelT = TypeVar("ModelT", bound="torch.nn.Module")

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # names in torch
ROUNDED = ("I", "U", "BOOL", "F8", "F6", "F4")  # beginnings of names in safetensors: types that need scales
STORED: dict[str, Precision] = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}  # names in safetensors


def load_model(
    folder: Path,
    precision: Precision | None = None,
    quantisation: Quantisation | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
) -> PreTrainedModel:
    """Load a causal language model in evaluation mode, with weights of `precision`; None: of the precision that they
    are stored in. With `quantisation` its linear layers are quantised on `device`, and it stays there.

    Raises UserError where the files are damaged, and where a tensor is missing, unknown or of another shape.
    """
    import torch
    from transformers import AutoModelForCausalLM

    read_config(folder)
    tensors = stored_tensors(folder)
    dtype = getattr(torch, DTYPES[precision or stored_precision(folder)])
    with quiet_transformers():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(  # a pair, which its annotation does not say
                str(folder),
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # they are in the report
                output_loading_info=True,
                **loading_options(quantisation, dtype, device),
            )
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: tensors that do not combine
            _refuse_odd_experts(folder, tensors)
            raise UserError(f"cannot load a model from {folder}: {first_line(error)}") from error
    model: PreTrainedModel
    model, report = loaded
    refuse_differences(folder, model, report)
    keep_layout(model)
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    return model


def check_tensors(folder: Path) -> None:
    """Raise UserError unless the model in a folder can be loaded: its architecture is a decoder that transformers has,
    and its files hold exactly that architecture's tensors. Reads headers alone."""
    import torch

    tensors = stored_tensors(folder)
    empty, config = _architecture(folder)
    # As transformers will see them, with all that it renames and combines, but without values.
    state = {name: torch.empty(tensor.shape, device="meta") for name, tensor in tensors.items()}
    with quiet_transformers():
        try:
            model, report = type(empty).from_pretrained(
                None,
                config=config,
                state_dict=state,
                device_map="meta",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except Exception as error:  # noqa: BLE001  # whatever the architecture's own code raises for such a config.json
            _refuse_odd_experts(folder, tensors)
            raise _unbuildable(folder, error) from None
    refuse_differences(folder, model, report)
    # transformers would take them for the weights themselves, without the scales that they were divided by.
    rounded = sorted(n for n, _ in model.named_parameters() if n in tensors and tensors[n].dtype.startswith(ROUNDED))
    if rounded:
        types = ", ".join(sorted({tensors[name].dtype for name in rounded}))
        raise UserError(
            f"{folder} has weights of type {types} in {len(rounded)} tensors ({some(rounded)}): it is quantised, or "
            "its weights were rounded: name the checkpoint that it was made from"
        )


def check_adapter_tensors(base: Path, adapter: Path) -> None:
    """Raise UserError, naming both, unless the adapter in a folder fits the model in `base`. Reads headers alone."""
    model, _ = _architecture(base)
    import torch
    from peft import PeftConfig, get_peft_model

    with _adapter_named(adapter, base), quiet_transformers(), torch.device("meta"):
        config = PeftConfig.from_pretrained(str(adapter))
        config.init_lora_weights = False  # some of its values compute from the base's weights, which are not here
        _refuse_other_tensors(get_peft_model(model, config), adapter)


def _architecture(folder: Path) -> tuple[Any, Any]:
    """Return a folder's model without values and its configuration. Raises UserError for a model that is none of
    transformers' own decoders."""
    import torch
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, __version__

    fields = read_config(folder)
    kind = str(fields.get("model_type"))
    if kind not in CONFIG_MAPPING:
        own_code = "needs code of its own (auto_map), which is never run, and " if fields.get("auto_map") else ""
        raise UserError(f"{folder}: the model_type {kind!r} {own_code}is none that transformers {__version__} has")
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
            masked = str(next(iter(config.architectures or ()), "")).endswith("ForMaskedLM")
            if config.is_encoder_decoder or masked or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
                raise UserError(f"{folder}: {kind!r} is no decoder-only language model, and no other can be unlearned")
            with torch.device("meta"):
                build: Any = AutoModelForCausalLM.from_config  # transformers annotates nothing of it
                return build(config, trust_remote_code=False), config
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever the architecture's own code raises for such a config.json
            raise _unbuildable(folder, error) from None


def _refuse_odd_experts(folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Raise UserError if the experts of a mixture, which transformers stacks, are not all alike."""
    if odd := odd_experts(tensors):
        raise UserError(f"{folder}: tensors of experts are missing, unknown or misshapen: {len(odd)} ({some(odd)})")


def _unbuildable(folder: Path, error: Exception) -> UserError:
    reasons = [f"{type(error).__name__}: {first_line(error)}"]
    # The architecture's own code says at most that it divided by zero.
    sizes = {name: size for name, size in read_config(folder).items() if SIZES.search(name) and type(size) is int}
    reasons += [f"{name} is {size}" for name, size in sizes.items() if size < 1]
    return UserError(f"{folder}: transformers cannot build the model that config.json describes ({'; '.join(reasons)})")


def refuse_differences(origin: Path, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Raise UserError for tensors that `model` and the checkpoint at `origin` do not share. transformers has left out
    of its `report` what the architecture ties or computes."""
    unknown = sorted(name for name in report["unexpected_keys"] if not COMPUTED.search(name))
    missing = sorted(report["missing_keys"])
    reshaped = [f"{name} {list(found)} for {list(needed)}" for name, found, needed in sorted(report["mismatched_keys"])]
    parts = {"missing": missing, "unknown": unknown, "misshapen": reshaped}
    found = [f"{what} tensors: {len(names)} ({some(names)})" for what, names in parts.items() if names]
    if found:
        raise UserError(
            f"{origin} is not the {type(model).__name__} that it says: {'; '.join(found)}{_wrapper(unknown)}"
        )


def _wrapper(unknown: list[str]) -> str:
    """Return the hint that all unknown names begin with a wrapper's prefix; empty where they do not."""
    for prefix, name in WRAPPERS.items():
        if unknown and all(tensor.startswith(prefix) for tensor in unknown):
            return f"; {prefix!r} is {name}'s: save the model inside it"
    return ""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from printing progress and reports inside the block: what counts is raised."""
    from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
    verbosity = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        set_verbosity(verbosity)


def on_device(model: ModelT, device: str | torch.device) -> ModelT:
    """Move `model` to a device in place and return it."""
    # As a module of torch: the `to` of transformers loses its types in a decorator.
    return model.to(device)


def load_adapted(
    base: Path,
    adapter: Path,
    precision: Precision | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    *,
    to_merge: bool = False,
) -> PeftModel:
    """Load a model with a peft adapter on it, both in `precision`, in evaluation mode; None: in that of the adapter,
    which is the base's that it was trained on. The base is quantised as the adapter says; `to_merge`: its quantised
    layers become plain ones that compute the same, since merging into 4 bits would round the adapter's change away.

    Raises UserError where that fails.
    """
    import torch

    quantisation, dtype = stored_quantisation(adapter), precision or stored_precision(adapter)
    if to_merge and quantisation:  # rounded in the precision that it was trained in, whichever is asked for
        rounded: Any = dequantised(load_model(base, stored_precision(adapter), quantisation, device))
        model: PreTrainedModel = rounded.to(getattr(torch, DTYPES[dtype]))
    else:
        model = load_model(base, dtype, quantisation, device)
    with _adapter_named(adapter, base):
        return put_adapter(model, adapter).eval()


@contextmanager
def _adapter_named(adapter: Path, base: Path) -> Iterator[None]:
    """Put both folders before the first line of what peft and torch raise in the block."""
    try:
        yield
    except (UserError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:  # RuntimeError: shapes
        raise UserError(f"cannot load the adapter in {adapter} on {base}: {first_line(error)}") from error


def put_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """Put the adapter of a folder on `model`, in the model's precision, and return the peft model. Raises UserError
    without safetensors, and for tensors that are missing or unknown."""
    # peft would take a pickle where there are no safetensors, and ask the hub where there is neither.
    if not (adapter / ADAPTER).is_file():
        raise UserError(absent(adapter / ADAPTER))
    from peft import PeftModel

    # As trained: an engine's adapters have the precision of its other weights, where peft would widen them to fp32.
    with quiet_transformers():
        adapted = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
    _refuse_other_tensors(adapted, adapter)  # peft leaves out what it does not find, and warns at most
    return adapted


def _refuse_other_tensors(adapted: PeftModel, adapter: Path) -> None:
    """Raise UserError for tensors that the adapter in a folder and the one on a model do not share."""
    from peft import get_peft_model_state_dict

    expected = {
        name: tuple(t.shape) for name, t in get_peft_model_state_dict(adapted, save_embedding_layers=False).items()
    }
    # Names without an adapter are whole layers of the model.
    known = {name: tuple(tensor.shape) for name, tensor in adapted.state_dict().items()} | expected
    stored = {name: tensor.shape for name, tensor in header(adapter / ADAPTER).items()}
    parts = {
        "missing": sorted(expected.keys() - stored.keys()),
        "unknown": sorted(stored.keys() - known.keys()),
        "misshapen": [f"{n} {[*s]} for {[*known[n]]}" for n, s in sorted(stored.items()) if known.get(n, s) != s],
    }
    found = [f"{what} tensors: {len(names)} ({some(names)})" for what, names in parts.items() if names]
    if found:
        raise UserError(f"{adapter} is no adapter of {type(adapted.get_base_model()).__name__}: {'; '.join(found)}")


def stored_precision(folder: Path) -> Precision:
    """Return the precision of most weights of a model or an adapter; fp32 where all have other types. Raises UserError
    for damaged files, and where there are none."""
    elements: Counter[Precision] = Counter()
    for path in [folder / ADAPTER] if (folder / ADAPTER).is_file() else weight_files(folder):
        for tensor in header(path).values():
            if kind := STORED.get(tensor.dtype):
                elements[kind] += prod(tensor.shape)
    return elements.most_common(1)[0][0] if elements else "fp32"


def shared_copy(model: ModelT) -> ModelT:
    """Return a new module object over `model`'s own weights: what hooks, adapters and engines do to its modules and
    parameter objects does not reach `model`, what changes a weight in place does. Tied weights stay tied."""
    from torch import nn

    def same_weight(p: nn.Parameter) -> nn.Parameter:
        # A quantised weight is a class of its own, whose data do not say what they mean.
        return nn.Parameter(p.detach(), p.requires_grad) if type(p) is nn.Parameter else p

    return copy.deepcopy(model, {id(p): same_weight(p) for p in model.parameters()})


def load_config(folder: Path) -> PretrainedConfig:
    """Load a model's configuration. Raises UserError where that fails."""
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # whatever the architecture's own code raises for such a config.json
        raise UserError(f"cannot load a model's configuration from {folder}: {first_line(error)}") from error
    return config


def stored_quantisation(adapter: Path) -> Quantisation | None:
    """Return the quantisation of the base that an adapter was trained on, None for a plain one and for a whole model.

    Raises UserError for one that is not known.
    """
    if not (adapter / ADAPTER).is_file():
        return None
    from safetensors import safe_open

    with safe_open(adapter / ADAPTER, "pt") as file:
        found = (file.metadata() or {}).get(BASE_QUANTISATION)
    if found in (None, "nf4"):
        return found
    raise UserError(f"{adapter}: its base has the quantisation {found!r}, which is not known")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer from a model's folder. Raises UserError where that fails."""
    from transformers import AutoTokenizer

    for path in folder.glob("tokenizer*"):
        refuse_pointer(path)
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exceptions, broken fields any other
        raise UserError(f"cannot load a tokenizer from {folder}: {first_line(error)}") from error
