"""Every mistake in a study is one line that names the key, what was given and what would work."""

from pathlib import Path

import pytest

from lethe.config.loading import spaces
from lethe.config.study import load_study
from lethe.errors import UserError

BASE = """
run: {optimizer: {name: sophia}, adapter: {name: lora}}
space:
  optimizer.learning_rate: {type: float, low: 1e-5, high: 1e-2, log: true}
  optimizer.clip_threshold: {type: float, low: 0.01, high: 1000, log: true}
  adapter.rank: {type: choice, choices: [4, 8]}
objectives:
  forget: {direction: minimize, floor_of_start: 1.0}
  utility: {direction: maximize, floor_of_start: 0.5}
"""

CASES = {
    # Unknown keys and names
    "serch.trials=3": "unknown key 'serch' (did you mean 'search'?): choose from audits, benchmark, ",
    "search.trails=3": "unknown key 'search.trails' (did you mean 'search.trials'?): choose from search.first, ",
    "search.sampler=tpee": "unknown search.sampler 'tpee' (did you mean 'tpe'?): choose from gp, nsga2, random, tpe",
    "model.name=embeded": "unknown model.name 'embeded' (did you mean 'embedded'?): choose from "
    "embedded, embedded_gpt_neo, finetuned, pretrained",
    "model={name: embedded, widht: 3}": "unknown key 'model.widht'",
    "model={layers: 3}": "model.name: missing: choose from embedded, embedded_gpt_neo, pretrained, finetuned",
    "benchmark.corpus.author=20": "unknown key 'benchmark.corpus.author' (did you mean 'benchmark.corpus.authors'?)",
    "run.optimiser.name=adamw": "unknown run key 'optimiser' (did you mean 'optimizer'?)",
    "run.optimizer.nme=adamw": "unknown run key 'optimizer.nme' (did you mean 'optimizer.name'?): choose",
    "run.optimizer.name=adam": "unknown run.optimizer.name 'adam' (did you mean 'adamw'?): choose from adamw, ",
    "run.objective.name=npoo": "unknown run.objective.name 'npoo' (did you mean 'npo'?)",
    "run.objective.name=@npo": "YAML begins no plain text with @: quote it: --set 'run.objective.name=\"@npo\"'",
    "run.objective={name: rmu, trained: '('}": "run.objective.trained: '(' is no regular expression: ",
    "run.objective={name: file, path: a.py, trained: '('}": "run.objective.trained: '(' is no regular expression: ",
    "run.objective={name: rmu, layer: -1}": "run.objective.layer: must be greater than or equal to 0",
    "run.objective={name: pdu, retain: none}": "run.objective.retain: must be 'nll' or 'kl', given 'none'",
    # Objectives
    "objectives.utilty={direction: maximize}": "unknown metric in objectives 'utilty' (did you mean 'utility'?)",
    "objectives.utility.direction=null": "objectives.utility.direction: missing: choose from maximize, minimize",
    "objectives.utility.direction=max": "unknown objectives.utility.direction 'max': choose from maximize, minimize",
    "objectives={forget: null, utility: null}": "objectives: none: choose from cpu_seconds, forget, ",
    "objectives=null": "objectives: missing",
    "objectives.forget.floor=0.9": "objectives.forget: has both floor and floor_of_start: give one",
    "objectives.seconds={direction: minimize, floor_of_start: 2}": "objectives.seconds.floor_of_start: a start model",
    # The space
    "space.optimizer.clip_treshold={type: int, low: 1, high: 2}": "unknown space key 'optimizer.clip_treshold' (did",
    "space.optimzer.eps={type: float, low: 1e-9, high: 1e-8}": "unknown space key 'optimzer.eps' (did you mean 'optimi",
    "space.optimizer={type: int, low: 1, high: 2}": "unknown space key 'optimizer'",
    "space.seed.x={type: int, low: 1, high: 2}": "unknown space key 'seed.x'",
    "space.schedule.name={type: choice, choices: [a]}": "unknown space key 'schedule.name'",
    "space.objective.beta={type: float, low: 2, high: 1}": "space.objective.beta: low 2.0 is above high 1.0",
    "space.seed={type: int, low: 0, high: 9, log: true}": "space.seed: a log range needs low above 0, given low 0",
    "space.seed={type: int, low: 0.5, high: 9}": "space.seed.low: must be a valid integer",
    "space.seed={type: int, low: 1}": "space.seed.high: missing",
    "space.seed={type: float, low: 0, high: .inf}": "space.seed.high: must be a finite number",
    "space.seed={type: real, low: 0, high: 1}": "unknown space.seed.type 'real': choose from choice, float, int",
    "space.seed={low: 0, high: 1}": "space.seed.type: missing: choose from float, int, choice",
    "space.seed=3": "space.seed: must be a section with keys of its own",
    "space.adapter.rank.choices=[]": "space.adapter.rank.choices: must have at least 1 item",
    "space.adapter.rank.choices=[4, 4]": "space.adapter.rank.choices: a choice is named twice",
    "space.adapter.rank.choices=[4, [8]]": "space.adapter.rank.choices: [8] is not a finite number, text, ",
    "space.adapter.rank.choices=[4, 0]": "space.adapter.rank.choices[1]: must be greater than or equal to 1, given 0",
    "space.adapter.rank.choices=[4, 8.5]": "space.adapter.rank.choices[1]: must be a valid integer",
    "space.optimizer.eps={type: float, low: 0, high: 1}": "space.optimizer.eps.low: must be greater than 0, given 0.0",
    "space.schedule.warmup={type: float, low: 0, high: 1}": "space.schedule.warmup.high: must be less than 1, given 1",
    "space.schedule.epochs={type: float, low: 1, high: 5}": "space.schedule.epochs.type: must be a valid integer",
    "space.optimizer.betas={type: float, low: 0.1, high: 0.9}": "space.optimizer.betas.low: must be a valid tuple",
    "space.optimizer.name={type: int, low: 1, high: 2}": "space.optimizer.name.type: must be choice: choose from ",
    "space.optimizer.name={type: choice, choices: [adam]}": "unknown choice in space.optimizer.name 'adam' (did you",
    "space.engine.stage={type: int, low: 0, high: 4}": "space.engine.stage.high: must be 0, 1, 2 or 3, given 4",
    # A parameter that no variant of the study has
    "run.adapter.fisher_rows=3": "run.adapter.fisher_rows: lora has no fisher_rows, fila and vila have: ",
    # A parameter that means nothing beside the others
    "run.objective={name: npo, retain: none, gamma: 2}": "run.objective.gamma: needs objective.retain nll or kl, given "
    "none: take it out with --set run.objective.gamma=null",
    "run.optimizer={name: sophia, hessian: squared_gradient, hessian_interval: 5}": "run.optimizer.hessian_interval: "
    "needs optimizer.hessian gnb, given squared_gradient: take it out with --set run.optimizer.hessian_interval=null",
    "run.adapter={name: fila, fisher_batch_size: 3}": "run.adapter.fisher_batch_size: needs "
    "adapter.fisher batch, given",
    "run.optimizer={name: lion, hessian_interval: 5}": "run.optimizer.hessian_interval: lion has no hessian_interval, ",
    "run.optimizer={name: mezo, betas: [0.9, 0.9]}": "run.optimizer.betas: mezo has no betas, ",
    "run.optimizer={name: sophia, sam_rho: 0.05}": "run.optimizer.sam_rho: sophia has no sam_rho, ",
    "run={optimizer: {name: mezo}, engine: {stage: 2}}": "optimizer.name: mezo needs engine.stage 0, given 2",
    "run={optimizer: {name: muon}, engine: {stage: 1}}": "optimizer.name: muon needs engine.stage 0, given 1",
    "run={optimizer: {name: muon}, engine: {stage: 3, offload: optimizer}}": "optimizer.name: muon needs ",
    "run.optimizer={name: muon, momentum: 1}": "run.optimizer.momentum: must be less than 1, given 1",
    "run.engine.stage=1\0space.optimizer.name={type: choice, choices: [mezo, adamw]}": "optimizer.name: mezo needs ",
    "run.adapter.rank=0": "run.adapter.rank: must be greater than or equal to 1, given 0",
    "run.adapter={name: vila, fisher_rows: 1}": "run.adapter: fisher_rows: the variance of one gradient is zero: take "
    "at least 2",
    "run.adapter={name: vila, fisher: batch, fisher_rows: 16}": "run.adapter: fisher_rows: the variance of one "
    "gradient is zero: take at least 17",
    # Values
    "run.optimizer.weight_decay=-1": "run.optimizer.weight_decay: must be greater than or equal to 0, given -1",
    "run.optimizer.weight_decay=.nan": "run.optimizer.weight_decay: must be a finite number, given nan",
    "run.engine.precision=fp16": "run.engine.precision: must be 'fp32' or 'bf16', given 'fp16'",
    "run.engine.offload=optimizer": "run.engine: offload: optimizer needs stage 2 or 3, and this is stage 0",
    "run.engine={stage: 2, offload: parameters}": "run.engine: offload: parameters needs stage 3, and this is stage 2",
    "run.engine.offload=disk": "run.engine.offload: must be 'none', 'optimizer' or 'parameters', given 'disk'",
    "run.schedule.micro_tokens=0": "run.schedule.micro_tokens: must be greater than or equal to 1",
    "run.schedule.epochs=many": "run.schedule.epochs: must be a valid integer",
    "run.adapter=lora": "run.adapter: must be a section with keys of its own, given 'lora'",
    "run.seed=-1": "run.seed: must be greater than or equal to 0, given -1",
    "search.trials=0": "search.trials: must be greater than or equal to 1, given 0",
    "search={trials: 0, seed: -1}": "search.trials: must be greater than or equal to 1, given 0 (and 1 more mistake)",
    "resources.groups=0": "resources.groups: must be greater than or equal to 1, given 0",
    "tracking.max_lora_rank=0": "tracking.max_lora_rank: must be greater than or equal to 1, given 0",
    "tracking.enabled=perhaps": "tracking.enabled: must be true or false, given 'perhaps'",
    "prompt.bos=maybe": "prompt.bos: must be true or false, given 'maybe'",
    "prompt.arguments={a: [1]}": "prompt.arguments.a: must be true or false, an integer, a number or a text, given [1]",
    "name=../x": "name: must match pattern",
    # The search
    "search.order=fixed": "unknown search.order 'fixed': choose from deterministic, free",
    "search.first=[{}]": "search.first[0]: is empty: choose from adapter.rank, optimizer.clip_threshold, ",
    "search.first=[{adapter.rnk: 4}]": "unknown key in search.first[0] 'adapter.rnk' (did you mean "
    "'adapter.rank'?): choose",
    "search.first=[{adapter.rank: 5}]": "search.first[0].adapter.rank: must be one of 4, 8, given 5",
    "search.first=[{adapter.rank: 4}, {optimizer.learning_rate: "
    "1}]": "search.first[1].optimizer.learning_rate: must be a number from 1e-05 to 0.01, given 1",
    "search.first=[{adapter.rank: 4}, {adapter.rank: 4}]": "search.first[1]: is the same point as "
    "search.first[0]: take",
    "search.first=3": "search.first: must be a valid tuple, given 3",
    "search={warm_start: old, sampler: nsga2}": "search.warm_start: nsga2 does not learn from "
    "another study's trials: use",
    "search.storage=postgres:secret@host": "search.storage: must be an SQLAlchemy URL, such as postgresql://host/database",
    "search={order: deterministic}\0objectives.seconds={direction: "
    "minimize}": "search.order: seconds is measured, so a study over it cannot be repeated: use free",
    "search={order: deterministic}\0stop.hours=8": "search.order: a study that ends by the clock cannot be repeated",
    # Early stopping and the study's end
    "early_stopping.name=asha": "unknown early_stopping.name 'asha' (did you mean 'mo_asha'?): "
    "choose from area_halving, mo_asha, none",
    "early_stopping={grace: 1}": "early_stopping.name: missing: choose from none, mo_asha, area_halving",
    "early_stopping={name: area_halving, rungs: [2, 1]}": "early_stopping.rungs: must be ascending whole numbers, each "
    "at least 1",
    "early_stopping={name: area_halving, rungs: [0, 1]}": "early_stopping.rungs: must be ascending whole numbers, each "
    "at least 1",
    "early_stopping={name: mo_asha, eta: 1}": "early_stopping.eta: must be greater than or equal to 2, given 1",
    "early_stopping={name: mo_asha, grace: 0}": "early_stopping.grace: must be greater than or equal to 1, given 0",
    "early_stopping={name: mo_asha, graze: 1}": "unknown key 'early_stopping.graze' (did you mean "
    "'early_stopping.grace'?)",
    "early_stopping={name: mo_asha, resource: steps}": "unknown early_stopping.resource 'steps'",
    "early_stopping={name: mo_asha, metrics: [utilty]}": "unknown metric in early_stopping.metrics "
    "'utilty' (did you mean",
    "early_stopping={name: mo_asha, metrics: []}": "early_stopping.metrics: must have at least 1 item",
    "stop.no_growth=0": "stop.no_growth: must be greater than or equal to 1, given 0",
    "stop.hours=0": "stop.hours: must be greater than 0, given 0",
    "stop.minute=3": "unknown key 'stop.minute' (did you mean 'stop.minutes'?): choose from stop.hours, stop.minutes, ",
    # The form
    "search.trials": "--set search.trials: needs the form dotted.key=value",
    "=3": "--set =3: needs the form dotted.key=value",
    "search..trials=3": "--set search..trials=3: needs the form",
    "name.first.second=3": "--set name.first.second: name is the value 'mine', not a section",
    "search.trials=[": "--set search.trials, line 1: not YAML",
}

