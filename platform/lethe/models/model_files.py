"""Checks of a model's folder from its files alone: its configuration, and which safetensors hold which tensors.

Nothing here loads a model; torch is imported only to see whether weights are finite.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethe.errors import UserError, first_line
from lethe.storage.files import refuse_pointer

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
EXPERT = re.compile(r"(?P<layer>.*\.experts\.)(?P<number>\d+)(?P<leaf>\..*)")
CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len")
NAMES = 3  # shown of many
CHUNK = 2**24  # elements that are looked at at once


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a safetensors header describes it; `dtype` is the header's word, such as BF16."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def some(names: Sequence[str]) -> str:
    """Return the first `NAMES` of the names, with dots where there are more."""
    return ", ".join([*names[:NAMES], *(["..."] if len(names) > NAMES else [])])


def absent(path: Path) -> str:
    """Return the words for a file that is not there, or whose link leads nowhere."""
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which is not there"
    return f"{path.parent} has no {path.name}"


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises UserError where it is anything else."""
    refuse_pointer(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(absent(path)) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
    except (ValueError, RecursionError) as error:  # a truncated file, text that is not UTF-8, or too deep
        raise UserError(f"{path} is not JSON ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a JSON object")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a folder's model. Raises UserError for a folder without one, and for weights that
    are quantised, that the configuration looks for elsewhere, or that an adapter in the same folder would change."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{absent(folder / CONFIG)}: it is not a model folder")
    config = read_json(folder / CONFIG)
    for field in ("quantization_config", "compression_config"):
        if found := config.get(field):
            method = found.get("quant_method", "unnamed") if isinstance(found, dict) else "unnamed"
            raise UserError(
                f"{folder} is quantised ({method}): a quantised model cannot be trained: "
                "name the checkpoint that it was made from"
            )
    _check_context(folder / CONFIG, config)
    if config.get("transformers_weights"):
        raise UserError(f"{folder / CONFIG} names its weights itself (transformers_weights): call them {WEIGHTS}")
    if (folder / ADAPTER_CONFIG).is_file():
        raise UserError(f"{folder} has both a model and an adapter ({ADAPTER_CONFIG}): keep them in two folders")
    return config


def _check_context(path: Path, config: Mapping[str, Any]) -> None:
    """Raise UserError for a context that is no number of tokens, in the configuration or in its language model's."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for field in CONTEXT:
            length = part.get(field)
            if length is not None and (type(length) not in (int, float) or not length >= 1):
                raise UserError(f"{path}: {field} is {length!r}: it must be a number of tokens, 1 or more")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors that transformers reads. Raises UserError where they are missing or ambiguous."""
    single, index = folder / WEIGHTS, folder / INDEX
    shards = sorted(set(_weight_map(folder).values())) if index.is_file() else [WEIGHTS]
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing and index.is_file():
        raise UserError(f"{absent(folder / missing[0])}, and {INDEX} names it: copy the whole checkpoint")
    if single.is_symlink() and missing:
        raise UserError(f"{absent(single)}: copy the whole checkpoint")
    if missing:
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        pickled = any(path for pattern in PICKLES for path in folder.glob(pattern))
        because = "; it has pickled weights, which are not loaded: save it as safetensors" if pickled else ""
        because = f", but {some(others)} and no {INDEX}: copy the whole checkpoint" if others else because
        raise UserError(f"{folder} has no {WEIGHTS if others else '*.safetensors'}{because}")
    if single.is_file() and shards != [WEIGHTS]:
        raise UserError(f"{folder} has two sets of weights, {WEIGHTS} and those that {INDEX} names: remove one")
    return [folder / name for name in shards]


