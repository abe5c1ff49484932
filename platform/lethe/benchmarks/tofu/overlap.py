"""Rows in splits that must not share any, rows that a split has twice, and variants of other questions than the forget
rows."""

from __future__ import annotations

from collections.abc import Mapping

from lethe.config.benchmark import TofuBenchmark
from lethe.data.overlap import refuse_repeated, refuse_rows, refuse_shared
from lethe.data.template import Row
from lethe.data.words import same_text


def check_overlap(config: TofuBenchmark, source: str, parts: Mapping[str, tuple[Row, ...]]) -> None:
    """Raise UserError for forget rows that are there twice or kept, holdout rows that are trained on, and rows with
    variants of other questions than the forget rows; not with `config.allow_overlap`. `parts` are the splits by their
    fields of `TofuRows`; `source` is named in messages.

    Rows are equal if question and answer are, whatever their case, white space and Unicode form.
    """
    if config.allow_overlap:
        return
    names = {"forget": config.forget, "retain": config.retain, "retain_eval": "retain_perturbed", "holdout": "holdout"}
    pairs = {
        names[field]: [(same_text(row.question), same_text(row.answer)) for row in parts[field]] for field in names
    }
    refuse_repeated(source, config.forget, pairs[config.forget])
    variants = [(same_text(row.question), same_text(row.answer)) for row in parts["forget_eval"]]
    refuse_repeated(source, f"{config.forget}_perturbed", variants)
    kept = [(config.forget, config.retain), (config.forget, "retain_perturbed")]
    refuse_shared(source, pairs, [*kept, ("holdout", config.forget), ("holdout", config.retain)])
    asked = {question for question, _ in pairs[config.forget]}
    foreign = [n for n, row in enumerate(parts["forget_eval"], 1) if same_text(row.question) not in asked]
    what = f"of questions that are not in {config.forget}"
    refuse_rows(source, foreign, f"{config.forget}_perturbed", len(parts["forget_eval"]), what)
