"""The DeepSpeed engine as the training loop uses it: one step, one Hessian refresh, full weights for evaluation."""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn

from lethe.config.optimizer import FirstOrder
from lethe.config.run import Recipe
from lethe.models.forward import checkpoint_activations
from lethe.unlearning.optim.base import CountsWins, RefreshesHessian, make_optimizer, trained_weights
from lethe.unlearning.optim.hessian import sample_keys
from lethe.unlearning.optim.mezo import Mezo
from lethe.unlearning.optim.sam import Ascent

Losses = Sequence[Callable[[], torch.Tensor]]  # the forward pass of each micro-batch, up to its loss share


def ensure_process_group(device: str) -> None:
    """Initialise torch.distributed for one process unless it is initialised, as in a Ray Train worker: DeepSpeed needs
    it."""
    os.environ.setdefault("LOCAL_RANK", "0")
    if dist.is_initialized():
        return
    store = dist.HashStore()  # type: ignore[attr-defined]  # torch defines it and leaves it out of __all__
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=0, world_size=1)


@cache
def import_deepspeed() -> Any:
    """Import DeepSpeed without three costs of its defaults, and return the module."""
    # Its tuner, which we do not use, imports MLflow where there is one: half a second of every worker.
    with without_module("mlflow"):
        import deepspeed

    # Its shared-memory collectives are compiled on first use and need a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # It decorates an optimizer that we do not use with torch.compile, which imports all of Inductor: 5 s per worker.
    with patch.object(torch, "compile", lambda function=None, **_: function or (lambda inner: inner)):
        import deepspeed.runtime.zero.muon.muon_optimizer
    return deepspeed


