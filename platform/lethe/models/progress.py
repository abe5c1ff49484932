"""What a person sees while models are trained: bars on a terminal, a line per quarter elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lethe.models.children import Report


@contextmanager
def console_report(names: Sequence[str]) -> Iterator[Report]:
    """Takes finished shares by name, from any thread."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.print(f"training {' and '.join(names)}; they are kept for the next study")
        yield _lines(console)
        return
    columns = (
        TextColumn("training {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {name: bars.add_task(name, total=1.0) for name in names}
        yield lambda name, share: bars.update(tasks[name], completed=share)


def _lines(console: Console) -> Report:
    shown: dict[str, int] = {}

    def report(name: str, share: float) -> None:
        quarter = int(share * 4)
        if quarter > shown.get(name, 0):
            shown[name] = quarter
            console.print(f"training {name}: {quarter * 25} %")

    return report
