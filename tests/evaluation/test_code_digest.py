"""The code that a stored score depends on is found from the source, all of it and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lethe
from lethe.config.benchmark import BenchmarkConfig
from lethe.config.benchmarks import BENCHMARKS
from lethe.evaluation.code_digest import closure_digest, code_digest, import_closure
from lethe.evaluation.score_cache import ENTRY
from tests.benchmarks.conforming import make_world, skip_without_its_package

SOURCE = Path(lethe.__file__).parent


def entries(kind: type[BenchmarkConfig]) -> tuple[str, ...]:
    return ENTRY, kind.implementation.partition(":")[0]


@pytest.fixture(params=list(BENCHMARKS.values()), ids=list(BENCHMARKS))
def kind(request: pytest.FixtureRequest) -> type[BenchmarkConfig]:
    found: type[BenchmarkConfig] = request.param
    skip_without_its_package(found)
    return found


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's source in another folder, to be edited."""
    folder = tmp_path_factory.mktemp("source") / "lethe"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_an_edit_inside_changes_the_digest_and_one_outside_does_not(kind: type[BenchmarkConfig], copied: Path) -> None:
    def digest() -> str:
        return closure_digest(import_closure(entries(kind), {"lethe": copied}))

    before, inside = digest(), {*import_closure(entries(kind), {"lethe": copied}).values()}
    assert before == closure_digest(import_closure(entries(kind), {"lethe": SOURCE}))
    outside = {*copied.rglob("*.py")} - inside
    assert outside
    for paths in (*([path] for path in inside), outside):
        texts = {path: path.read_bytes() for path in paths}
        for path, text in texts.items():
            path.write_bytes(text + b"# edited\n")
        assert (digest() != before) == (paths is not outside), paths
        for path, text in texts.items():
            path.write_bytes(text)
    names = {path.relative_to(copied).as_posix() for path in inside}
    assert {"evaluation/likelihood.py", "models/loading.py", "data/template.py", "evaluation/lm_eval.py"} <= names
    assert not {name for name in names if name.startswith(("unlearning/", "study/", "search/", "pool/", "tracking/"))}


def test_each_benchmark_has_its_own_code() -> None:
    closures = {name: set(import_closure(entries(kind), {"lethe": SOURCE})) for name, kind in BENCHMARKS.items()}
    for name, closure in closures.items():
        other = {f"lethe.benchmarks.{other}" for other in BENCHMARKS if other != name}
        assert f"lethe.benchmarks.{name}.evaluation" in closure
        assert not {module for module in closure if module.startswith(tuple(other))}


EVALUATE = """
import json, platform, sys
from importlib import import_module
from pathlib import Path
from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.measurement import load_network, measure, task_of, template_of
from lethe.config.run import Evaluation
from lethe.evaluation.distributed import RankShard

module, kind, folder = sys.argv[1:]
config = getattr(import_module(module), kind).small()
evaluation = Evaluation(max_rows=3, max_new_tokens=8, token_budget=256, gradnorm=True)
benchmark, network = load_benchmark(config), load_network(Path(folder), "cpu")
task = task_of(benchmark, template_of(Path(folder)), network)
evals = task.eval_set(evaluation)
stored = measure(network, task, evals, evaluation, RankShard()).reference.dump()
reference = benchmark.reference(dict.fromkeys(config.compared_with, stored))
result = measure(network, task, evals, evaluation, RankShard(), reference)
benchmark.reference_metrics(stored, reference), benchmark.samples(result), task.leaks(network, [0], evaluation,
    task.reference_values(reference, evals), RankShard())
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "lethe")))
"""


def test_whatever_an_evaluation_imports_is_in_the_closure(kind: type[BenchmarkConfig], tmp_path: Path) -> None:
    name = kind.model_fields["name"].default
    make_world(kind, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent), "LETHE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", EVALUATE, kind.__module__, kind.__name__, str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    closure = import_closure(entries(kind), {"lethe": SOURCE})
    assert f"lethe.benchmarks.{name}.evaluation" in imported
    assert imported <= closure.keys(), imported - closure.keys()


def write(folder: Path, **files: str) -> dict[str, Path]:
    """A package of these modules."""
    for name, text in {"__init__": "", **files}.items():
        (folder / f"{name}.py").write_text(text)
    return {"made": folder}


def test_lazy_imports_count_and_those_for_types_do_not(tmp_path: Path) -> None:
    roots = write(
        tmp_path,
        entry="import numpy\nfrom made import first\nfrom made.second import value\n"
        "if TYPE_CHECKING:\n    import made.types_only\nelse:\n    import made.otherwise\n",
        first="def f():\n    try:\n        import made.lazy\n    except ImportError:\n        import made.handled\n",
        second="value = 1",
        lazy="class A:\n    def f(self):\n        match 1:\n            case 1:\n                import made.deep",
        **dict.fromkeys(("types_only", "otherwise", "handled", "deep", "unread"), ""),
    )
    names = ("entry", "first", "second", "lazy", "handled", "otherwise", "deep")
    assert set(import_closure(("made.entry",), roots)) == {"made", *(f"made.{name}" for name in names)}


def test_a_name_that_is_no_module_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"there is no module made\.missing"):
        import_closure(("made.missing",), write(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="there is no package nowhere"):
        code_digest(("nowhere.at_all",))
    with pytest.raises(ValueError, match="line 1: relative imports are not followed"):
        import_closure(("made.entry",), write(tmp_path, entry="from .other import x"))


def test_the_digest_is_found_once_per_process(kind: type[BenchmarkConfig]) -> None:
    first = code_digest(entries(kind))
    began = time.process_time()
    assert code_digest(entries(kind)) == first
    assert time.process_time() - began < 0.05
