"""A loss from a user's file: it trains as ours do, enters the digest, and is refused in one line before a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lethe.config.objective import File, Wga
from lethe.config.run import Recipe
from lethe.config.space import build_recipe
from lethe.config.study import load_study
from lethe.errors import UserError
from lethe.storage.paths import home
from lethe.study.file_objectives import with_stored_objectives
from lethe.unlearning.objectives.from_file import check, store
from tests import tiny
from tests.unlearning.methods import runs
from tests.unlearning.objectives.cases import EXAMPLE

HEAD = "import torch\nfrom lethe.data.batches import RowKind\nfrom lethe.unlearning.objectives.base import token_mean\n"
DEF = "def forget_share(values, scored, counts, settings):\n    "
MEAN = "token_mean(values, RowKind.FORGET, scored, counts)"
SQUARED = f"{HEAD}def forget_values(scored, settings):\n    p = scored.logits.log_softmax(-1)\n" + (
    f"    return p.gather(1, scored.labels[:, None])[:, 0]\n{DEF}return settings['by'] * {MEAN}"
)


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("def (", "running it raises SyntaxError"),
        ("import no_such_package", "running it raises ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit(3)", "running it raises SystemExit: 3"),
        ("# \udce9", "is no text in UTF-8"),
        ("x = 1", r"there is no function forget_share\(values, scored, counts, settings\)"),
        ("def forget_share(values): return 0", "forget_share must take values, scored, counts, settings"),
        (f"{DEF}raise ValueError('why')", "forget_share raises ValueError: why"),
        (f"{DEF}raise SystemExit", "forget_share raises SystemExit"),
        (f"{DEF}return settings['power']", "forget_share raises KeyError"),
        (f"{DEF}return 1.0", "forget_share: must return a finite scalar tensor, given 1.0"),
        (f"{DEF}return values", r"must return a finite scalar tensor, given \[12\]"),
        (f"{DEF}return values.sum() / 0", "must return a finite scalar tensor, given -inf"),
        (f"{HEAD}{DEF}return torch.tensor(1.0)", "what it returns does not depend on the logits"),
        (f"{HEAD}{DEF}return {MEAN}.detach()", "what it returns does not depend on the logits"),
        (f"{HEAD}{DEF}return {MEAN} ** 2", "shares of a divided step do not add up"),
        (f"{HEAD}{DEF}return values[scored.of(RowKind.FORGET)].mean()", "shares of a divided step do not add up"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused_by_name_before_ray_starts(
    code: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(code, "utf-8", "surrogateescape")
    study = load_study("tofu", ["space.objective.gamma=null", f"run.objective={{name: file, path: {path}}}"])
    with pytest.raises(UserError, match=f"^objective.path: {path}: .*{problem}") as raised:
        with_stored_objectives(study)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_and_a_searched_path_are_refused(tmp_path: Path) -> None:
    study = load_study("tofu", ["run.objective={name: file, path: no.py}"])
    with pytest.raises(UserError, match=r"^objective\.path: no\.py: cannot be read .*: name a Python file"):
        with_stored_objectives(study)
    space = "space.objective.path={type: choice, choices: [a.py, b.py]}"
    study = load_study("tofu", ["run.objective={name: file}", space])
    with pytest.raises(UserError, match=r"^space\.objective\.path: files cannot be searched"):
        with_stored_objectives(study)


def test_runs_are_named_by_content_and_another_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLE.read_text())
    given = ["space.objective.gamma=null", f"run.objective={{name: file, path: {path}}}"]
    study = with_stored_objectives(load_study("tofu", given))
    assert study.run["objective"]["path"].startswith("content:")
    assert with_stored_objectives(study) == study, "a stored study goes on with the stored file"
    path.write_text(EXAMPLE.read_text() + "# changed\n")
    assert with_stored_objectives(load_study("tofu", given)).identity() != study.identity()
    path.write_text(EXAMPLE.read_text() + "# changed again\n")
    address = store(str(path))
    (home() / "cache/objectives" / address.removeprefix("content:") / "objective.py").write_text("x = 1")
    with pytest.raises(UserError, match="is not the file that the study began with"):
        check(File(path=address), "mine.py")


def test_settings_are_searched_by_name() -> None:
    searched = "space.objective.settings.power={type: float, low: 0.5, high: 2}"
    fixed = f"run.objective={{name: file, path: {EXAMPLE}, settings: {{other: 3}}}}"
    study = load_study("tofu", ["space=null", fixed, searched])
    recipe = build_recipe(study.run, study.space, lambda _, parameter: parameter.high)
    assert recipe.objective == File(path=str(EXAMPLE), settings={"other": 3, "power": 2})
    assert len({recipe.objective, File(path=str(EXAMPLE), settings={"other": 3, "power": 2})}) == 1
    for key, value in (
        (searched.replace("settings", "setings"), "setings.power"),
        (searched.replace("0.5", "a"), "low"),
    ):
        with pytest.raises(UserError, match=value):
            load_study("tofu", ["space=null", fixed, key])
    with pytest.raises(UserError, match=r"learning_rate\.x"):
        load_study("tofu", ["space={optimizer.learning_rate.x: {type: float, low: 1, high: 2}}"])


def test_the_example_and_a_file_with_values_of_its_own_train_models(tmp_path: Path) -> None:
    """With power 1 the example's loss is a probability; gradient ascent in a file's own values equals ours."""
    assets = tiny.assets(tmp_path)
    mine = tmp_path / "mine.py"
    mine.write_text(SQUARED)

    def trained(objective: File | Wga) -> dict[str, float]:
        recipe = Recipe.model_validate(runs.recipe(objective, seed=1).model_dump())
        report, _ = runs.run(recipe, assets, tmp_path / objective.digest())
        assert report["verdict"] == "complete", report
        return report

    example = trained(File(path=store(str(EXAMPLE))))
    assert 0 < example["forget_loss"] < 1
    ours, own = trained(Wga(beta=0)), trained(File(path=store(str(mine)), settings={"by": 1}))
    assert own["forget_loss"] == pytest.approx(ours["forget_loss"], rel=1e-5)
    assert own["retain_loss"] == pytest.approx(ours["retain_loss"], rel=1e-5)
