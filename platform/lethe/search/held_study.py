"""One study of an Optuna storage, held in memory: what is read comes from there, what is written goes to both.

A database answers each question about a study in a millisecond or more of the driver's core, and Optuna asks some forty
per trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from lethe.search.database import Database, changed


class HeldStudy(InMemoryStorage):
    """The study `name` of `storage`, to which no other program writes.

    Ids of study and trials are the storage's, since samplers store them: NSGA-II those of a generation's parents.
    A call returns when the storage has what it writes, inside `together` when memory has it; that block writes at its
    end, also where it raised. A write that fails is taken back in memory, and trials after it are not written.
    """

    def __init__(self, storage: BaseStorage, name: str) -> None:
        """Read the study, which exists."""
        super().__init__()
        self._storage = storage
        self._together: dict[int, FrozenTrial] | None = None  # by id, the trials as the storage has them
        study = storage.get_study_id_from_name(name)
        self._max_study_id = study - 1
        super().create_new_study(storage.get_study_directions(study), name)
        for key, value in storage.get_study_user_attrs(study).items():
            super().set_study_user_attr(study, key, value)
        for key, value in storage.get_study_system_attrs(study).items():
            super().set_study_system_attr(study, key, value)
        for trial in storage.get_all_trials(study, deepcopy=False):
            self._hold(study, trial._trial_id, trial)

    def _hold(self, study: int, trial: int, template: FrozenTrial | None) -> int:
        self._max_trial_id = trial - 1
        return super().create_new_trial(study, template)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what the block changes of a trial at its end: into a database in one transaction. Inside another such
        block it does nothing."""
        if self._together is not None:
            yield
            return
        self._together = {}
        try:
            yield
        finally:
            written, self._together = self._together, None
            for trial_id, before in written.items():
                self._write(trial_id, before)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create it in the storage at once, which decides its id."""
        return self._hold(study_id, self._storage.create_new_trial(study_id, template_trial), template_trial)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set it in the storage, then in memory."""
        self._storage.set_study_user_attr(study_id, key, value)
        super().set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set it in the storage, then in memory."""
        self._storage.set_study_system_attr(study_id, key, value)
        super().set_study_system_attr(study_id, key, value)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set it in memory and the storage."""
        with self._written(trial_id):
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set them in memory and the storage."""
        with self._written(trial_id):
            return super().set_trial_state_values(trial_id, state, values)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set it in memory and the storage."""
        with self._written(trial_id):
            super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set it in memory and the storage."""
        with self._written(trial_id):
            super().set_trial_system_attr(trial_id, key, value)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a copy: Optuna's `Trial` adds to what it gets here."""
        trial = copy(self._get_trial(trial_id))
        trial.params, trial.distributions = dict(trial.params), dict(trial.distributions)
        trial.user_attrs, trial.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
        return trial

    @contextmanager
    def _written(self, trial_id: int) -> Iterator[None]:
        before = self._get_trial(trial_id)
        yield
        if self._together is None:
            self._write(trial_id, before)
        else:
            self._together.setdefault(trial_id, before)

    def _write(self, trial_id: int, before: FrozenTrial) -> None:
        after = self._get_trial(trial_id)
        try:
            if isinstance(self._storage, Database):
                self._storage.write_trial(before, after)
            else:
                _write_by_calls(self._storage, before, after)
        except BaseException:
            self._set_trial(trial_id, before)
            raise


def _write_by_calls(storage: BaseStorage, before: FrozenTrial, after: FrozenTrial) -> None:
    """Make the stored trial `before` the trial `after` by the calls that every storage has."""
    trial = after._trial_id
    if before.state == TrialState.WAITING and after.state != before.state:
        storage.set_trial_state_values(trial, TrialState.RUNNING)
    for name in [name for name in after.params if name not in before.params]:
        distribution = after.distributions[name]
        storage.set_trial_param(trial, name, distribution.to_internal_repr(after.params[name]), distribution)
    for key, value in changed(before.user_attrs, after.user_attrs).items():
        storage.set_trial_user_attr(trial, key, value)
    for key, value in changed(before.system_attrs, after.system_attrs).items():
        storage.set_trial_system_attr(trial, key, value)
    if after.state.is_finished():
        storage.set_trial_state_values(trial, after.state, after.values)
