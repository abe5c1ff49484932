"""`--dry-run` says what a study reads, and whether it is here, without a network."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from lethe.benchmarks.base import load_benchmark
from lethe.cli.sweep import main
from lethe.config.base import short_digest
from lethe.config.benchmark import TofuBenchmark
from lethe.config.model import EmbeddedModel
from lethe.config.run import Schedule
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.scaling.estimate import describe_needs
from lethe.scaling.points import untrained_model
from lethe.study.inputs import describe_inputs, find_inputs
from lethe.study.preflight import corners
from lethe.study.preview import preview


def lines(name: str, *overrides: str) -> list[str]:
    study = load_study(name, overrides)
    return list(describe_inputs(study, find_inputs(study)))


def pretrained(folder: Path) -> list[str]:
    return [
        f"benchmark.source={folder / 'data'}",
        f"model={{name: pretrained, path: {folder / 'full'}, oracle: {folder / 'retain90'}}}",
    ]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_hub_ids_that_are_not_here_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The anchor study resolves without a network."""
    study = load_study("tofu-llama-1b")
    preview(study, find_inputs(study))
    printed = capsys.readouterr().out
    for name in ("locuslab/TOFU", "_full", "_retain90"):
        assert f"{name}: a hub id, not on this machine" in printed
    assert "system: You are a helpful assistant." in printed
    assert "date_string: 10 Apr 2025" in printed


def test_the_anchor_study_is_a_grid_of_54() -> None:
    study = load_study("tofu-llama-1b")
    sizes = [len(parameter.choices) for parameter in study.space.values()]
    assert (study.search.trials, sizes) == (54, [3, 2, 3, 3])


def test_a_prompt_is_shown_whole(golden: Path) -> None:
    brought = "\n".join(lines("tofu", *pretrained(golden / "tiny_tofu")))
    assert "  | <s><|user|>" in brought
    assert "<|end|><|assistant|>" in brought
    assert brought.endswith("</s>")
    other = "\n".join(lines("tofu", *pretrained(golden / "tiny_tofu"), "prompt.template='Q: {question} A:'"))
    assert "  | <s>Q: Where " in other, "its tokenizer adds BOS"
    embedded = "\n".join(lines("tofu"))
    assert "  | <s><|user|>" in embedded, "before its model is trained"
    assert not any(line.startswith("prompt") for line in lines("tdec"))


def test_what_is_missing_or_cannot_ask_is_refused(golden: Path, tmp_path: Path) -> None:
    given = pretrained(golden / "tiny_tofu")
    with pytest.raises(UserError, match=r"model.oracle: there is no folder /nowhere"):
        lines("tofu", *given, "model.oracle=/nowhere")
    with pytest.raises(UserError, match=r"benchmark.source '/nowhere': no such folder"):
        lines("tofu", "benchmark.source=/nowhere")
    with pytest.raises(UserError, match=r"prompt.bos: must be"):
        load_study("tofu", ["prompt.bos=maybe"])
    broken = shutil.copytree(golden / "tiny_tofu" / "full", tmp_path / "broken")
    (broken / "chat_template.jinja").write_text("{% for")
    with pytest.raises(UserError, match=f"the chat template in {broken} cannot be rendered"):
        lines("tofu", *given, f"model.path={broken}")


def test_files_that_cannot_be_the_model_are_refused_by_a_dry_run(golden: Path, tmp_path: Path) -> None:
    given = pretrained(golden / "tiny_tofu")
    for file, content, words in (
        ("model.safetensors", "version https://git-lfs.github.com/spec/v1", "model.path: .* is a pointer of Git LFS"),
        ("tokenizer.json", "{", "cannot load a tokenizer from"),
        ("tokenizer_config.json", "[]", "cannot load a tokenizer from"),
        ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id must be a token id or a list of them"),
        ("generation_config.json", "{", "generation_config.json is not JSON"),
        ("generation_config.json", "[]", "generation_config.json holds a list, not a JSON object"),
        ("prompt.json", '{"template": 3}', "prompt.json: not a prompt: template: must be a valid string, given 3"),
    ):
        broken = shutil.copytree(golden / "tiny_tofu" / "full", tmp_path / short_digest(file + content))
        (broken / file).write_text(content)
        with pytest.raises(UserError, match=words):
            lines("tofu", *given, f"model.path={broken}")
    (broken / "generation_config.json").unlink()
    (broken / "generation_config.json").symlink_to("/nowhere/blob")
    (broken / "prompt.json").unlink()
    with pytest.raises(UserError, match=r"generation_config.json is a link to /nowhere/blob, which is not there"):
        lines("tofu", *given, f"model.path={broken}")


