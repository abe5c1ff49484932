"""Tasks of lm-evaluation-harness: its prompts and metrics, our scoring and generation.

Imported only where a study asks for tasks: the harness is an extra. `lethe.evaluation.lm_eval_tasks` says which task
files are refused.
"""

# ruff: noqa: E402  # lm_eval logs while it is imported

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

import numpy as np

logging.getLogger("lm_eval").setLevel(logging.ERROR)

from datasets.utils.logging import disable_progress_bar
from jinja2.sandbox import SandboxedEnvironment
from lm_eval import utils
from lm_eval.api import task as harness_task
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean  # noqa: F401  # fills the registry of metrics
from lm_eval.api.model import LM
from lm_eval.api.registry import metric_registry
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager
from torch import nn

from lethe.config.run import Evaluation, LmEval, spread
from lethe.data.template import Encoded, Template
from lethe.errors import UserError, unknown_name
from lethe.evaluation.context_length import ContextLimits
from lethe.evaluation.distributed import RankShard, evaluating
from lethe.evaluation.generation import generate, up_to_first
from lethe.evaluation.likelihood import score
from lethe.evaluation.lm_eval_tasks import own_tasks

TYPES = ("multiple_choice", "loglikelihood", "generate_until")
MOST_NEW_TOKENS = 256  # the harness's own default


def measure_tasks(model: nn.Module, template: Template, config: Evaluation, shard: RankShard) -> dict[str, float]:
    """Return the metric `lm_eval_TASK` of every task in `config.lm_eval.tasks`, in that order, on every rank alike."""
    assert config.lm_eval is not None
    tasks = load_tasks(config.lm_eval)
    outcome = _outcome(model, template, config.lm_eval, config.token_budget, shard, config.share)
    return {f"lm_eval_{name}": _value(outcome["results"][name], _metric(task)) for name, task in tasks.items()}


def _outcome(
    model: nn.Module,
    template: Template,
    config: LmEval,
    token_budget: int,
    shard: RankShard,
    share: float,
    *,
    log_samples: bool = False,
) -> dict[str, Any]:
    """Return what the harness measures of a `share` of the documents of the tasks in `config`, on every rank alike."""
    # The harness keeps a task's requests and answers in it: a copy has its own.
    tasks = {name: copy(task) for name, task in load_tasks(config).items()}
    for task in tasks.values():
        task.set_fewshot_seed(0)
    some = None
    if share < 1:
        some = {name: spread(len(range(len(task.eval_docs))[: config.limit]), share) for name, task in tasks.items()}
    with evaluating(model), _sandbox():
        lm = _Scorer(model, template, token_budget, shard)
        found: dict[str, Any] = evaluate(
            lm,
            {"tasks": tasks, "groups": {}, "group_map": {}},
            limit=None if some else config.limit,
            samples=some,
            bootstrap_iters=0,
            log_samples=log_samples,
        )
    return found


@dataclass(frozen=True, slots=True)
class Choice:
    """A multiple-choice question with its possible `ends`: the places of the right one and of the likeliest, which the
    model chose."""

    question: str
    ends: tuple[str, ...]
    right: int
    chosen: int

    @property
    def options(self) -> int:
        """Number of ends."""
        return len(self.ends)


def answer_questions(
    model: nn.Module,
    template: Template,
    config: LmEval,
    token_budget: int,
    shard: RankShard,
    *,
    share: float = 1.0,
) -> dict[str, tuple[Choice, ...]]:
    """Return the choice that a model makes of each of a `share` of the questions, by task, on every rank alike. Raises
    UserError for a task of another type than multiple choice."""
    tasks = load_tasks(config)
    for name, task in tasks.items():
        if task.OUTPUT_TYPE != "multiple_choice":
            raise UserError(f"the task {name} is of type {task.OUTPUT_TYPE}: choose one of type multiple_choice")
    outcome = _outcome(model, template, config, token_budget, shard, share, log_samples=True)
    return {name: tuple(map(_choice, outcome["samples"][name])) for name in tasks}


def _choice(sample: Mapping[str, Any]) -> Choice:
    """Return a question as the harness logged it."""
    logp = [float(response[0]) for response in sample["filtered_resps"]]
    ends = tuple(str(arguments[1]) for arguments in sample["arguments"])
    return Choice(
        str(sample["arguments"][0][0]), ends, int(sample["target"]), int(np.argmax(np.nan_to_num(logp, nan=-np.inf)))
    )


