"""How `pytest -n 2` shares the tests out between its processes: whole files, one after another."""

from __future__ import annotations

from typing import Any

import pytest

# Files whose tests use the session's cluster or trained benchmark. One process takes all of them: both would start or
# train one of their own.
TOGETHER = {
    "tests/cli/test_bad_input.py",
    "tests/cluster/test_refusals.py",
    "tests/field/test_search_errors.py",
    "tests/models/test_prepare.py",
    "tests/pool/test_event_log.py",
    "tests/pool/test_worker_pool.py",
    "tests/scaling/test_study.py",
    "tests/study/test_actors.py",
    "tests/study/test_afterwards.py",
    "tests/study/test_finetuning.py",
    "tests/study/test_privacy.py",
    "tests/study/test_stopping.py",
    "tests/study/test_study.py",
}
SHARED_FIXTURES = ("head", "cluster", "embedded")


def uses(item: pytest.Item, *fixtures: str) -> bool:
    """Whether a test uses one of these fixtures, also through others."""
    return not set(fixtures).isdisjoint(getattr(item, "fixturenames", ()))


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is marked slow or uses the shared cluster."""
    return "slow" in item.keywords or uses(item, "head", "cluster")


def file_of(nodeid: str) -> str:
    """Return the path of a test's file below the repository."""
    return nodeid.partition("::")[0]


def order(items: list[pytest.Item]) -> None:
    """Sort the tests by file: those of TOGETHER first, then the other slow ones; short ones fill the end, where one
    process waits for the other. Raises UsageError for a file that TOGETHER lacks."""
    sharing = {file_of(item.nodeid) for item in items if uses(item, *SHARED_FIXTURES)}
    if lacking := sharing - TOGETHER:
        raise pytest.UsageError(f"tests/side_by_side.py: TOGETHER lacks {', '.join(sorted(lacking))}")
    slow = {file_of(item.nodeid) for item in items if is_slow(item)}
    items.sort(key=lambda item: (file_of(item.nodeid) not in TOGETHER, file_of(item.nodeid) not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process a file at a time, in the order of the tests."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "together" if file_of(nodeid) in TOGETHER else file_of(nodeid)

    config.option.loadscopereorder = False
    return Files(config, log)
