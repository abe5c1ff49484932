"""A loss from a user's file: it trains as ours do, enters the digest, and is refused in one line before a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lethe.config.objective import AnyObjective, File, Rmu, Undial, Wga
from lethe.config.run import Recipe
from lethe.config.scaling import load_scaling
from lethe.config.space import build_recipe
from lethe.config.study import load_study
from lethe.data.batches import RowKind
from lethe.errors import UserError
from lethe.storage.paths import home
from lethe.study.file_objectives import with_stored_objectives
from lethe.study.preflight import corners
from lethe.unlearning.objectives import make_loss
from lethe.unlearning.objectives.from_file import check, store
from tests import tiny
from tests.unlearning.methods import runs
from tests.unlearning.objectives.cases import EXAMPLE, counts_of, micro_batch, read

HEAD = "import torch\nfrom lethe.data.batches import RowKind\nfrom lethe.unlearning.objectives.base import token_mean\n"
DEF = "def forget_share(values, scored, counts, settings):\n    "
MEAN = "token_mean(values, RowKind.FORGET, scored, counts)"
SQUARED = f"{HEAD}def forget_values(scored, settings):\n    p = scored.logits.log_softmax(-1)\n" + (
    f"    return p.gather(1, scored.labels[:, None])[:, 0]\n{DEF}return settings['by'] * {MEAN}"
)

RMU = f"""{HEAD}
def forget_share(values, scored, counts, settings):
    h, draw = scored.states, torch.Generator().manual_seed(1)
    u = torch.rand(h.shape[1], generator=draw, dtype=torch.float64)
    away, moved = h - (3 * u / u.norm()).float(), h - scored.start_states
    held = token_mean(moved.square().mean(1), RowKind.RETAIN, scored, counts)
    return token_mean(away.square().mean(1), RowKind.FORGET, scored, counts) + settings["alpha"] * held
"""
UNDIAL = f"""{HEAD}
def forget_values(scored, settings):
    forget, log_p = scored.of(RowKind.FORGET), scored.logits.log_softmax(-1)
    lowered = scored.start_logits.scatter_add(1, scored.labels[forget, None], torch.full((int(forget.sum()), 1), -3.0))
    target = torch.zeros_like(log_p).index_put((forget,), lowered.softmax(-1))
    return -(target * log_p).sum(-1)
{DEF}return {MEAN}
"""
DOWN = r"layers\.0\..*down_proj"  # a file reads logits, so nothing behind the layer is frozen for it


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


def test_files_of_a_comparison_and_of_a_scaling_study_are_stored_too() -> None:
    own = f"{{run: {{objective: {{name: file, path: {EXAMPLE}}}}}}}"
    compared = with_stored_objectives(load_study("methods", [f"compare.arms.Mine={own}"]))
    scaled = with_stored_objectives(load_scaling("scaling-tofu", [f"scaling.arms.adamw={own}"]))
    for study in (compared, scaled):
        (path,) = {recipe.objective.path for recipe in corners(study) if isinstance(recipe.objective, File)}
        assert path.startswith("content:")


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


def own(code: str, tmp_path: Path, **settings: object) -> File:
    path = tmp_path / "own.py"
    path.write_text(code)
    return File.model_validate({"path": store(str(path)), **settings})


PAIRS = [
    (
        Rmu(layer=0, coefficient=3, trained=DOWN, gamma=1.4, reduction="token_mean"),
        RMU,
        {"layer": 0, "trained": DOWN, "gamma": 0, "settings": {"alpha": 1.4}},
    ),
    (Undial(gamma=0.7, beta=3, retain="kl"), UNDIAL, {"start_logits": True, "gamma": 0.7, "retain": "kl"}),
    (Undial(gamma=0.7, beta=3), UNDIAL, {"start_logits": True, "gamma": 0.7}),
]


@pytest.mark.parametrize(("config", "code", "settings"), PAIRS)
def test_a_file_on_states_or_the_start_models_logits_has_loss_and_gradient_of_ours(
    config: AnyObjective, code: str, settings: dict[str, object], tmp_path: Path
) -> None:
    file = own(code, tmp_path, **settings)
    check(file, "own.py")
    scored = micro_batch(file)
    theirs = make_loss(file)
    ours = make_loss(config, seed=1)
    asked = {"start_logits": scored.start_logits, "start_states": scored.start_states}
    if isinstance(config, Rmu):
        asked["start_states"] = scored.start_states[scored.of(RowKind.RETAIN)]
    (loss, _), (expected, _) = (
        each(given, counts_of(scored)) for each, given in ((theirs, scored), (ours, replace(scored, **asked)))
    )
    torch.testing.assert_close(loss, expected)
    assert ours.trained == theirs.trained
    for gradient, of_ours in zip(
        torch.autograd.grad(loss, read(config, scored)),
        torch.autograd.grad(expected, read(config, scored)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, of_ours)


@pytest.mark.parametrize("pair", PAIRS[:2], ids=["states", "logits"])
def test_a_file_on_states_or_the_start_models_logits_trains_as_ours(
    pair: tuple[AnyObjective, str, dict[str, object]], tmp_path: Path
) -> None:
    config, code, settings = pair
    assets = tiny.assets(tmp_path)
    reports = []
    for objective in (config, own(code, tmp_path, **settings)):
        recipe = Recipe.model_validate(runs.recipe(objective, seed=1).model_dump())
        reports.append(runs.run(recipe, assets, tmp_path / objective.digest())[0])
    ours, theirs = reports
    held = 1.4 * ours["retain_loss"] if isinstance(config, Rmu) else 0
    assert theirs["forget_loss"] == pytest.approx(ours["forget_loss"] + held, rel=1e-4)
    assert theirs["trained_share"] == ours["trained_share"]
    assert theirs["forget"] == pytest.approx(ours["forget"], rel=1e-4)


def test_a_file_that_reads_what_it_has_not_asked_for_is_refused(tmp_path: Path) -> None:
    for code, settings, problem in (
        (RMU, {"settings": {"alpha": 1}}, "forget_share raises AttributeError"),
        (UNDIAL, {}, "forget_values raises AttributeError"),
        (f"{DEF}return scored.logits[0, 0]", {}, "forget_share raises IndexError"),  # which no step gives it
        (f"{HEAD}{DEF}return {MEAN}.detach()", {"layer": 0}, "does not depend on logits or states"),
    ):
        with pytest.raises(UserError, match=f"^objective.path: own.py: .*{problem}"):
            check(own(code, tmp_path, **settings), "own.py")


def test_runs_of_files_that_ask_for_nothing_more_keep_their_digests() -> None:
    assert File(path="a.py", settings={"power": 2}).canonical() == (
        '{"gamma":1.0,"name":"file","path":"a.py","settings":{"power":2.0}}'
    )
