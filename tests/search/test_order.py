"""Deterministic order: whole studies are repeated, whoever is faster and wherever they are cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lethe.config.space import rebuild
from lethe.config.study import Study
from lethe.search.early_stopping import AreaRule, ParetoRule, RungEntry, RungRule, RungTables
from lethe.search.study_store import StudyStore
from tests.search.simulated import KilledError, Outcome, Simulation

Make = Callable[..., Study]
GROUPS, TRIALS = 3, 14


def search(sampler: str, **more: Any) -> dict[str, Any]:
    return {"sampler": sampler, "startup_trials": 4, "population": 4, "order": "deterministic", **more}


PARETO = ParetoRule(("forget", "utility"), ("minimize", "maximize"), (0.9, 0.3))
AREA = AreaRule(("forget", "utility"), ("minimize", "maximize"), rungs=(1, 3))


def rungs(rule: RungRule = PARETO) -> RungTables:
    return RungTables(rule, groups=GROUPS)


def opened(study: Study, start: dict[str, float], url: str | None = None) -> StudyStore:
    store = StudyStore(study, url)
    store.freeze(start)
    store.fix_groups(GROUPS)
    return store


def once(study: Study, start: dict[str, float], speed: int, rule: RungRule = PARETO) -> dict[int, Outcome]:
    return Simulation(opened(study, start), GROUPS, speed, rungs(rule)).go(TRIALS)


@pytest.mark.parametrize(("sampler", "rule"), [("tpe", PARETO), ("nsga2", PARETO), ("tpe", AREA)])
def test_a_deterministic_order_does_not_depend_on_the_faster_trial(
    make_study: Make, start: dict, sampler: str, rule: RungRule
) -> None:
    study = make_study(search=search(sampler))
    whole = once(study, start, 0, rule)
    assert sorted(whole) == list(range(TRIALS))
    assert {verdict for _, verdict, _ in whole.values()} == {"complete", "stopped"}
    assert all(once(study, start, speed, rule) == whole for speed in (1, 2))


def test_a_free_order_depends_on_the_faster_trial(make_study: Make, start: dict) -> None:
    """Else the test above would prove nothing."""
    study = make_study(search=search("tpe", order="free"))
    free = [Simulation(opened(study, start), GROUPS, speed).go(TRIALS) for speed in range(3)]
    assert free[0] != free[1] or free[0] != free[2]


def test_a_killed_and_resumed_study_equals_one_that_was_not_killed(
    make_study: Make, start: dict, tmp_path: Path
) -> None:
    """Killed twice, with results held back and trials under way; run folders keep results and rungs."""
    study = make_study(search=search("tpe"))
    whole = once(study, start, 0)
    url, known, entries = f"sqlite:///{tmp_path / 'a.db'}", {}, []
    for speed, kill_after in ((5, 17), (6, 20), (7, None)):
        table = rungs()
        table.restore(entries)
        session = Simulation(opened(study, start, url), GROUPS, speed, table)
        session.known = known
        if kill_after is None:
            found = session.go(TRIALS)
            break
        with pytest.raises(KilledError):
            session.go(TRIALS, kill_after)
        entries = [entry for tables in table._tables.values() for entry in tables.values()]
        assert isinstance(entries[0], RungEntry)
    assert {**{t: whole[t] for t in whole if t not in found}, **found} == whole
    trials = session.store.trials()
    assert sorted(t.user_attrs["index"] for t in trials) == list(range(TRIALS))
    by_index = {t.user_attrs["index"]: t for t in trials}
    assert all(by_index[i].user_attrs["verdict"] == whole[i][1] for i in whole)
    assert all(rebuild(study.run, study.space, by_index[i].params).digest() == whole[i][0] for i in whole)


def test_the_number_of_groups_is_fixed_by_the_first_session(make_study: Make, start: dict, tmp_path: Path) -> None:
    """A resume on another cluster looks as far back as the first session did."""
    study, url = make_study(search=search("random")), f"sqlite:///{tmp_path / 'a.db'}"
    opened(study, start, url)
    again = StudyStore(study, url)
    again.fix_groups(9)
    assert again.groups == GROUPS
    free = StudyStore(make_study())
    free.fix_groups(9)
    assert free.groups is None
