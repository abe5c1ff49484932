"""Nothing of ours loads a pickle: what lies in shared storage could be anybody's."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = sorted((ROOT / "platform").rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {"read_pickle", "load_checkpoint", "load_state_dict_from_url", "unsafe_load", "full_load"}


def loads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of what runs, or could run, code that it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            folder = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = [folder + n.name for n in node.names if not n.name.endswith("Error")]  # Ray's errors may be caught
            found = any(MODULES.intersection(name.split(".")) for name in names)
        elif isinstance(node, ast.Call):
            found = _loads(ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})
        else:
            continue
        if found:
            yield node.lineno, ast.unparse(node)


def _loads(function: str, named: dict[str | None, str]) -> bool:
    last = function.rpartition(".")[2]
    return (
        (function == "torch.load" and named.get("weights_only") != "True")
        or (function == "yaml.load" and not named.get("Loader", "").endswith(("SafeLoader", "_Loader")))
        or last in CALLS
        or function.endswith("Tuner.restore")
        or named.get("allow_pickle", "False") != "False"
        or named.get("trust_remote_code", "False") != "False"
        or named.get("use_safetensors", "True") != "True"
        or named.get("safe_serialization", "True") != "True"
    )


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle", "from joblib import load", "from ray import cloudpickle", "torch.load(path)",
        "torch.load(path, weights_only=False)", "numpy.load(p, allow_pickle=True)", "pd.read_pickle(p)",
        "yaml.load(text, Loader=yaml.Loader)", "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "AutoModel.from_pretrained(p, use_safetensors=False)", "engine.load_checkpoint(p)", "Tuner.restore(p, f)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_is_for(bad: str) -> None:
    assert list(loads(ast.parse(bad)))


def test_no_source_of_ours_loads_a_pickle() -> None:
    assert len(SOURCES) > 100
    found = [f"{p.relative_to(ROOT)}:{line}: {text}" for p in SOURCES for line, text in loads(ast.parse(p.read_text()))]
    assert not found


def test_models_are_loaded_from_safetensors_only() -> None:
    """Every `from_pretrained` of a model says so, or the folder was looked at before (tests/models/test_prepare.py)."""
    calls = [
        (path, ast.unparse(node))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ForCausalLM.from_pretrained")
    ]
    assert calls
    for path, call in calls:
        assert "use_safetensors=True" in call, f"{path}: {call}"


def test_a_pickle_beside_a_model_is_not_read(tmp_path: Path) -> None:
    """A folder with weights as a pickle and nothing else is refused; one that has both never opens the pickle."""
    from lethe.models.loading import load_model
    from tests import tiny

    folder = tiny.write_model(tmp_path / "model")
    trap = tmp_path / "sprung"
    (folder / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {trap}'\ntR.".encode())
    load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(Exception, match="safetensors"):
        load_model(folder)
    assert not trap.exists()
