"""Messages between processes: entry points and their requests, jobs, paths."""

from __future__ import annotations

import pickle
from typing import get_type_hints

import pytest

from lethe.pool.messages import EntryPoint, Job
from lethe.pool.null_run import NullRequest
from lethe.pool.resources import Shape
from lethe.records import EpochReport, FinalReport
from lethe.unlearning.requests import Request


@pytest.mark.parametrize("entry", list(EntryPoint))
def test_every_entry_point_takes_a_request_and_returns_a_final_report(entry: EntryPoint) -> None:
    request_type, function = entry.load()
    assert issubclass(request_type, Request)
    assert request_type is not Request
    assert issubclass(get_type_hints(function)["return"], FinalReport)
    assert entry.name in (function.__doc__ or ""), "grep for the member finds the function"


def test_a_request_is_the_same_behind_the_queue() -> None:
    request = NullRequest(epochs=2, seconds=0.5, metrics={"forget": float("inf"), "utility": 0.25})
    job = pickle.loads(pickle.dumps(Job.of("r", EntryPoint.NULL, request, Shape())))
    assert NullRequest.model_validate(job.payload) == request


def test_reports_may_hold_nan() -> None:
    report = pickle.loads(pickle.dumps(EpochReport(values={"epoch": 1, "forget": float("nan")})))
    assert str(report.values) == "{'epoch': 1.0, 'forget': nan}"