FILES = {
    "": "mine.yaml: not a study: a mapping of sections is needed",
    "[1, 2]": "mine.yaml: not a study: a mapping of sections is needed",
    "search: {trials: 3": "mine.yaml, line 1: not YAML",
    "run: {}\nrun: {}": "mine.yaml, line 2: not YAML: key 'run' twice",
    BASE + "  seed: {direction: minimize}": "unknown metric in objectives 'seed'",
    BASE.replace("lora}", "lora, rank: 4}"): "run.adapter.rank: is searched by space.adapter.rank as well: take one",
    "extends: mine": "mine.yaml: extends itself",
    "extends: tofuu": "unknown study 'tofuu' (did you mean 'tofu'?)",
    "extends: other/tofu.yaml": "no such study file: ",
    "extends: [tofu]": "mine.yaml: extends: needs the name or path of one study, given ['tofu']",
    "search: !!python/object/apply:os.getcwd []": "mine.yaml, line 1: not YAML: could not determine a constructor",
}


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        load_study(str(path), overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("override", CASES)
def test_a_mistaken_override(override: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(BASE)
    assert CASES[override] in refusal(path, *override.split("\0"))


@pytest.mark.parametrize("text", FILES)
def test_a_mistaken_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert FILES[text] in refusal(path)


def test_an_unknown_study() -> None:
    assert refusal(Path("tofuu")) == "unknown study 'tofuu' (did you mean 'tofu'?): choose from " + ", ".join(
        sorted(spaces())
    )
    assert refusal(Path("no/such.yaml")) == "no such study file: no/such.yaml"


def test_a_rule_across_fields_that_no_trial_can_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import model_validator

    from lethe.config import run_and_space
    from lethe.config.run import Recipe

    class Strict(Recipe):
        @model_validator(mode="after")
        def _rule(self) -> "Strict":
            if self.engine.stage == 3 and self.adapter.name == "lora":
                raise ValueError("stage 3 has no lora here")
            return self

    monkeypatch.setattr(run_and_space, "Recipe", Strict)
    load_study("tofu", ["run.adapter.name=lora"])
    assert "stage 3 has no lora here" in refusal(Path("tofu"), "run.adapter.name=lora", "run.engine.stage=3")
    both = "space.adapter.name={type: choice, choices: [lora, full]}"
    load_study("tofu", ["run.engine.stage=3", both])
