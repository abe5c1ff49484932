"""A whole study as one value: benchmark, model, fixed and searched settings, objectives, resources."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from lethe.config import loading
from lethe.config.adapter import Lora
from lethe.config.audit_objectives import full_names, needed_audits
from lethe.config.audits import AnyAudits, Audits
from lethe.config.base import Frozen, canonical_json, short_digest
from lethe.config.benchmark import TofuBenchmark
from lethe.config.benchmarks import AnyBenchmark
from lethe.config.comparison import Arm, Compare, arm_parts, check_read
from lethe.config.devices import with_devices
from lethe.config.error_messages import to_user_error
from lethe.config.model import AnyModel, EmbeddedModel
from lethe.config.privacy import Privacy, StoredText
from lethe.config.prompt import Prompt
from lethe.config.run import Checkpoint, Evaluation, Recipe
from lethe.config.run_and_space import check_first, check_run_and_space
from lethe.config.search import OF_AN_ARM, AnyStopping, Confirm, Goal, NoStopping, Search, Stop
from lethe.config.space import Choice, Parameter, assemble, resolved
from lethe.config.validation import (
    check_arms,
    check_audits,
    check_benchmark,
    check_comparison,
    check_goals,
    check_gpus,
    check_learning,
    check_needs,
    check_origin,
    check_repeatable,
    check_rungs,
    check_verdict,
)
from lethe.config.verdict import Criterion
from lethe.errors import UserError


class Resources(Frozen):
    """The number of warm worker groups that work on the study, and how often they save checkpoints."""

    groups: int | None = Field(None, ge=1, description="none: as many as the cluster fits and the trials can use")
    wait_s: float = Field(900, gt=0, description="seconds without any group, while nodes start, before giving up")
    gpus_per_worker: float = Field(
        1.0, gt=0, le=1, description="with engine.device cuda: a share of a GPU, such as 0.25 for four groups on each"
    )
    recycle_after: int | None = Field(None, ge=1, description="end a group's processes after so many runs")
    checkpoint: Checkpoint = Checkpoint()


TrackerName = Literal["mlflow", "wandb", "tensorboard"]


class Tracking(Frozen):
    """The stores that keep the runs: MLflow's server and experiment, and others beside it. A list stands for `to`."""

    enabled: bool = Field(True, description="false: no tracking")
    to: tuple[TrackerName, ...] = Field(("mlflow",), min_length=1, description="where runs go: one store or several")
    uri: str | None = Field(
        None, min_length=1, repr=False, description="none: MLFLOW_TRACKING_URI, else a local SQLite file"
    )
    experiment: str = Field("lethe", min_length=1, description="name of MLflow's experiment")
    register_models: bool = Field(True, description="front members become versions of a registered model")
    max_lora_rank: int | None = Field(
        None, ge=1, description="front members' adapters also at this rank, for servers that refuse more (vLLM: 16)"
    )

    @model_validator(mode="before")
    @classmethod
    def _list_of_stores(cls, given: Any) -> Any:
        return {"to": given} if isinstance(given, list | tuple) else given

    @field_validator("to")
    @classmethod
    def _once_each(cls, to: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
        if len(set(to)) < len(to):
            raise ValueError("names a store twice")
        return to

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        """A study is written into reports, databases and MLflow."""
        if uri and urlsplit(uri).password:
            raise ValueError("holds a password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead")
        return uri


class Study(Frozen):
    """A study: `run` holds fixed fields of a `Recipe`, nested; `space` holds searched ones by dotted name."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=120,
        description="the first part of the study's id",
        json_schema_extra={"default": "the file's name"},
    )
    benchmark: AnyBenchmark = TofuBenchmark()
    model: AnyModel = EmbeddedModel()
    prompt: Prompt = Prompt()
    run: dict[str, Any] = {}
    space: dict[str, Parameter] = {}
    objectives: dict[str, Goal]
    search: Search = Search()
    early_stopping: AnyStopping = NoStopping()
    stop: Stop = Stop()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    privacy: Privacy = Privacy()
    compare: Compare | None = None
    confirm: Confirm | None = None
    audits: AnyAudits | None = None
    verdict: dict[str, Criterion | None] = Field(
        {}, description="by metric, in place of the benchmark's own criteria; none: without that one"
    )

    @field_validator("benchmark", mode="before")
    @classmethod
    def _tofu_unless_named(cls, given: Any) -> Any:
        return {"name": "tofu", **given} if isinstance(given, dict) else given

    @field_validator("objectives", mode="before")
    @classmethod
    def _in_full(cls, given: Any, info: ValidationInfo) -> Any:
        benchmark = info.data.get("benchmark")  # none where it is not valid
        return full_names(given, benchmark) if isinstance(given, dict) and benchmark else given

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        check_goals(self.objectives, self.benchmark, self.tasks)
        check_audits(self.benchmark, self.audits)
        check_audits(self.benchmark, self.trial_audits())
        check_verdict(self.criteria(), self.benchmark, self.tasks)
        check_rungs(self.early_stopping, self.objectives, self.benchmark)
        check_repeatable(self.search, self.objectives, self.early_stopping, self.stop)
        check_learning(self.search)
        if self.compare is not None:
            check_comparison(self.search)
            parts = self.parts()
            check_read(self.run, self.space, [(part.run, part.space) for part in parts])
            check_arms(part.run for part in parts)
            return self
        check_run_and_space(self.run, self.space)
        check_gpus(self.resources.gpus_per_worker, self.run)
        check_needs(self.objectives, self.benchmark, self.model, self.run)
        check_origin(self.model, self.run, self.space)
        check_benchmark(self.benchmark, self.model, self.run, self.space)
        check_first(self.search.first, self.space)
        return self

    @property
    def stored_text(self) -> StoredText:
        """Return which text of the rows the study may store."""
        return self.privacy.stored(self.benchmark.personal_text)

    def canonical_fields(self, dumped: dict[str, Any]) -> dict[str, Any]:
        """Return `dumped` without the default of `privacy`, so that earlier studies keep their digests."""
        fields = super().canonical_fields(dumped)
        return {key: value for key, value in fields.items() if key != "privacy" or self.privacy != Privacy()}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the tasks of lm-evaluation-harness that every run reports; none where the section is malformed."""
        section = self.run.get("evaluation")
        given = section.get("lm_eval") if isinstance(section, dict) else None
        tasks = given.get("tasks") if isinstance(given, dict) else None
        return tuple(map(str, tasks)) if isinstance(tasks, list | tuple) else ()

    def criteria(self) -> dict[str, Criterion]:
        """Return the criteria by which a model of the front counts as having forgotten, the decisive one first."""
        return {name: c for name, c in {**self.benchmark.criteria, **self.verdict}.items() if c is not None}

    def trial_audits(self) -> Audits | None:
        """Return the audits with which every trial ends, since an objective is measured by them; None without one.
        Raises UserError for an objective of a variant that the study's audits do not try."""
        return needed_audits(self.objectives, self.audits, self.benchmark)

    def most_members(self) -> int | None:
        """Return how many members of a front are run again and audited at most, None for all of them."""
        return (self.confirm and self.confirm.members) or (OF_AN_ARM if self.compare else None)

    def members(self) -> tuple[Member, ...]:
        """Return a comparison's studies, one per seed and arm, all arms of a seed before the next; none for a plain
        study. Raises UserError that names the arm which cannot run."""
        if self.compare is None:
            return ()
        arms = self.compare.arms.items()
        return tuple(
            Member(name, seed, self._member(name, arm, seed)) for seed in self.compare.seeds for name, arm in arms
        )

    def _member(self, name: str, arm: Arm, seed: int) -> Study:
        dumped = self.model_dump(mode="json", exclude={"compare"})
        where = f"compare.arms.{name}."
        try:
            parts = arm_parts({**self.run, "seed": seed}, self.space, arm)
            alone = {} if parts["space"] else {"trials": 1}
            search = {**dumped["search"], "seed": seed, "storage": self.search.storage, **alone}
            dumped |= {
                "name": f"{self.name}-{name}-{seed}".replace("+", "-"),
                "search": search,
                "tracking": self.tracking,
            }
            return Study.model_validate({**dumped, **parts})
        except ValidationError as error:
            raise to_user_error(error, Study, where) from None
        except UserError as error:
            raise UserError(f"{where}{error}") from None

    def parts(self) -> tuple[Study, ...]:
        """Return the studies that must be possible before anything starts: the arms of a comparison with the first
        seed, else the study itself."""
        return tuple(member.study for member in self.members()[: len(self.compare.arms)]) if self.compare else (self,)

    def first_recipe(self) -> Recipe:
        """Return the recipe with every searched value at its first choice or low end: settings that are not searched
        can be read off it."""
        if self.compare is not None:
            return self.members()[0].study.first_recipe()
        fields = assemble(self.run, self.space, lambda _, p: p.choices[0] if isinstance(p, Choice) else p.low)
        return Recipe.model_validate(fields)

    def largest_rank(self) -> int:
        """Return the largest rank that an adapter of the study, or of an arm of the comparison, can have."""
        if self.compare is not None:
            return max(part.largest_rank() for part in self.parts())
        adapter, searched = self.run.get("adapter", {}), self.space.get("adapter.rank")
        fixed = adapter.get("rank", Lora.model_fields["rank"].default)
        return max(int(rank or 0) for rank in (searched.ends().values() if searched else [fixed]))

    def interim_evaluation(self) -> Evaluation | None:
        """Return the evaluation of the epochs before a run's last; None where no run has one, or it is whole."""
        if self.compare is not None:
            return next((found for part in self.parts() if (found := part.interim_evaluation())), None)
        recipe, searched = self.first_recipe(), self.space.get("schedule.epochs")
        epochs = max(int(e or 0) for e in (searched.ends().values() if searched else [recipe.schedule.epochs]))
        whole = recipe.evaluation
        return whole.before_last() if whole.interim < 1 and whole.every < epochs else None

    def largest_seed(self) -> int:
        """Return the largest seed that a run of the study's search, or of a comparison's, can have."""
        if self.compare is not None:
            return max(member.study.largest_seed() for member in self.members())
        searched = self.space.get("seed")
        given = searched.ends().values() if searched else [self.run.get("seed", Recipe.model_fields["seed"].default)]
        return max(int(seed or 0) for seed in given)

    def identity(self) -> str:
        """Return 16 hex digits over everything that determines the trials. A longer study, a comparison with more
        seeds, or one with other resources, storage, tracking or another name, has the same identity and goes on with
        the same trials."""
        dumped = self.model_dump(mode="json")
        search = {key: value for key, value in dumped["search"].items() if key not in ("trials", "storage")}
        compare = {key: value for key, value in (dumped["compare"] or {}).items() if key not in ("pairs", "seeds")}
        parts = {
            **({"compare": compare} if self.compare else {}),
            "benchmark": dumped["benchmark"],
            "model": dumped["model"],
            "prompt": dumped["prompt"],
            "run": resolved(self.run, self.space),
            "space": dumped["space"],
            "objectives": list(dumped["objectives"].items()),
            "search": search,
            "early_stopping": dumped["early_stopping"],
            **({"audits": audits.model_dump(mode="json")} if (audits := self.trial_audits()) else {}),
            # What a study has stored stays: with other privacy it is another study.
            **({} if self.stored_text == "keep" else {"text": self.stored_text}),
        }
        return short_digest(canonical_json(parts))


@dataclass(frozen=True)
class Member:
    """One arm of a comparison with one seed, and its study."""

    arm: str
    seed: int
    study: Study


def parse_study(raw: loading.Raw) -> Study:
    """Return a study from nested plain values. Raises UserError, one line, for values that are not valid."""
    try:
        return Study.model_validate(with_devices(raw))
    except ValidationError as error:
        raise to_user_error(error, Study) from None


def load_study(name_or_path: str, overrides: Iterable[str] = ()) -> Study:
    """Return a study of `search_spaces/` by name, or of a YAML file by path, after `dotted.key=value` overrides."""
    raw = loading.read(name_or_path)
    for assignment in overrides:
        raw = loading.assign(raw, assignment)
    return parse_study(raw)
