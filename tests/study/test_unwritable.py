"""Whatever stands around it, an error of disk or database is told as what it is."""

from __future__ import annotations

import errno
import traceback

import pytest
from ray.tune import TuneError
from sqlalchemy.exc import OperationalError

from lethe.study.tune_loop import unwritable


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def of_tune() -> None:
    """As Tune's controller does with what a callback raised."""
    try:
        full()
    except Exception:  # noqa: BLE001  # as Tune does
        raise TuneError(traceback.format_exc()) from None


def of_database() -> None:
    try:
        full()
    except OSError as error:
        raise OperationalError("INSERT", {}, error) from error


@pytest.mark.parametrize("fail", [full, of_tune, of_database])
def test_a_full_disk_is_named(fail: object) -> None:
    with pytest.raises((OSError, TuneError, OperationalError), match="No space left") as caught:
        fail()  # type: ignore[operator]
    assert unwritable(caught.value) == "[Errno 28] No space left on device"


def test_another_error_of_tune_stays_one() -> None:
    assert unwritable(TuneError("trials did not complete")) is None