def check_names(names: Sequence[str], own: Mapping[str, Any]) -> None:
    """Raise UserError for a name that is neither a task in `own`, the user's, nor one of the harness's."""
    manager = _manager()
    for name in names:
        if name in own or name in manager.all_subtasks:
            continue
        if name in manager.all_tasks:
            raise UserError(f"run.evaluation.lm_eval.tasks: {name} is a group of tasks: name the tasks themselves")
        if own:
            raise unknown_name("task in run.evaluation.lm_eval.tasks", name, own)
        near = get_close_matches(name, manager.all_subtasks, n=5)
        hint = f": choose from {', '.join(near)}" if near else ""
        raise UserError(
            f"run.evaluation.lm_eval.tasks: lm-eval has no task {name!r}{hint} (`lm-eval ls tasks` lists all)"
        )


@cache
def _manager() -> TaskManager:
    """Return the harness's own list of tasks, which is read from thousands of files once."""
    return TaskManager()


@cache
def load_tasks(config: LmEval) -> dict[str, Task]:
    """Return the tasks of `config` by name, with their data loaded, once per process. Raises UserError for tasks that
    cannot be loaded or are of a type that is not supported."""
    own = own_tasks(config)
    manager = None if all(name in own for name in config.tasks) else _manager()
    return {name: _load(name, own.get(name), manager) for name in config.tasks}


def _load(name: str, settings: dict[str, Any] | None, manager: TaskManager | None) -> Task:
    try:
        with _sandbox():
            if settings is not None:
                _check_metrics(name, settings)
                task: Task = ConfigurableTask(config=settings)
            else:
                assert manager is not None
                task = manager.load([name])["tasks"][name]
    except UserError:
        raise
    # Files, data sets, networks and templates each fail in their own way; all mean that there is no such task.
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"evaluation.lm_eval: cannot load the task {name}: {type(error).__name__}: {first}") from error
    if task.OUTPUT_TYPE not in TYPES or getattr(task, "UNSAFE_CODE", False):
        unsafe = getattr(task, "UNSAFE_CODE", False)
        reason = "runs code that the model writes" if unsafe else f"is of type {task.OUTPUT_TYPE}"
        raise UserError(f"evaluation.lm_eval: the task {name} {reason}: choose one of type {', '.join(TYPES)}")
    _metric(task)
    return task


def _check_metrics(name: str, settings: dict[str, Any]) -> None:
    """Raise UserError for a metric that the harness does not have: it would load it from a hub, as code."""
    for entry in settings.get("metric_list") or ():
        metric = entry.get("metric") if isinstance(entry, dict) else entry
        if metric not in metric_registry:
            raise unknown_name(f"metric of the task {name}", str(metric), metric_registry)


def _metric(task: Task) -> str:
    """Return the task's first metric that is better when higher. Raises UserError where there is none."""
    for metric, higher in task.higher_is_better().items():
        if higher:
            return str(metric)
    raise UserError(f"evaluation.lm_eval: no metric of the task {task.config.task} is better when higher")


def _value(results: Mapping[str, Any], metric: str) -> float:
    """Return a metric's value after the task's first filter, 0 for NaN; `results` has the keys `metric,filter`."""
    return float(np.nan_to_num(next(value for key, value in results.items() if key.partition(",")[0] == metric)))


@contextmanager
def _sandbox() -> Iterator[None]:
    """Inside the block the harness shows no progress bars, and its templates are sandboxed."""
    # As the harness sets Jinja up, templates reach any Python object. Both are globals of its modules.
    env, bars = utils.env, harness_task.tqdm
    sandboxed = SandboxedEnvironment(
        loader=env.loader, undefined=env.undefined, keep_trailing_newline=env.keep_trailing_newline
    )
    sandboxed.filters.update(env.filters)
    utils.env, harness_task.tqdm = sandboxed, _no_bar
    disable_progress_bar()
    try:
        yield
    finally:
        utils.env, harness_task.tqdm = env, bars


def _no_bar(items: Iterable[Any], **_: Any) -> Iterable[Any]:
    return items


