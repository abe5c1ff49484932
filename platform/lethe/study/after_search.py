"""What comes after a search, or after all searches of a comparison: fresh seeds and audits of the fronts' members."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lethe.errors import StudyBrokenError
from lethe.pool.jobs import interruptible
from lethe.records import StudyRecord
from lethe.search.objectives import ObjectiveSpace
from lethe.search.verdict import with_verdicts
from lethe.study.auditing import audit
from lethe.study.confirmation import Front, confirm

if TYPE_CHECKING:
    from lethe.pool.worker_pool import Pool
    from lethe.study.run_requests import Planner


def finish(
    planner: Planner, pool: Pool, record: StudyRecord, fronts: Sequence[Front], objectives: ObjectiveSpace
) -> StudyRecord:
    """Return the record with the confirmations and audits that the study asks for, and verdicts that know the audits.
    Ctrl-C ends them; what has ended is kept and found by --resume."""
    study = planner.study
    if record.interrupted or not (any(fronts) and (study.confirm or study.audits)):
        return record
    try:
        with interruptible():
            if study.confirm:
                record = confirm(planner, pool, record, fronts, objectives)
            if study.audits:
                record = audit(planner, pool, record, fronts)
    except KeyboardInterrupt:
        record = record.model_copy(update={"interrupted": True})
    except StudyBrokenError as error:  # no group can be had any more: the search is over, and its result is kept
        planner.console.warn(f"fronts are neither confirmed nor audited to the end: {error}")
        record = record.model_copy(update={"interrupted": True})
    return with_verdicts(record, study.criteria()).model_copy(update={"ended": time.time()})
