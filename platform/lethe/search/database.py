"""Optuna's storage in a database, with a way to write all that changed in a trial in one transaction.

Optuna's own calls write one value each, and read the trial's row before every one.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from optuna.distributions import distribution_to_json
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Database(_CachedStorage):
    """Optuna's cached storage around an `RDBStorage`, with a call that writes a whole trial."""

    def write_trial(self, before: FrozenTrial, after: FrozenTrial) -> None:
        """Make the stored trial `before` the trial `after`: its new parameters, attributes that are new or changed,
        state and values. Written again it stays the same."""
        from optuna.storages._rdb import models  # slow to import, and loaded already where a database is open
        from sqlalchemy import update

        number = after._trial_id
        with self._backend.engine.begin() as connection:
            new = [name for name in after.params if name not in before.params]
            _replace(connection, models.TrialParamModel, number, "param_name", [_param(after, name) for name in new])
            for model, attributes in (
                (models.TrialUserAttributeModel, changed(before.user_attrs, after.user_attrs)),
                (models.TrialSystemAttributeModel, changed(before.system_attrs, after.system_attrs)),
            ):
                rows = [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]
                _replace(connection, model, number, "key", rows)
            if after.state != before.state:
                values = [_value(objective, value) for objective, value in enumerate(after.values or ())]
                _replace(connection, models.TrialValueModel, number, "objective", values)
                trials = models.TrialModel.__table__
                end = {"datetime_start": _utc(after.datetime_start), "datetime_complete": _utc(after.datetime_complete)}
                connection.execute(update(trials).where(trials.c.trial_id == number).values(state=after.state, **end))


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of `after` that `before` lacks or has with another value."""
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


def _replace(connection: Connection, model: Any, trial: int, key: str, rows: list[dict[str, Any]]) -> None:
    """Write rows of one trial in place of those with the same `key`, which an earlier attempt may have stored before
    its answer was lost."""
    from sqlalchemy import delete, insert

    if rows:
        table = model.__table__
        same = table.c[key].in_([row[key] for row in rows])
        connection.execute(delete(table).where(table.c.trial_id == trial, same))
        connection.execute(insert(table), [row | {"trial_id": trial} for row in rows])


def _param(trial: FrozenTrial, name: str) -> dict[str, Any]:
    distribution = trial.distributions[name]
    value = distribution.to_internal_repr(trial.params[name])
    return {"param_name": name, "param_value": value, "distribution_json": distribution_to_json(distribution)}


def _value(objective: int, value: float) -> dict[str, Any]:
    from optuna.storages._rdb.models import TrialValueModel

    stored, kind = TrialValueModel.value_to_stored_repr(value)
    return {"objective": objective, "value": stored, "value_type": kind}


def _utc(local: datetime | None) -> datetime | None:
    """Return a trial's time as Optuna's tables have it."""
    return local and local.astimezone(UTC).replace(tzinfo=None)
