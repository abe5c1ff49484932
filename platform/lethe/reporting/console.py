"""Progress of a study on a terminal: its stages, trials and their epochs, the time left, the front, what to do next."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from lethe.records import Metrics, Scalar, StudyRecord, TrialRecord
from lethe.reporting.next_steps import LOOK, next_steps
from lethe.reporting.opening import unclaimed
from lethe.reporting.scales import format_duration
from lethe.reporting.terminal_tables import describe_empty_front, format_settings, front_table, searched
from lethe.reporting.trial_views import aliases_by_trial
from lethe.terminal import PIPED_WIDTH, Terminal, command_prefix

FRONT_MARK = ("front", "bold green")
SHOWN = 3  # of the running trials, beside the bar
LEAST_S = 10.0  # of a search before the rest can be estimated: its first seconds are the workers' imports


class RunningTrial(Protocol):
    """A trial that has not ended."""

    @property
    def series(self) -> Sequence[Metrics]:
        """Its reports by epoch."""

    @property
    def params(self) -> Mapping[str, Scalar]:
        """Its parameters."""

    @property
    def steps(self) -> tuple[int, int]:
        """The optimizer steps that it has taken, and all; 0 of 0 where that is unknown."""


class SearchProgress(Protocol):
    """A search as the console reads it: its finished trials and its running ones, by number."""

    @property
    def trials(self) -> Mapping[int, TrialRecord]:
        """The finished trials."""

    @property
    def running(self) -> Mapping[int, RunningTrial]:
        """The running trials."""


class Console:
    """Shows a study's progress: live on a terminal, elsewhere a line per finished trial."""

    def __init__(self, terminal: Terminal | None = None) -> None:
        """Print on `terminal`; by default on standard output."""
        self.rich = terminal or Terminal(soft_wrap=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._remaining = 0
        self._done = 0
        self._began = 0.0
        self._references_printed = False
        self._objectives: tuple[str, ...] = ()
        self._searched: Collection[str] = ()

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Print one line of parts, each a text or (text, style)."""
        self.rich.print(Text.assemble(*parts))

    def warn(self, text: str) -> None:
        """Print one yellow line."""
        self.rich.print(f"warning: {text}", style="yellow")

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Show a spinner on a terminal, a line elsewhere, while a block of a few seconds runs."""
        if self.rich.is_terminal:
            with self.rich.status(Text(text)):
                yield
        else:
            self.say(text)
            yield

    def begin(
        self, record: StudyRecord, search: SearchProgress, remaining: int, labels: Mapping[str, Scalar] | None = None
    ) -> None:
        """Show the beginning of a search with `remaining` trials to go: once what the evaluation leaves out and the
        reference scores, then the bar.

        `labels` tell the members of a comparison apart.
        """
        self.stop()
        self._remaining, self._began, self._done = remaining, time.monotonic(), 0
        self._objectives = tuple(goal.metric for goal in record.objectives)
        self._searched = searched(record)
        if not self._references_printed:
            self._print_references(record)
        if labels:
            self.say(("  ".join(str(label) for label in labels.values()), "bold"))
        if search.trials:
            self.say(f"{len(search.trials)} trial(s) already finished, {remaining} to go")
        if self.rich.is_terminal and remaining:
            self._progress = Progress(
                TextColumn("trials", style="bold"),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
                console=self.rich,
            )
            self._progress.start()
            self._task = self._progress.add_task("worker groups are starting", total=remaining)

    def _print_references(self, record: StudyRecord) -> None:
        self._references_printed = True
        for note in record.notes:
            self.warn(note)
        for label, scores in (("start model", record.start), ("oracle", record.oracle)):
            if scores:
                self.say(f"{label:<12} {self._format_objectives(scores.metrics)}")
        self.say(
            "floors       "
            + "  ".join(f"{o.metric} {'-' if o.floor is None else format(o.floor, '.3f')}" for o in record.objectives)
        )

    def trial(self, search: SearchProgress, ended: TrialRecord | None) -> None:
        """Print the line of a trial that ended, if one did, and bring the bar up to date."""
        if ended is not None:
            self._done += 1
            mark = FRONT_MARK if ended.on_front else _verdict(ended)
            settings = format_settings(ended, self._searched)
            self.say(f"trial {ended.number:<4} {self._format_objectives(ended.metrics)}  {settings}  ", mark)
            if ended.reason:
                self.say(f"           {ended.reason.strip().splitlines()[-1]}")
        if self._progress and self._task is not None:
            front = [trial for trial in search.trials.values() if trial.on_front]
            done = self._done + sum(trial.steps[0] / max(trial.steps[1], 1) for trial in search.running.values())
            spent = time.monotonic() - self._began
            left = spent / done * (self._remaining - done) if done and spent > LEAST_S else 0
            notes = [f"front {len(front)}", *_describe_running(search.running)]
            if left > 0:
                notes.insert(1, f"about {format_duration(left)} left")
            self._progress.update(self._task, completed=done, description=", ".join(notes))

    def stage(self, name: str, total: int) -> Callable[[str, TrialRecord | None], None]:
        """Announce a stage of `total` pieces after the search. Call the returned function with the name of each piece
        that ended, and with its record where it is a trial."""
        self.stop()
        done, began = 0, time.monotonic()
        if total:
            self.say((name, "bold"), f": {total} to go")

        def advance(piece: str, ended: TrialRecord | None) -> None:
            nonlocal done
            done += 1
            left = (time.monotonic() - began) / done * (total - done)
            values = f"{self._format_objectives(ended.metrics)}  " if ended else ""
            verdict = _verdict(ended, "  ") if ended else ""
            rest = f", about {format_duration(left)} left" if left else ""
            self.say(f"{piece:<32} {values}", verdict, f"{done} of {total}{rest}")

        return advance

    def finish(self, record: StudyRecord, report: Path | None, locations: list[str]) -> None:
        """Print the front, or the findings of a comparison, then the report's path and the lines `locations`."""
        self.stop()
        if record.members:
            from lethe.reporting.comparison.summary import print_comparison  # loads scipy, which takes a while

            print_comparison(record, self.rich)
        elif record.front:
            tables = self.rich if self.rich.is_terminal else Terminal(width=PIPED_WIDTH, file=self.rich.file)
            tables.print(front_table(record))
            self._print_verdict(record)
        else:
            self.say(describe_empty_front(record))
        if record.hypervolume is not None:
            self.say(f"hypervolume {record.hypervolume:.4f}")
        if record.interrupted:
            self.say(("interrupted", "yellow"), ": what is finished is kept; the same command with --resume goes on")
        if report:
            self.say(f"report       {report}")
        for line in locations:
            self.say(line)

    def next_step(self, record: StudyRecord) -> None:
        """Print as the last line a command that works when pasted: to look at the study, or to go on with it."""
        steps = next_steps(record, call=command_prefix())
        self.command(*(steps[0] if record.interrupted else next(step for step in steps if step.purpose == LOOK)))

    def command(self, purpose: str, command: str) -> None:
        """Print what a command does, and the command on a line of its own."""
        self.say(f"{purpose}:")
        self.say(command)

    def _print_verdict(self, record: StudyRecord) -> None:
        """Print whether the model with the best verdict has forgotten, and what it lacks."""
        best = record.winner
        if best and best.forgotten:
            names = aliases_by_trial(record).get(best.number, [])
            named = f" ({', '.join(names)})" if names else ""
            self.say(f"trial {best.number}{named}: {best.forgotten.describe()}")
            for sentence in unclaimed(record):
                self.say(sentence)

    def stop(self) -> None:
        """Take the live bar down, if there is one."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def _format_objectives(self, metrics: Mapping[str, float]) -> str:
        return "  ".join(f"{m} {metrics[m]:.3f}" if m in metrics else f"{m} -" for m in self._objectives)


def _verdict(trial: TrialRecord, behind: str = "") -> tuple[str, str]:
    """Return a trial's verdict with the text `behind` it, and its style; empty for a complete trial."""
    return ("" if trial.verdict == "complete" else trial.verdict + behind, "yellow")


def _describe_running(running: Mapping[int, RunningTrial]) -> Iterator[str]:
    """Yield where the first of the running trials are, and how many others there are."""
    for number, trial in list(running.items())[:SHOWN]:
        yield f"trial {number}: {_describe_place(trial)}"
    if len(running) > SHOWN:
        yield f"{len(running) - SHOWN} more"


def _describe_place(trial: RunningTrial) -> str:
    """Return epoch and step of a running trial: `epoch 3/30, step 41/75`."""
    (step, total), epochs = trial.steps, trial.params.get("schedule.epochs")
    last = trial.series[-1] if trial.series else {}
    step = max(step, int(last.get("optimizer_step", 0)))
    whole = isinstance(epochs, int) and total and trial.params.get("schedule.max_steps") is None
    epoch = -(-step * int(str(epochs)) // total) if whole else int(last.get("epoch", 0))
    parts = [f"epoch {epoch}/{epochs}" if isinstance(epochs, int) else f"epoch {epoch}"] if epoch else []
    parts += [f"step {step}/{total}" if total else f"step {step}"] if step else []
    return ", ".join(parts) or "begins"
