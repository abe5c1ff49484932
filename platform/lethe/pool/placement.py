"""Placement groups of worker groups: asked for once, and named, since a killed controller's have to be freed.

For the second Ray Train has a detached actor per group that asks the dashboard every second whether the controller
lives. On a machine with several clusters it does not find its own and ends without a word; and it is a process.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.util import get_placement_group, placement_group_table, remove_placement_group


class AskedOnce(FixedScalingPolicy):
    """The autoscaler sees a placement group that waits. Train would tell it again through an actor, which takes a
    second and a half to start and holds nodes for three minutes after they were needed."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Nothing."""


class Named(WorkerGroupCallback):
    """In a controller: its placement groups get names that begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        """Around the making of the workers' placement group."""
        named = partial(worker_group.placement_group, name=f"{self._prefix}{secrets.token_hex(4)}")
        with patch.object(worker_group, "placement_group", named):
            yield


def free(prefix: str) -> None:
    """Remove this job's placement groups of that name; whatever still runs in them ends."""
    for found in placement_group_table().values():
        if found["name"].startswith(prefix) and found["state"] != "REMOVED":
            try:
                remove_placement_group(get_placement_group(found["name"]))
            except ValueError:  # removed meanwhile
                continue