def _weight_map(folder: Path) -> dict[str, str]:
    """Return the shard of every tensor by the index. Raises UserError for names that are no files of this folder."""
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{folder / INDEX} has no weight_map")
    for name in shards.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{folder / INDEX} names {name!r}, which is no safetensors file of its folder")
    return shards


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return every tensor of a model's folder by its name, read off the headers of its safetensors.

    Raises UserError for a damaged file, a tensor in two of them, and one that is not where the index says.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        for name, tensor in header(path).items():
            if name in tensors:
                raise UserError(f"{folder} has the tensor {name} twice, in {tensors[name].file.name} and {path.name}")
            tensors[name] = tensor
    if (folder / INDEX).is_file():
        stored, named = {name: tensor.file.name for name, tensor in tensors.items()}, _weight_map(folder)
        odd = sorted(name for name in stored.keys() | named.keys() if stored.get(name) != named.get(name))
        if odd:
            raise UserError(
                f"{folder / INDEX} does not fit its files: {len(odd)} tensors are not where it says "
                f"({some(odd)}): copy the whole checkpoint"
            )
    return tensors


def parameter_count(folder: Path) -> int:
    """Return how many numbers the weights of a model's folder are; tied weights are stored, and count, once."""
    return sum(prod(tensor.shape) for tensor in stored_tensors(folder).values())


def header(path: Path) -> dict[str, StoredTensor]:
    """Return every tensor of a safetensors file by its name. Raises UserError for a damaged file."""
    from safetensors import SafetensorError, safe_open

    refuse_pointer(path)
    try:
        with safe_open(path, "np") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118  # safe_open is no mapping
            return {name: StoredTensor(path, s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or incomplete ({first_line(error)}): copy it again") from None


def odd_experts(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Return the names of experts' tensors that are missing, too many or misshapen beside most others of a mixture."""
    groups: dict[tuple[str, str], dict[int, tuple[int, ...]]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if found := EXPERT.fullmatch(name):
            groups[found["layer"], found["leaf"]][int(found["number"])] = tensor.shape
    numbers = Counter(number for group in groups.values() for number in group)
    usual = {number for number, count in numbers.items() if 2 * count > len(groups)}
    shapes = {
        leaf: Counter(s for (_, other), g in groups.items() if other == leaf for s in g.values()) for _, leaf in groups
    }
    return sorted(
        f"{layer}{number}{leaf}"
        for (layer, leaf), group in groups.items()
        for number in usual | group.keys()
        if number not in usual or group.get(number) != shapes[leaf].most_common(1)[0][0]
    )


def check_finite(folder: Path) -> None:
    """Raise UserError that names the tensors of a model's folder with NaN or infinite values. Reads every byte of the
    weights once."""
    bad = [name for path in weight_files(folder) for name in _not_finite(path)]
    if bad:
        raise UserError(f"{folder} has NaN or infinite weights in {len(bad)} of its tensors ({some(bad)})")


def check_adapter_files(folder: Path) -> None:
    """Raise UserError for an adapter whose files are missing, damaged or not finite, and for one that is no LoRA."""
    kind = read_json(folder / ADAPTER_CONFIG).get("peft_type")
    if kind != "LORA":
        raise UserError(f"{folder} is an adapter of the peft_type {kind}, and only LORA can be loaded: merge it first")
    if not (folder / ADAPTER).is_file():
        raise UserError(f"{absent(folder / ADAPTER)}, and {ADAPTER_CONFIG} says that it is an adapter")
    header(folder / ADAPTER)
    if bad := _not_finite(folder / ADAPTER):
        raise UserError(f"{folder} has NaN or infinite weights in {len(bad)} of its tensors ({some(bad)})")


def _not_finite(path: Path) -> list[str]:
    """Return the names of the tensors of a safetensors file with NaN or infinite values, read a few rows at a time."""
    from safetensors import safe_open

    bad = []
    with safe_open(path, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  # safe_open is no mapping
            part = tensors.get_slice(name)
            shape = part.get_shape()
            rows = max(1, CHUNK // max(1, prod(shape[1:])))
            starts = range(0, shape[0], rows) if shape else ()
            parts = (part[start : start + rows] for start in starts) if shape else (tensors.get_tensor(name),)
            if not all(map(_finite, parts)):
                bad.append(name)
    return bad


def _finite(tensor: Tensor) -> bool:
    """Tell whether every value is finite."""
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # NaN and infinities show in the extremes, which are found 20 times as fast as `isfinite` of every value.
    return all(
        bool(value.isfinite()) for value in torch.aminmax(tensor if tensor.element_size() > 1 else tensor.float())
    )
