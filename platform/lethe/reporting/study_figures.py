"""The interactive figures of a study's page."""

from __future__ import annotations

from lethe.records import StudyRecord
from lethe.reporting.comparison.interactive import comparison_figures
from lethe.reporting.front_figure import front_figure
from lethe.reporting.history_figures import epochs_figure, hypervolume_figure, timeline_figure
from lethe.reporting.page_scripts import Figure
from lethe.reporting.parameter_figures import parallel_figure, slice_figure
from lethe.reporting.trial_traces import tooltip
from lethe.reporting.trial_views import ARM_PARAMETERS, varying_parameters


def study_figures(record: StudyRecord) -> dict[str, Figure]:
    """Return the figures that the study's trials allow, by name; none without a trial."""
    if not record.trials:
        return {}
    texts = {trial.number: tooltip(record, trial) for trial in record.trials}
    figures = {"front": front_figure(record, texts), **comparison_figures(record)}
    if not record.members:
        for goal in record.objectives:
            figures[f"epochs-{goal.metric}"] = epochs_figure(record, goal, texts)
        if history := hypervolume_figure(record, texts):
            figures["hypervolume"] = history
    varying = [key for key in varying_parameters(record) if key not in ARM_PARAMETERS]
    if varying:
        figures["parallel"] = parallel_figure(record, varying, texts)
        figures |= {f"slice-{key}": slice_figure(record, key, texts) for key in varying}
    if any(trial.ended > trial.began > 0 for trial in record.trials):
        figures["timeline"] = timeline_figure(record, texts)
    return figures