@contextmanager
def without_module(name: str) -> Iterator[None]:
    """Make `import name` fail inside the block, unless the module has been imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's word for a module that there is not
    try:
        yield
    finally:
        del sys.modules[name]


def deepspeed_config(recipe: Recipe, world: int) -> dict[str, Any]:
    """Return DeepSpeed's own configuration for a recipe on `world` ranks."""
    # The training loop makes the batches: DeepSpeed's batch sizes only have to add up.
    accumulation = recipe.schedule.accumulation
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": accumulation * world,
        "gradient_clipping": recipe.schedule.clip_norm,
        "zero_optimization": {
            "stage": recipe.engine.stage,
            "contiguous_gradients": False,
            "overlap_comm": False,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
            "stage3_param_persistence_threshold": 0,
            # Looking ahead for reuse walks the trace of all forwards since the last step, at every module: an
            # evaluation of a thousand forwards took minutes. Without, a module's weights go when it is done.
            "stage3_max_reuse_distance": 0,
            **_offload(recipe.engine.offload),
        },
        "bf16": {"enabled": recipe.engine.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def _offload(kind: Literal["none", "optimizer", "parameters"]) -> dict[str, Any]:
    """Return ZeRO's settings for what lies in the CPU's memory between its uses."""
    cpu = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    match kind:
        case "none":
            return {}
        case "optimizer":
            return {"offload_optimizer": cpu}
        case "parameters":
            return {"offload_optimizer": cpu, "offload_param": cpu}


def _forget_stage_3() -> None:
    """Drop what DeepSpeed's modules keep of every stage 3 engine: weights and optimizer state would live as long as the
    process."""
    zero = import_deepspeed().runtime.zero
    # Modules whose forward goes on: every engine's outermost is put there first, and never taken off.
    zero.parameter_offload.FWD_MODULE_STACK.clear()
    # An lru_cache without limit, by coordinator and module, behind a decorator that hides it.
    coordinator = zero.parameter_offload.PartitionedParameterCoordinator
    released = coordinator._PartitionedParameterCoordinator__params_to_release
    inspect.getclosurevars(released).nonlocals["func"].cache_clear()


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _shard(model: nn.Module, config: dict[str, Any], dtype: torch.dtype) -> None:
    """Leave each rank with its part of every weight of `model`, in place and one weight at a time: none but the present
    one is cast, on the device and whole at once, whatever the model's size."""
    init = import_deepspeed().zero.Init

    class Shard(init):  # type: ignore[misc, valid-type]  # DeepSpeed has no types
        def _convert_to_zero_parameters(self, params: Iterable[nn.Parameter]) -> None:
            for p in params:
                if not hasattr(p, "ds_id"):  # tied weights come once more
                    p.data = p.data.to(dtype)
                super()._convert_to_zero_parameters([p])

    Shard(module=model, config_dict_or_path=config, dtype=dtype)


class Engine:
    """One DeepSpeed engine around one fresh model. Call `close` when the run ends."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        ensure_process_group(recipe.engine.device)
        os.environ["DS_ACCELERATOR"] = recipe.engine.device  # not what the machine has: what the run says
        deepspeed = import_deepspeed()

        self.world = dist.get_world_size()
        self.accumulation = recipe.schedule.accumulation
        config = deepspeed_config(recipe, self.world)
        if recipe.engine.stage == 3:
            # `initialize` would do it, too late: DeepSpeed counts the ranks when it reads the configuration.
            deepspeed.comm.init_distributed(dist.get_backend(), dist_init_required=False, verbose=False)
            _shard(model, config, DTYPES[recipe.engine.precision])
        self.optimizer = make_optimizer(recipe.optimizer, trained_weights(recipe.optimizer, model))
        self.passes = recipe.optimizer.passes
        self.radius = recipe.optimizer.sam_rho if isinstance(recipe.optimizer, FirstOrder) else 0.0
        if recipe.engine.gradient_checkpointing:
            checkpoint_activations(model, True)
        self.engine, self._zero, _, _ = deepspeed.initialize(
            model=model, optimizer=self.optimizer, config=config, dist_init_required=False
        )
        if recipe.engine.stage == 0 and recipe.engine.precision == "bf16":
            self._undo_first_step()
        if self.world == 1 and self._zero is self.optimizer:
            # The mean over one rank, for which DeepSpeed copies every gradient there and back.
            self.engine.enable_backward_allreduce = False
        self.module: nn.Module = self.engine.module
        self.device = self.engine.device
        self.dtype = torch.bfloat16 if recipe.engine.precision == "bf16" else torch.float32

    def _undo_first_step(self) -> None:
        """Put masters and state back to where they were: DeepSpeed's optimizer for bf16 without ZeRO takes a step with
        zero gradients when it is built, which applies weight decay once and lets AdamW count to one."""
        for masters, weights in zip(self._zero.fp32_groups, self._zero.fp16_groups, strict=True):
            for master, weight in zip(masters, weights, strict=True):
                master.data.copy_(weight.data)
        self.optimizer.state.clear()
        self.win_counts()

    def step(self, losses: Losses, rate: float) -> float:
        """Take one optimizer step from the loss shares of all micro-batches, as many on every rank, and return the
        gradient norm over all ranks before clipping.

        A share is a micro-batch's sums over GLOBAL counts. DeepSpeed averages over ranks and accumulation, so each
        share is multiplied by both: the gradient is that of the global mean however tokens are spread.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return self._accumulate(losses)

    @contextmanager
    def uphill(self, losses: Losses) -> Iterator[None]:
        """Hold the weights at `radius` up the slope of the shares, until the optimizer's step inside takes them back:
        sharpness-aware minimisation."""
        ascent = Ascent(self.optimizer)
        with self._unclipped(), ascent.keeping_gradients():
            norm = self._accumulate(losses)
        with ascent.coming_back():
            ascent.climb(self.masters(), self.radius / (norm + 1e-12))
            self.publish()
            yield

    @torch.no_grad()
    def probe(self, losses: Callable[[], Losses], rate: float, seed: int, step: int) -> float:
        """Take one step from forward passes alone, over the shares of all micro-batches that each call of `losses`
        returns. Returns the root mean square of the slopes."""
        assert isinstance(self.optimizer, Mezo)
        # One mask for all passes: another would change the loss by more than the weights do.
        dropout = int(sample_keys(seed, step, torch.tensor(-1), torch.tensor(dist.get_rank())))

        def loss() -> float:
            torch.manual_seed(dropout)
            self.publish()
            shares = [share().double() for share in losses()]
            return float(self.sum(torch.stack(shares).sum()))

        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.key = (seed, step)
        slopes = self.optimizer.step(loss)
        self.publish()
        assert slopes
        return math.sqrt(sum(slope * slope for slope in slopes) / len(slopes))

    def refresh(self, losses: Losses, sampled_tokens: int) -> float:
        """Refresh the Hessian: backward of the sampled loss, then a step in which the optimizer updates h alone.

        Returns the norm of the sampled gradient, which is not clipped.
        """
        assert isinstance(self.optimizer, RefreshesHessian)
        with self._unclipped(), self.optimizer.refresh(scale=float(sampled_tokens)):
            return self._accumulate(losses)

    def _accumulate(self, losses: Losses) -> float:
        """Go backward through the shares and step. Returns the gradient norm: where it is not finite DeepSpeed skips
        the step and says nothing, except in fp32 without ZeRO."""
        norm = None
        for number, loss in enumerate(losses, 1):
            self.engine.set_gradient_accumulation_boundary(number == len(losses))
            self.engine.backward(loss() * (self.world * self.accumulation))
            if self.engine.optimizer is self.optimizer and self.engine.is_gradient_accumulation_boundary():
                # No wrapper that keeps the norm; by now the gradients are those of all ranks.
                norm = nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])
            self.engine.step()
        return float(self.engine.get_global_grad_norm() if norm is None else norm)

    @contextmanager
    def _unclipped(self) -> Iterator[None]:
        holders = [h for h in (self._zero, self.engine.optimizer) if hasattr(h, "clip_grad")]
        before = [h.clip_grad for h in holders]
        config = self.engine._config.gradient_clipping
        try:
            self.engine._config.gradient_clipping = 0.0
            for holder in holders:
                holder.clip_grad = 0.0
            yield
        finally:
            self.engine._config.gradient_clipping = config
            for holder, value in zip(holders, before, strict=True):
                holder.clip_grad = value

    def win_counts(self) -> torch.Tensor:
        """Return [2] of this rank since the last call: coordinates that moved, and how many of these were not clipped.
        Zeros for an optimizer that does not count them."""
        return self.optimizer.win_counts() if isinstance(self.optimizer, CountsWins) else torch.zeros(2)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of `values` over ranks, on the engine's device where there are several."""
        if self.world > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold all parameters whole on every rank inside the context (stage 3 shards them)."""
        if self.engine.zero_optimization_stage() < 3:
            yield
            return
        with import_deepspeed().zero.GatheredParameters(list(self.module.parameters())):
            yield

    def masters(self) -> list[torch.Tensor]:
        """Return the fp32 tensors that the optimizer moves on this rank, in an order that recipe and rank decide: whole
        weights under stage 0, else flat shards."""
        match self.engine.zero_optimization_stage():
            case 0 if self._zero is self.optimizer:
                return [weight for group in self.optimizer.param_groups for weight in group["params"]]
            case 0:
                return [master for group in self._zero.fp32_groups for master in group]
            case 3:
                return list(self._zero.fp32_partitioned_groups_flat)
            case _:
                return list(self._zero.single_partition_of_fp32_groups)

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the weights on all ranks, as the end of a step does."""
        match self.engine.zero_optimization_stage():
            case 0 if self._zero is not self.optimizer:
                for masters, weights in zip(self._zero.fp32_groups, self._zero.fp16_groups, strict=True):
                    for master, weight in zip(masters, weights, strict=True):
                        weight.data.copy_(master.data)
            case 1 | 2:
                self._zero.update_lp_params()
            case 3:
                for shard in range(len(self._zero.fp32_partitioned_groups_flat)):
                    self._zero._reassign_or_swap_out_partitioned_parameters(shard)

    def close(self) -> None:
        """Free hooks, buffers and process groups of this engine."""
        checkpoint_activations(self.module, False)
        self.engine.destroy()
        # It refers to itself: model and optimizer would live until Python looks for such cycles, beside the next run's.
        vars(self.engine).clear()
        _forget_stage_3()
