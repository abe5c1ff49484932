"""A comparison as configuration: arms over one study, each pruned to what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from lethe.config.study import Study, load_study
from lethe.errors import UserError

STUDY = """
name: c
run: {optimizer: {weight_decay: 0.1, eps: 1e-9}}
space:
  optimizer.learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}
  optimizer.clip_threshold: {type: float, low: 0.1, high: 10, log: true}
  objective.gamma: {type: float, low: 0.1, high: 100, log: true}
objectives: {forget: {direction: minimize}, utility: {direction: maximize}}
search: {trials: 6, seed: 9}
compare:
  seeds: [4, 7]
  arms:
    FO: {run: {objective: {name: grad_diff}, optimizer: {name: adamw}}}
    SO: {run: {objective: {name: gradient_ascent}, optimizer: {name: sophia, clip_threshold: 2.0}}}
    guard: {run: {objective: {name: input_guard}}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return load_study(str(write(tmp_path, STUDY)))


def write(folder: Path, text: str) -> Path:
    (folder / "c.yaml").write_text(text)
    return folder / "c.yaml"


def test_every_arm_with_every_seed_and_its_own_space(study: Study) -> None:
    members = study.members()
    assert [(m.arm, m.seed) for m in members] == [(a, s) for s in (4, 7) for a in ("FO", "SO", "guard")]
    first, second, guard = (m.study for m in members[:3])
    assert list(first.space) == ["optimizer.learning_rate", "objective.gamma"]
    assert list(second.space) == ["optimizer.learning_rate"], "gradient ascent has no gamma, and rho is fixed"
    assert second.run["optimizer"] == {"weight_decay": 0.1, "eps": 1e-9, "name": "sophia", "clip_threshold": 2.0}
    assert [first.search.trials, second.search.trials] == [6, 6]
    assert (first.run["seed"], first.search.seed, first.name) == (4, 4, "c-FO-4")
    assert guard.run == {"objective": {"name": "input_guard"}}
    assert not guard.space
    assert guard.search.trials == 1
    assert [part.name for part in study.parts()] == ["c-FO-4", "c-SO-4", "c-guard-4"]
    assert all(not part.members() for part in study.parts())


def test_arms_are_part_of_the_identity(study: Study, tmp_path: Path) -> None:
    other = load_study(str(write(tmp_path, STUDY.replace("2.0", "3.0"))))
    assert other.identity() != study.identity()


def test_pairs_are_for_the_report_alone(study: Study, tmp_path: Path) -> None:
    named = load_study(str(write(tmp_path, STUDY.replace("seeds:", "pairs: {order: [[FO, SO]]}\n  seeds:"))))
    assert named.model_dump(mode="json")["compare"]["pairs"] == {"order": [["FO", "SO"]]}
    assert "pairs" not in study.model_dump(mode="json")["compare"], "as in studies from before it"
    assert named.identity() == study.identity()


def test_more_seeds_are_a_longer_comparison(study: Study, tmp_path: Path) -> None:
    more = load_study(str(write(tmp_path, STUDY)), ["compare.seeds=[4,7,8]"])
    assert more.identity() == study.identity()
    assert [member.study for member in more.members()][: len(study.members())] == [m.study for m in study.members()]


def test_fresh_seeds_and_audits_are_asked_of_a_comparison_that_has_begun(study: Study, tmp_path: Path) -> None:
    path = str(write(tmp_path, STUDY))
    later = load_study(path, ["confirm.seeds=2", "audits.quantisation={}"])
    assert later.identity() == study.identity()
    assert [member.study.identity() for member in later.members()] == [m.study.identity() for m in study.members()]
    assert (study.most_members(), later.most_members(), study.largest_seed()) == (5, 5, 7)
    assert load_study(path, ["confirm.members=2"]).most_members() == 2
    own = load_study(path, ["compare.arms.SO.run.seed=11", "compare.arms.FO.space.seed={type: int, low: 3, high: 20}"])
    assert own.largest_seed() == 20
    assert load_study("tofu-full").most_members() is None
    assert load_study("tofu-full", ["confirm.members=4"]).most_members() == 4


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        (
            "compare.arms.SO.run.optimizer.clip_threshold=-1",
            "compare.arms.SO.run.optimizer.clip_threshold: must be greater than 0",
        ),
        ("compare.arms.FO.run.objective.name=grad_dif", "compare.arms.FO."),
        (
            "compare.arms.FO.space={objective.gamma: {type: float, low: 3, high: 1}}",
            "compare.arms.FO.space.objective.gamma",
        ),
        ("compare.arms.FO.run.optimizer.clip_treshold=1", "compare.arms.FO."),
        (
            "compare.arms.guard.run.optimizer.learning_rate=1",
            "compare.arms.guard.run.optimizer.learning_rate: input_guard",
        ),
        ("run.foo=1", "compare.arms.FO.unknown run key 'foo'"),
        (
            "space.objective.gama={type: float, low: 1, high: 2}",
            "unknown space key 'objective.gama' (did you mean 'objective.gamma'?)",
        ),
        (
            "compare.pairs={order: [[FO, S0]]}",
            "unknown arm in compare.pairs.order 'S0': choose from FO, SO, guard",
        ),
        ("compare.seeds=[]", "compare.seeds: "),
        ("compare.arms.F O={}", "compare.arms"),
    ],
)
def test_a_mistaken_arm_is_named(assignment: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^[^\n]+$") as refused:
        load_study(str(write(tmp_path, STUDY)), [assignment])
    assert str(refused.value).startswith(line)
