"""A trial's saved model as a folder that MLflow and stock transformers load: no lethe, no custom code, no pickle.

`mlflow.transformers.save_model` is not used: given a local folder it asks the Hugging Face hub for that name's model
card (half a minute of retries without a network, and a private path told to a stranger), and it needs the model in
memory. The format is small and documented, and the tests load what is written here through MLflow's own loader.
"""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from lethe.models.loading import put_adapter
from lethe.tracking.quiet import quiet_transformers

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_*", "README.md", "generation_config.json")
REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors")


def is_adapter(folder: Path) -> bool:
    """Whether a model folder is a peft adapter rather than a whole model."""
    return (folder / "adapter_config.json").is_file()


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write base + adapter as one plain model with the adapter's tokenizer, in fp32: what the trial evaluated."""
    with quiet_transformers():
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            str(base), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        merged = put_adapter(model, adapter).merge_and_unload()
        merged.save_pretrained(str(target))
    has_tokenizer = (adapter / "tokenizer_config.json").is_file()
    _copy_small(adapter if has_tokenizer else base, target)


def write_wrapping(weights: Path, target: Path) -> None:
    """Write what stands around `model/`: MLmodel, the requirements, and the tokenizer where MLflow looks for it."""
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    _copy_small(weights, target / "components" / "tokenizer")
    config = json.loads((weights / "config.json").read_text())
    _write_requirements(target)
    text = Schema([ColSpec("string")])
    model = Model(signature=ModelSignature(inputs=text, outputs=text))
    model.add_flavor(
        "python_function",
        loader_module="mlflow.transformers",
        env={"virtualenv": "python_env.yaml"},
        python_version=platform.python_version(),
    )
    model.add_flavor(
        "transformers",
        code=None,
        task="text-generation",
        instance_type="TextGenerationPipeline",
        # Auto classes: a class that the reader's transformers does not know would be loaded with remote code.
        pipeline_model_type="AutoModelForCausalLM",
        tokenizer_type="AutoTokenizer",
        components=["tokenizer"],
        model_binary="model",
        source_model_name=config.get("model_type", "model"),
        torch_dtype=f"torch.{config.get('dtype') or config.get('torch_dtype') or 'float32'}",
        transformers_version=version("transformers"),
    )
    model.save(str(target / "MLmodel"))


def _copy_small(source: Path, target: Path) -> None:
    """The tokenizer and the configuration that names its class."""
    target.mkdir(parents=True, exist_ok=True)
    skipped = {path.name for pattern in WEIGHTS for path in source.glob(pattern)}
    for path in source.iterdir():
        if path.is_file() and path.name not in skipped and not (target / path.name).exists():
            shutil.copy(path, target)


def _write_requirements(target: Path) -> None:
    """Public versions only: `2.13.0+cpu` is on no index."""
    pins = [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]
    (target / "requirements.txt").write_text("\n".join(pins) + "\n")
    (target / "python_env.yaml").write_text(
        f"python: {platform.python_version()}\n"
        "build_dependencies: [pip, setuptools, wheel]\n"
        "dependencies: [-r requirements.txt]\n"
    )
