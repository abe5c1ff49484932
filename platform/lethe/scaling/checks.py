"""What can be known to fail before the first point: sizes that do not fit, devices that are not there."""

from __future__ import annotations

from collections.abc import Sequence

from lethe.config.model import EmbeddedModel
from lethe.config.scaling import ScalingStudy
from lethe.errors import BadInput
from lethe.scaling.design import CostPoint, cost_points, search_points
from lethe.scaling.flops import Batch
from lethe.scaling.memory import Layout, peak
from lethe.scaling.transformer import Transformer

PROCESS = 640 * 2**20  # bytes of a worker's libraries: 626 to 639 MiB were measured with models of 0.1 MB
LONGEST = 128  # tokens: of the embedded corpus's rows none is longer


def check_memory(study: ScalingStudy, available: float) -> None:
    """Raises BadInput for a size that this many bytes do not hold: predicted from shapes, nothing is built. Sizes whose
    shape is not known here are left to run."""
    for point in cost_points(study):
        need = predicted(point)
        if need is not None and need > available:
            raise BadInput(
                f"scaling.sizes.{point.size}: {point.workers} worker(s) with {point.rows} rows a step need"
                f" {need / 2**30:.3g} GiB, predicted, and there are {available / 2**30:.3g}: take it out, or lower"
                " run.schedule.batch_size or scaling.cost.batch"
            )


def predicted(point: CostPoint) -> float | None:
    """Bytes of all of a point's workers on one machine."""
    if not isinstance(point.model, EmbeddedModel) or point.model.name != "embedded":
        return None
    shape = Transformer.of_embedded(point.model)
    rows = 2 * -(-point.rows // (point.workers * point.recipe.schedule.accumulation))
    longest = min(LONGEST, point.model.max_length)
    each = peak(shape, Layout.of(point.recipe), Batch.uniform(rows, longest, longest // 2))
    start = 4.0 * shape.parameters  # the copy that a warm process keeps
    return point.workers * (each.total + start + PROCESS)


def available_memory(study: ScalingStudy) -> float:
    """Bytes that are free on this machine, or on its GPU where the study runs on one; no limit where it is elsewhere."""
    if study.first_recipe().engine.device == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else float("inf")
    import psutil

    return float(psutil.virtual_memory().available)


def parts(study: ScalingStudy) -> Sequence[CostPoint]:
    """Every point once, so that a search that cannot run is refused before anything is timed."""
    search_points(study)
    return cost_points(study)
