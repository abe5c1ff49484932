"""What the processes of a study leave alone when they start: each of these packages takes a core 0.5 to 4 s."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

ROUGE = "from lethe.evaluation.metrics import rouge_l_recall; assert rouge_l_recall('running', 'runs') == 1"
DEEPSPEED = "from lethe.unlearning.engine import import_deepspeed; import_deepspeed()"


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        # The driver starts the groups while it reads data; torch comes with the first model that it looks at.
        ("import lethe.pool.worker_pool, lethe.study.tune_loop", {"torch", "transformers", "mlflow"}),
        (ROUGE, {"nltk", "sklearn", "scipy"}),
        pytest.param(DEEPSPEED, {"mlflow"}, marks=pytest.mark.slow),
    ],
    ids=["driver", "rouge", "deepspeed"],
)
def test_a_start_does_not_import(code: str, packages: set[str]) -> None:
    program = f"import platform, sys; {code}; print(*sorted({packages!r} & sys.modules.keys()))"
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == ""


def test_a_package_of_which_one_module_was_imported_alone_is_whole_later() -> None:
    program = f"import platform; {ROUGE}; from nltk import word_tokenize; from nltk.stem.porter import PorterStemmer"
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