def test_values_that_yaml_takes_for_something_else() -> None:
    assert Schedule.model_validate(yaml.safe_load("packing: off")).packing == "off"
    load_study("tofu", ["run.schedule.packing=off"])
    with pytest.raises(UserError, match=r"prompt.date_string: must be a day like 26 Jul 2024, given '2025-04-10'"):
        load_study("tofu", ["prompt.date_string=2025-04-10"])


def test_square_brackets_in_a_template_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    study = load_study("tofu", ["prompt.preset=tofu-llama2"])
    preview(study, find_inputs(study))
    assert "[INST] {question} [/INST]" in capsys.readouterr().out


def needs(name: str, *overrides: str) -> str:
    study = load_study(name, overrides)
    return describe_needs(study, corners(study), find_inputs(study))


def test_needs_are_counted_from_the_rows_that_are_here(golden: Path) -> None:
    rows = find_inputs(load_study("tofu", pretrained(golden / "tiny_tofu"))).row_lengths()
    length, answer = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    first, memory, *_ = needs("tofu", *pretrained(golden / "tiny_tofu")).splitlines()
    assert first.endswith(f"forget rows of {length:.0f} tokens, {answer:.0f} of them answer")
    assert memory.startswith("memory ")
    assert "40 forget rows of 31 tokens, 19 of them answer (tokens as measured before)" in needs("tofu")
    other = needs("tofu", f"benchmark.source={golden / 'tiny_tofu/data'}")
    assert "(tokens assumed)" in other, "the tokenizer is trained with the model"
    assert "not known" in needs("tofu-llama-1b"), "the model is not on this machine"


def test_the_embedded_rows_have_the_tokens_that_a_dry_run_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    folder = untrained_model(load_benchmark(TofuBenchmark()), EmbeddedModel())
    counted = needs("tofu", f"model={{name: pretrained, path: {folder}}}").splitlines()[0]
    assert counted.endswith("40 forget rows of 31 tokens, 19 of them answer")


def test_a_row_longer_than_micro_tokens_is_named(golden: Path) -> None:
    given = pretrained(golden / "tiny_tofu")
    longest = max(length for length, _ in find_inputs(load_study("tofu", given)).row_lengths())
    told = needs("tofu", *given, "run.schedule.micro_tokens=9").splitlines()[-1]
    assert told.startswith(f"note    run.schedule.micro_tokens is 9 and the longest forget row has {longest} tokens")
    assert "note" not in needs("tofu", *given, f"run.schedule.micro_tokens={longest}")
    less, whole = (needs("tofu", *given, *more).splitlines()[1] for more in (["run.schedule.micro_tokens=99"], []))
    assert less != whole, "the memory of a step is that of a micro-batch"


def test_the_time_before_the_trials_is_estimated(
    golden: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    given = [
        f"benchmark.source={golden / 'tiny_tofu/data'}",
        f"model={{name: finetuned, base: {golden / 'tiny_tofu/full'}}}",
    ]

    def before(*more: str) -> str:
        assert main(["tofu", "--dry-run", *(part for one in [*given, *more] for part in ("--set", one))]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("before")]
        return line

    assert re.match(r"before  .+ for the start model, .+ for the oracle to be trained \(side by side", before())
    seconds = [float(before(f"model.epochs={n}").split()[1]) for n in (100_000, 200_000)]
    assert seconds[1] == pytest.approx(2 * seconds[0], rel=0.1)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("run.objective={name: rmu}", "objective.layer: 7: LlamaForCausalLM has 4 layers, 0 to 3"),
        ("run.objective={name: rmu, layer: 1, trained: nothing}", "objective.trained: 'nothing' trains nothing of "),
        ("space.adapter.rank.choices=[4096]", "adapter.rank 4096 is larger than the model's width: choose at most 128"),
    ],
)
def test_a_dry_run_refuses_what_the_layers_of_the_model_do_not_have(
    given: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tofu", "--dry-run", "--set", given]) == 2
    assert capsys.readouterr().err.startswith(f"lethe: {line}")


def test_a_gpu_that_is_not_here_is_a_note_of_the_dry_run(
    golden: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lethe.study.preflight.this_device", lambda: "cpu")
    given = [*pretrained(golden / "tiny_tofu"), "run.engine.device=cuda"]
    assert main(["tofu", "--dry-run", *(part for one in given for part in ("--set", one))]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("note    run.engine.device is cuda, and this machine has")
    )


@pytest.mark.parametrize("address", ["models:/lethe-tofu@champion", "models:/lethe-tofu/2"])
def test_a_registered_model_is_no_hub_id(address: str) -> None:
    shown = "\n".join(lines("tofu", f"model={{name: pretrained, path: '{address}'}}"))
    assert f"{address}: a registered model" in shown
