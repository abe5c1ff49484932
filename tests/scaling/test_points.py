"""A point's rounds as one result."""

from lethe.records import TrialRecord
from lethe.scaling.points import joined_rounds


def measured(turn: int, seconds: float, **changes: object) -> TrialRecord:
    metrics = {"step_cpu_seconds": seconds, "tokens": 31.0}
    series = tuple({"epoch": float(i), "cpu_seconds": seconds + i} for i in (1, 2))
    given = {"number": 0, "run": f"run{turn}", "verdict": "complete", "params": {"size": "1M"}, "metrics": metrics}
    return TrialRecord.model_validate({**given, "series": series, "began": float(turn), "ended": turn + 0.5, **changes})


def test_a_slow_round_does_not_decide_a_points_median() -> None:
    found = joined_rounds(7, [measured(0, 1.0), measured(1, 9.0), measured(2, 2.0)])
    assert (found.number, found.run, found.began, found.ended) == (7, "run0", 0.0, 2.5)
    assert found.metrics == {"step_cpu_seconds": 2.0, "tokens": 31.0}
    assert [step["cpu_seconds"] for step in found.series] == [2.0, 3.0, 10.0, 11.0, 3.0, 4.0]
    assert [step["epoch"] for step in found.series] == [1, 2, 3, 4, 5, 6]


def test_a_failed_round_stands_for_its_point() -> None:
    failed = measured(1, 0.0, verdict="error", reason="out of memory", metrics={}, series=())
    found = joined_rounds(3, [measured(0, 1.0), failed, measured(2, 2.0)])
    assert (found.number, found.run, found.verdict, found.reason) == (3, "run0", "error", "out of memory")