class _Scorer(LM):  # type: ignore[misc]  # the harness has no types
    """A model as the harness takes it: text in, numbers or text out. Ranks divide the requests among them; the harness
    sees one process."""

    def __init__(self, model: nn.Module, template: Template, token_budget: int, shard: RankShard) -> None:
        super().__init__()
        self._model, self._template, self._budget, self._shard = model, template, token_budget, shard
        self._positions = ContextLimits.of(model).context

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return the summed log-probability of each request's continuation, and whether greedy decoding gives it."""
        pairs = [self._pair(*request.args) for request in requests]
        self._check([len(pair.ids) for pair in pairs])

        def scored(some: Sequence[Encoded]) -> list[tuple[float, bool]]:
            scores = score(self._model, some, pad=self._template.pad, token_budget=self._budget)
            sums = np.nan_to_num(-scores.nll_sum, nan=-np.inf)
            return [(float(value), bool(right.all())) for value, right in zip(sums, scores.correct, strict=True)]

        return self._shard.map(pairs, scored)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Not supported: `TYPES` has no task that asks for it."""
        raise NotImplementedError

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return a greedy answer to each request, up to the first of the request's end texts."""
        groups: dict[int, list[int]] = defaultdict(list)
        prompts = [self._ids(request.args[0]) for request in requests]
        for i, request in enumerate(requests):
            if request.args[1].get("do_sample"):
                raise UserError(
                    f"evaluation.lm_eval: the task {request.task_name} samples its answers: ours are greedy"
                )
            groups[int(request.args[1].get("max_gen_toks", MOST_NEW_TOKENS))].append(i)
        answers = [""] * len(requests)
        for most, members in groups.items():
            for i, text in zip(members, self._generate([prompts[i] for i in members], most), strict=True):
                answers[i] = up_to_first(text, requests[i].args[1].get("until", ()))
        return answers

    def _generate(self, prompts: Sequence[tuple[int, ...]], most: int) -> list[str]:
        longest = max(map(len, prompts))
        self._check([longest + 1])
        most = min(most, (self._positions or longest + most) - longest)
        template = self._template

        def generated(some: Sequence[tuple[int, ...]]) -> list[list[int]]:
            return generate(
                self._model,
                some,
                stops=template.text_stops,
                pad=template.pad,
                max_new_tokens=most,
                token_budget=self._budget,
            )

        decode = template.tokenizer.decode
        return [str(decode(ids, skip_special_tokens=True)) for ids in self._shard.map(prompts, generated)]

    def _pair(self, context: str, continuation: str) -> Encoded:
        """Return the tokens of both, of which the continuation's are scored, as the harness's own loader has them.

        Spaces between them belong to the continuation. The context is tokenised alone, and the continuation is what the
        tokens of both have behind as many: where its beginning merges into the context, less than all of it is scored.
        Raises UserError for a continuation without tokens, of which the harness has no score either.
        """
        if context:
            alone = self._encode(context.rstrip())
            own, rest = alone or (self._start,), self._encode(context + continuation)[len(alone) :]
        else:
            own, rest = (self._start,), self._encode(continuation, special=False)
            rest = rest[1:] if rest[:1] == own else rest
        if not rest:
            raise UserError(
                f"evaluation.lm_eval: {continuation!r} has no tokens of its own behind {context[-20:]!r}:"
                " lm-eval has no score for it with this tokenizer"
            )
        return Encoded((*own, *rest), len(own))

    def _ids(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text; of an empty one the token that begins texts, or else ends them."""
        return self._encode(text) or (self._start,)

    @property
    def _start(self) -> int:
        bos = self._template.tokenizer.bos_token_id
        return self._template.eos if bos is None else int(bos)

    def _encode(self, text: str, special: bool = True) -> tuple[int, ...]:
        """Return the tokens of a text with what the tokenizer puts around one, BOS among it, but no second BOS."""
        tokenizer = self._template.tokenizer
        written = text.startswith(str(tokenizer.decode([self._start])))
        return tuple(tokenizer.encode(text, add_special_tokens=special and not written))

    def _check(self, lengths: Sequence[int]) -> None:
        """Raise UserError for requests longer than the model's positions: they are not truncated in silence."""
        long = [length for length in lengths if self._positions and length > self._positions]
        if long:
            raise UserError(
                f"evaluation.lm_eval: {len(long)} of {len(lengths)} requests are longer than the model's"
                f" {self._positions} tokens, the longest has {max(long)}: choose other tasks"
            )
