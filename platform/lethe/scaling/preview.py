"""`--dry-run`: the resolved study, its points and what they are predicted to need."""

from __future__ import annotations

import yaml
from rich.console import Console
from rich.table import Table

from lethe.config.scaling import ScalingStudy
from lethe.scaling.checks import predicted
from lethe.scaling.design import cost_points, search_points


def preview(study: ScalingStudy) -> None:
    """Print the study as YAML, then what is timed and what is searched."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    timed = Table("size", "arm", "rows", "workers", "stage", "predicted MiB", title="timed points", title_justify="left")
    for point in cost_points(study):
        need = predicted(point)
        shown = "-" if need is None else f"{need / 2**20:.0f}"
        timed.add_row(*map(str, (point.size, point.arm, point.rows, point.workers, point.stage, shown)))
    console.print(timed)
    searches = Table("size", "arm", "forget set", "trials", title="searches", title_justify="left")
    for search in search_points(study):
        searches.add_row(search.size, search.arm, search.forget, str(search.study.search.trials))
    console.print(searches)
