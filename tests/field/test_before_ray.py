"""Refusals for which files and settings are enough come before Ray starts, the plainest before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lethe.cli.sweep import main
from lethe.study.session import Session
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
FILE = f"name: file, path: {ROOT}/docs/examples/objective.py"
FIXED_RANK = ["--set", "space.adapter.rank=null", "--set"]
PROGRAM = (
    "import platform, sys; from lethe.cli.sweep import main; code = main(sys.argv[1:]);"
    "sys.exit(code if not {'torch', 'ray', 'transformers'} & sys.modules.keys() else 99)"
)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([*FIXED_RANK, "run.adapter.rank=1000"], "adapter.rank 1000 is larger than the model's width: choose at most"),
        (
            ["--set", "run.adapter.targets=q_projj"],
            "no linear layer matches 'q_projj': choose from all-linear",
        ),
        (["--set", "run.engine.workers=4000"], "run.engine: 4000 workers of 1 threads need 4000 cores"),
        (["--set", "run.engine.threads=4000"], "run.engine: 1 workers of 4000 threads need 4000 cores"),
        (["--set", "benchmark.source=/no/such"], "benchmark.source '/no/such': no such folder"),
        (["--set", "run.schedule.epochs=1180591620717411303424"], "--set run.schedule.epochs: must be less than 2^32"),
    ],
)
def test_the_plainest_refusals_import_neither_torch_nor_ray(arguments: list[str], line: str) -> None:
    command = [sys.executable, "-c", PROGRAM, "tofu", *arguments]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 2, process.stderr
    assert line in process.stderr


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["run.adapter.rank=64"], "adapter.rank 64 is larger than the model's width: choose at most 32"),
        (
            ["run.adapter.rank=32", "run.adapter.targets=mlp.q_proj"],
            "no linear layer matches 'mlp.q_proj': choose",
        ),
        (["run.adapter.rank=32", "run.adapter.targets=a,q_proj"], "no linear layer matches 'a'"),
        (["run.adapter.rank=4", "benchmark.forget=forget01"], "forget01"),
        (["run.adapter.rank=4", "run.objective={name: rmu, layer: 40}"], "objective.layer: 40: LlamaForCausalLM has "),
        (
            ["run.adapter.rank=4", "run.objective={name: rmu, layer: 1, trained: c_fc}"],
            "objective.trained: 'c_fc' trains nothing of LlamaForCausalLM: choose from the names of down_proj, ",
        ),
        (["run.adapter.rank=4", f"run.objective={{{FILE}, layer: 40}}"], "objective.layer: 40: LlamaForCausalLM has "),
        (
            ["run.adapter.rank=4", f"run.objective={{{FILE}, trained: c_fc}}"],
            "objective.trained: 'c_fc' trains nothing",
        ),
    ],
)
@pytest.mark.parametrize("brought", [True, False])
def test_adapters_that_no_layer_fits_are_refused_before_ray(
    brought: bool,
    settings: list[str],
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Session, "__enter__", lambda _: pytest.fail("Ray was started"))
    data, model = tiny.write_data(tmp_path / "data"), tiny.write_model(tmp_path / "model")
    pretrained = [f"benchmark.source={data}", f"model={{name: pretrained, path: {model}}}"]
    chosen = pretrained if brought else ["model.hidden_size=32", "model.heads=2"]
    given = [word for setting in [*chosen, "space.adapter.rank=null", *settings] for word in ("--set", setting)]
    assert main(["tofu", *given]) == 2
    assert line in capsys.readouterr().err


def test_a_fisher_of_one_gradient_is_refused_before_ray(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "__enter__", lambda _: pytest.fail("Ray was started"))
    data, model = tiny.write_data(tmp_path / "data"), tiny.write_model(tmp_path / "model")
    adapter = "{name: vila, rank: 4, fisher: batch, fisher_batch_size: 1000, fisher_rows: 2000}"
    settings = [
        f"benchmark.source={data}", f"model={{name: pretrained, path: {model}}}", "space.adapter.name=null",
        "space.adapter.rank=null", f"run.adapter={adapter}",
    ]  # fmt: skip
    assert main(["tofu", *(word for setting in settings for word in ("--set", setting))]) == 2
    assert "adapter.name: vila takes the variance of gradients, and " in capsys.readouterr().err
