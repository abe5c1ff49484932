"""Ray Train, adapted: the trainer of a worker group, which starts no process but the group's workers.

Ray Train gives every run helper processes, each of which takes a core for 1 to 2 s to import Ray Train:

* a controller, which starts the workers, polls them and starts them again. Here it is part of the thread that waits for
  the group, in the driver; nobody kills it there.
* an actor through which the workers exchange small values: how the ranks of `worker.join` find each other. A worker
  alone has nobody to find.
* one for data sets, one that frees placement groups of dead controllers, and one that asks the autoscaler for nodes,
  which sees the placement groups anyway.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal, cast

import ray
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import state, worker_group
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2._internal.logging.logging import SessionFileHandler
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from lethe.pool.group import GroupConfig

# Callbacks that Ray Train gives every controller and a group has no use for: each starts a process.
UNWANTED = ("DatasetsCallback", "PlacementGroupCleanerCallback")
NO_ACTOR = "no actor: this group has one worker"

_workers: ContextVar[int] = ContextVar("_workers")  # of the group that this thread starts


def work(config: dict[str, GroupConfig]) -> None:
    """Serve the queue until it says EXIT: a Ray Train loop. `config` has the group's configuration under `group`."""
    from lethe.pool.worker import serve  # imports torch, which the driver does not wait for

    serve(config["group"])


def group_trainer(device: Literal["cpu", "cuda"], **arguments: Any) -> DataParallelTrainer:
    """Return the trainer of a group. A CUDA group has Ray's `TorchTrainer`, which lets the workers of a node see each
    other's devices, without its process group: workers join by themselves."""
    _log_to_session()
    if device == "cpu":
        return _CpuTrainer(work, **arguments)
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend

    class _CudaBackend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(_set_torch_distributed_env_vars)

    class _CudaConfig(TorchConfig):
        @property
        def backend_cls(self) -> type[_TorchBackend]:
            return _CudaBackend

    class _CudaTrainer(_GroupTrainer, TorchTrainer):
        """Ray's `TorchTrainer` without what `_GroupTrainer` leaves out."""

    trainer = _CudaTrainer(work, torch_config=_CudaConfig(backend="nccl"), **arguments)
    return cast(DataParallelTrainer, trainer)  # for type checkers `ray.train` has the first version's TorchTrainer


class _GroupTrainer:
    """A mix-in for trainers: the controller runs in the thread that calls `fit`, and starts workers only."""

    scaling_config: Any  # of Train v2; for type checkers `ray.train` has the first version's

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # the trainer's
        return [callback for callback in callbacks if type(callback).__name__ not in UNWANTED]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        policy = OneResourceRequest(self.scaling_config)
        controller: Any = _Controller(**{**arguments, "scaling_policy": policy})  # without types
        asyncio.run(controller.run())
        return controller.get_result()


class _CpuTrainer(_GroupTrainer, DataParallelTrainer):
    """`TorchTrainer` without its process group: workers introduce themselves to each other (see `worker.join`)."""


class OneResourceRequest(FixedScalingPolicy):
    """A scaling policy that asks for a group's resources by its placement group alone, which the autoscaler sees. Ray
    Train would ask again through an actor, which takes 1.5 s to start and holds nodes for 3 min longer than needed."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Start no such actor."""

    def _maybe_send_resource_request(self) -> None:
        """Send nothing."""


class _WorkerGroup(WorkerGroup):
    """Ray Train's, whose controller is no actor."""

    def _start_impl(self, worker_group_state_builder: Any) -> None:
        _workers.set(self._worker_group_context.num_workers)
        super()._start_impl(worker_group_state_builder)

    def _init_train_context_on_workers(
        self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        answers = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=sync_actor,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,  # only asked for checkpoints of Ray Train's, which groups do not make
                **{name: values[index] for name, values in train_context_args.items()},
            )
            for index, worker in enumerate(workers)
        ]
        ray.get(answers)
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):
    worker_group_cls = _WorkerGroup


# The actor for exchanges: `worker_group` makes it of a class that it imports, `state` kills it

_makes: Any = worker_group  # for type checkers it has no such class, and functions in modules are no variables
_kills: Any = state


class _ExchangeActor:
    """In the place of Ray Train's class: an actor for groups of several workers, `NO_ACTOR` for one alone."""

    actor = _makes.SynchronizationActor

    @classmethod
    def options(cls, **options: Any) -> Any:
        """Return what makes the actor of this thread's group by `remote`."""
        return cls if _workers.get() == 1 else cls.actor.options(**options)

    @staticmethod
    def remote(**_: Any) -> str:
        """Return the word that stands for an actor."""
        return NO_ACTOR


def _end_exchange(actor: Any) -> None:
    """Kill the actor of a group, if it has one."""
    if actor != NO_ACTOR:
        ray.kill(actor)


_makes.SynchronizationActor = _ExchangeActor
_kills._shutdown_sync_actor = _end_exchange


@cache
def _log_to_session() -> None:
    """Send what controllers log to a file among the logs of Ray's session, where those of Ray's own actors are."""
    logger, handler = logging.getLogger("ray.train"), SessionFileHandler("ray-train-controllers.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(threadName)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
