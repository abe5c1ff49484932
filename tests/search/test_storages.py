"""Where a study is kept: Optuna's own tools read it there, and no error shows a password."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from lethe.config.addresses import without_password
from lethe.config.study import Study
from lethe.errors import UserError
from lethe.search.importance import MIN_TRIALS, importances
from lethe.search.storages import open_storage, storage_url
from lethe.search.study_store import StudyStore

Make = Callable[..., Study]


def filled(study: Study, start: dict[str, float], url: str | None, trials: int) -> StudyStore:
    store = StudyStore(study, url, "mine")
    store.freeze(start)
    for i in range(trials):
        proposal = store.ask()
        rate = proposal.params["optimizer.learning_rate"]
        verdict = "stopped" if i % 5 == 4 else "complete"
        store.tell(proposal.number, {"verdict": verdict, "forget": 0.9 - 50 * rate, "utility": 0.6 - 20 * rate})
    return store


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("kind", ["sqlite:///{}/deep/a.db", "journal:{}/deep/a.log"])
def test_optunas_tools_read_the_stored_study(make_study: Make, start: dict, tmp_path: Path, kind: str) -> None:
    url = kind.format(tmp_path)
    filled(make_study(), start, url, 8)
    study = optuna.load_study(study_name="mine", storage=open_storage(url))
    assert [len(study.trials), study.metric_names] == [8, ["forget", "utility"]]
    plots = optuna.visualization.matplotlib
    assert plots.plot_pareto_front(study).get_xlabel() == "forget"
    target = {"target": lambda trial: trial.values[0], "target_name": "forget"}
    plots.plot_optimization_history(study, **target)
    plots.plot_slice(study, **target)
    assert "params_optimizer.learning_rate" in study.trials_dataframe()
    resumed = StudyStore(make_study(), url, "mine")
    assert resumed.remaining(10) == 2
    assert len(resumed.completed()) == 7


def test_importance_finds_the_parameter_that_decides(make_study: Make, start: dict) -> None:
    store = filled(make_study(search={"sampler": "random"}), start, None, 50)
    found = importances(store)
    assert list(found) == ["forget", "utility"]
    for shares in found.values():  # the larger the rate the lower forget, the smaller the rate the higher utility
        assert next(iter(shares)) == "optimizer.learning_rate"
        assert shares["optimizer.learning_rate"] > 0.5
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        assert "adapter.rank" in shares
    assert importances(filled(make_study(), start, None, MIN_TRIALS)) == {}, "of ten, two were stopped"


BAD = [
    "sqlite:////dev/null/x/a.db",
    "sqlite:///:memory:",
    "journal:/dev/null/x/a",
    "nonsense://x",
    "postgresql://127.0.0.1:1/x",
    "postgresql://u:pa%40ss@127.0.0.1:1/x",
    "mysql+no://u:pa%40ss@h/x",
    "postgresql://h:1/x?password=pa%40ss",
    "postgresql://u:pa%40ss@h:port/x",
]


@pytest.mark.parametrize("bad", BAD)
def test_a_storage_that_cannot_be_opened_is_refused(bad: str) -> None:
    with pytest.raises(UserError, match=r"the study's storage .* cannot be opened: ") as refused:
        open_storage(bad)
    assert "\n" not in str(refused.value)
    assert "pa%40" not in str(refused.value)
    assert "pa@" not in str(refused.value)
    assert refused.value.__cause__ is None, "nor a traceback"
    assert refused.value.__context__ is None, "nor a traceback"


def test_a_password_is_in_no_text_of_the_study(make_study: Make) -> None:
    url = "postgresql+psycopg2://user:s3%40cret@db.example:5432/optuna?sslmode=require"
    study = make_study(search={"storage": url})
    assert storage_url(study.search) == url
    for text in (study.model_dump_json(), repr(study), str(study.search), study.canonical()):
        assert "cret" not in text
        assert "user" not in text
    assert study.identity() == make_study(search={}).identity(), "where a study is kept is not what it is"
    with pytest.raises(UserError, match=r"^tracking\.uri: holds a password: set MLFLOW_TRACKING_USERNAME") as refused:
        make_study(tracking={"uri": url})
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize("bad", ["postgresql://u:pa@ss@h/x", "postgresql://u:pa/ss@h/x", "postgres:pass@h"])
def test_a_password_that_would_be_read_as_a_host_is_refused(make_study: Make, bad: str) -> None:
    with pytest.raises(UserError, match=r"^search\.storage: (has a password|must be an SQLAlchemy URL)") as refused:
        make_study(search={"storage": bad})
    assert "ss" not in str(refused.value).replace("password", "").replace("address", "")


def test_addresses_are_shown_without_passwords() -> None:
    assert without_password("postgresql://u:p@h:1/x and mysql://v@h2/y") == "postgresql://h:1/x and mysql://h2/y"
    assert without_password("postgresql://h/x?user=a&password=b c") == "postgresql://h/x?user=a&password=*** c"
    assert without_password("sqlite:////a/b@c.db") == "sqlite:////a/b@c.db"
