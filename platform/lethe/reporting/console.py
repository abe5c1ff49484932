"""What a person sees while a study runs: progress, the best points, the time left, and where to look next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lethe.records import Confirmation, Scalar, StudyRecord, TrialRecord
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from lethe.study.recorder import Recorder

MARKS = {True: "[bold green]front[/]", False: ""}


class Console:
    """Live on a terminal; one line per finished trial elsewhere."""

    def __init__(self) -> None:
        self.rich = RichConsole(highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._remaining = 0
        self._done = 0
        self._began = 0.0
        self._shown = False
        self._objectives: tuple[str, ...] = ()

    def say(self, text: str) -> None:
        """One line."""
        self.rich.print(text)

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """A spinner on a terminal, a line elsewhere, while something takes a few seconds."""
        if self.rich.is_terminal:
            with self.rich.status(text):
                yield
        else:
            self.say(text)
            yield

    def begin(
        self, record: StudyRecord, recorder: Recorder, remaining: int, labels: Mapping[str, Scalar] | None = None
    ) -> None:
        """The search starts: show the yardsticks, once, and the bar. `labels` tell a comparison's members apart."""
        self.stop()
        self._remaining, self._began, self._done = remaining, time.monotonic(), 0
        self._objectives = tuple(o.metric for o in record.objectives)
        if not self._shown:
            self._yardsticks(record)
        if labels:
            self.say(f"[bold]{'  '.join(str(label) for label in labels.values())}[/]")
        if recorder.trials:
            self.say(f"{len(recorder.trials)} trial(s) already finished, {remaining} to go")
        if self.rich.is_terminal and remaining:
            self._progress = Progress(
                TextColumn("[bold]trials[/]"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
                console=self.rich,
            )
            self._progress.start()
            self._task = self._progress.add_task("starting", total=remaining)

    def _yardsticks(self, record: StudyRecord) -> None:
        self._shown = True
        for label, scores in (("start model", record.start), ("oracle", record.oracle)):
            if scores:
                self.say(f"{label:<12} {self._values(scores.metrics)}")
        self.say(
            "floors       "
            + "  ".join(f"{o.metric} {'-' if o.floor is None else format(o.floor, '.3f')}" for o in record.objectives)
        )

    def trial(self, recorder: Recorder, ended: TrialRecord | None) -> None:
        """Something happened; `ended` if a trial finished."""
        if ended is not None:
            self._done += 1
            mark = MARKS[ended.on_front] or ("" if ended.verdict == "complete" else f"[yellow]{ended.verdict}[/]")
            self.say(f"trial {ended.number:<4} {self._values(ended.metrics)}  {_brief(ended)}  {mark}")
            if ended.reason:
                self.rich.print(f"           {ended.reason.strip().splitlines()[-1]}", markup=False)
        if self._progress:
            front = [t for t in recorder.trials.values() if t.on_front]
            left = (time.monotonic() - self._began) / max(self._done, 1) * (self._remaining - self._done)
            note = f"{len(recorder.running)} running, front {len(front)}"
            if self._done:
                note += f", about {left:.0f} s left"
            self._progress.update(self._task, completed=self._done, description=note)

    def stage(self, what: str, total: int) -> Callable[[str, TrialRecord | None], None]:
        """Work after the search, `total` pieces of it: call what it gives with each one that ended."""
        self.stop()
        done, began = 0, time.monotonic()
        if total:
            self.say(f"[bold]{what}[/]: {total} to go")

        def advance(name: str, ended: TrialRecord | None) -> None:
            nonlocal done
            done += 1
            left = (time.monotonic() - began) / done * (total - done)
            verdict = "" if ended is None or ended.verdict == "complete" else f"[yellow]{ended.verdict}[/]  "
            values = f"{self._values(ended.metrics)}  {verdict}" if ended else ""
            self.say(f"{name:<32} {values}{done} of {total}" + (f", about {left:.0f} s left" if left else ""))

        return advance

    def warn(self, text: str) -> None:
        """One line that a person should not miss; shown as it is."""
        self.rich.print(f"warning: {text}", style="yellow", markup=False)

    def finish(self, record: StudyRecord, report: Path | None, where: list[str]) -> None:
        """The front, or what a comparison found, and where to look next."""
        self.stop()
        if record.members:
            from lethe.reporting.comparison.summary import print_comparison

            print_comparison(record, self.rich)
        else:
            self.rich.print(self._table(record))
        if record.hypervolume is not None:
            self.say(f"hypervolume {record.hypervolume:.4f}")
        if record.interrupted:
            self.say("[yellow]interrupted[/]: what is finished is kept; the same command with --resume goes on")
        if report:
            self.say(f"report       {report}")
        for line in where:
            self.say(line)

    def stop(self) -> None:
        """Take the live bar down."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def _values(self, metrics: dict[str, float]) -> str:
        return "  ".join(f"{m} {metrics[m]:.3f}" if m in metrics else f"{m} -" for m in self._objectives)

    def _table(self, record: StudyRecord) -> Table:
        names = {n: alias for alias, n in reversed(record.aliases.items())}
        title = f"{record.id}: {len(record.front)} of {len(record.trials)} trials on the front"
        table = Table(title=title, title_justify="left")
        again = any(t.confirmation for t in record.front)
        heads = ("trial", *(o.metric for o in record.objectives), *(["fresh seeds"] if again else []))
        for column in (*heads, "name", "configuration"):
            table.add_column(column, overflow="fold")
        for t in record.front:
            values = [f"{t.metrics[o.metric]:.3f}" for o in record.objectives]
            told = [_again(t.confirmation)] if again else []
            table.add_row(str(t.number), *values, *told, names.get(t.number, ""), _brief(t))
        return table


SHORT = {
    "objective.name": "",
    "optimizer.name": "",
    "adapter.name": "",
    "adapter.rank": "rank",
    "optimizer.learning_rate": "lr",
    "optimizer.clip_threshold": "rho",
    "optimizer.hessian_interval": "k",
    "objective.gamma": "gamma",
    "objective.damping": "damping",
    "objective.strength": "strength",
}


def _again(confirmation: Confirmation | None) -> str:
    if confirmation is None:
        return ""
    means = "  ".join(f"{mean:.3f} ± {confirmation.spread[name]:.3f}" for name, mean in confirmation.mean.items())
    return means if confirmation.confirmed else f"{means}  [yellow]{confirmation.reason}[/]".strip()


def _brief(trial: TrialRecord) -> str:
    parts = []
    for key, short in SHORT.items():
        if (value := trial.params.get(key)) is not None:
            shown = f"{value:.2g}" if isinstance(value, float) else str(value)
            parts.append(f"{short} {shown}".strip())
    return " ".join(parts)
