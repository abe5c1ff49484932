"""Verdicts on pairs of arms by the rule of docs/METHODS.md section 6a, against values worked out by hand."""

from __future__ import annotations

import csv
from collections.abc import Callable
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import pytest
from scipy.stats import ttest_rel

from lethe.records import MemberRecord, StudyRecord
from lethe.reporting.comparison.arms import arms
from lethe.reporting.comparison.claims import Claim, Finding, claims
from lethe.reporting.comparison.findings import describe_claim, describe_claims_briefly, describe_test
from lethe.reporting.comparison.flops import model_shape, training_flops
from lethe.reporting.comparison.interval_figure import interval_figure, verdicts_png
from lethe.reporting.comparison.pairs import arm_pairs
from lethe.reporting.comparison.scores import (
    BEST_UTILITY,
    EPOCHS,
    FLOPS,
    TRIALS,
    VOLUME,
    WALL_TIME,
    Scoring,
    hypervolumes,
)
from lethe.reporting.comparison.statistics import Evidence, bootstrap_interval, holm, paired_t
from lethe.reporting.comparison.verdict_table import claim_views, verdicts_csv
from lethe.reporting.report import render_pages, template_environment
from tests.reporting.pages import Page
from tests.tracking.studies import study, trial

EXAMPLES = Path(__file__).parents[2] / "reports"
EMBEDDED = {"name": "embedded", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 512, "max_length": 64}
Change = Callable[[str, int, int], dict[str, Any]]


def compared(
    forget: dict[str, list[list[float]]],
    *,
    metrics: Change | None = None,
    params: Change | None = None,
    **of_study: Any,
) -> StudyRecord:
    """A comparison with `forget` by arm, seed and trial. Utility is .6, which has gain 1, and `forget` .9 gain 0: the
    volume of a trial is 1 - forget / .9. A model with `forget` of at most .5 passes the only criterion."""
    trials, members = [], []
    count = max(map(len, forget.values()))
    for seed, (arm, by_seed) in product(range(count), forget.items()):
        numbers = []
        for place, value in enumerate(by_seed[seed] if seed < len(by_seed) else []):
            number = len(trials)
            made = trial(number, value, 0.6, params={"arm": arm, "optimizer.name": "adamw", "schedule.epochs": 3})
            own = {"cpu_seconds": 10.0} | (metrics(arm, seed, place) if metrics else {})
            more = params(arm, seed, place) if params else {}
            updated = {key: v for key, v in {**made.metrics, **own}.items() if v is not None}
            trials.append(made.model_copy(update={"metrics": updated, "params": {**made.params, **more}}))
            numbers.append(number)
        if numbers:
            members.append(MemberRecord(arm=arm, seed=seed, trials=tuple(numbers)))
    only = dict.fromkeys(("forget_quality", "privleak_distance", "forget_extraction_strength", "utility"))
    more = dict.fromkeys(f"audit_{audit}_forget_extraction_strength" for audit in ("relearn", "quant4"))
    given: dict[str, Any] = {
        "name": "made",
        "benchmark": {"name": "tofu"},
        "model": EMBEDDED,
        "verdict": {**only, **more, "retain_rouge": None, "forget": {"at_most": 0.5}},
        "run": {},
        "space": {},
        "compare": {"arms": {arm: {} for arm in forget}, "seeds": list(range(count))},
    }
    return study(*trials, study={**given, **of_study}, members=tuple(members))


def found(claim: Claim, score: str = "volume", budget: str = "trials", pair: int = 0) -> Finding:
    return [f for f in claim.findings if (f.score.name, f.budget.name) == (score, budget)][pair]


def test_the_t_test_is_scipys_and_says_something_of_constant_differences() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 3, 5, 9):
        a, b = rng.normal(size=(2, count))
        assert paired_t(b - a) == pytest.approx(ttest_rel(b, a).pvalue, rel=1e-9)
    assert [paired_t([0.0] * 5), paired_t([0.2] * 5)] == [1.0, 0.0]
    assert np.isnan(paired_t([0.3]))


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_of_four_pairs_without_a_difference_one_is_called_better_in_at_most_five_of_a_hundred_claims() -> None:
    rng = np.random.default_rng(1)
    false = sum(min(holm([paired_t(d) for d in rng.normal(size=(4, 5))])) < 0.05 for _ in range(2000))
    assert 0.03 < false / 2000 < 0.06
    uncorrected = sum(min(paired_t(d) for d in rng.normal(size=(4, 5))) < 0.05 for _ in range(500))
    assert uncorrected / 500 > 0.12, "without Holm it would be four times as many"


def test_verdicts_by_p_and_interval() -> None:
    assert Evidence(0.1, 0.3, 0.01, 0.04).verdict(0.2) == "better"
    assert Evidence(0.1, 0.3, 0.01, 0.04).verdict(-0.2) == "worse"
    assert Evidence(0.01, 0.04, 0.01, 0.2).verdict(0.02) == "equal"
    assert Evidence(-0.06, 0.04, 0.5, 0.5).verdict(0.0) == "undecided"


def test_the_interval_of_constant_pools_is_that_of_their_means() -> None:
    assert bootstrap_interval(np.full((3, 50), 0.2)) == pytest.approx((0.2, 0.2))
    low, high = bootstrap_interval(np.repeat([[0.0], [1.0]], 50, axis=1))
    assert (low, high) == (0.0, 1.0), "both seeds are the one or the other in a quarter of the draws each"


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_volumes_of_many_sets_are_moocores(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    points = rng.normal(0.3, 0.5, size=(9, objectives))
    points[3] = points[5]
    drawn = rng.random((9, 40)) < 0.4
    drawn[:, 0] = False
    expected = []
    for chosen in drawn.T:
        kept = points[chosen & (points > 0).all(axis=1)]
        expected.append(moocore.hypervolume(kept, ref=[0] * objectives, maximise=True) if len(kept) else 0.0)
    assert hypervolumes(points, drawn) == pytest.approx(np.array(expected))


def test_the_volumes_are_those_that_the_study_recorded() -> None:
    record = StudyRecord.model_validate_json((EXAMPLES / "example-soul" / "study.json").read_text())
    scoring, by_name = Scoring(record, record.trials), {arm.name: arm for arm in arms(record)}
    for member in record.members:
        trials = next(seed.trials for seed in by_name[member.arm].seeds if seed.seed == member.seed)
        scores = scoring.scores_of(trials)
        assert scores.first(len(trials))["volume"] == pytest.approx(member.hypervolume, abs=1e-12)
    retrained = scoring.scores_of(by_name["Retrain"].seeds[0].trials)
    assert retrained.first(1)["utility"] == pytest.approx(0.998, abs=1e-3), "the oracle's recipe meets every criterion"


def test_a_large_effect_is_found_with_every_budget() -> None:
    weak = [[0.7 + 0.005 * seed, 0.8, 0.75, 0.9] for seed in range(5)]
    strong = [[0.2 + 0.01 * seed, 0.3, 0.25, 0.4] for seed in range(5)]
    (claim,) = claims(compared({"FO-X": weak, "SO-X": strong}))
    assert claim.subject == "second order"
    for score, budget in claim.answers:
        finding = claim.pooled_by(score, budget)
        assert (finding.verdict, finding.wins, finding.changes) == ("better", 5, ())
        assert claim.outcome(score, budget) == "holds"
        assert finding.evidence
        assert finding.evidence.low > 0
    assert [budget.label for score, budget in claim.answers if score is VOLUME] == [
        "equal trials", "equal time", "equal FLOPs",
    ]  # fmt: skip
    volume = found(claim)
    assert volume.differences.values == pytest.approx([(0.5 - 0.005 * seed) / 0.9 for seed in range(5)])
    (same,) = claims(compared({"FO-X": weak, "SO-X": weak}))
    assert found(same).verdict == "equal"
    (wide,) = claims(compared({"FO-X": [[0.1, 0.8]] * 5, "SO-X": [[0.1, 0.8]] * 5}))
    assert found(wide).verdict == "undecided", "equal means, and an interval wider than .05: trials are drawn too"
    assert found(same).evidence.p == 1  # type: ignore[union-attr]
    assert found(same, "utility").nothing_found, "no trial passes"
    assert found(same, "utility").verdict is None
    assert same.outcome(BEST_UTILITY, TRIALS) is None
    assert same.outcome(VOLUME, TRIALS) == "fails"


def test_without_a_passing_trial_utility_says_nothing() -> None:
    """The gain of .6 is 1 where a trial forgets enough; else 0, which says so on the page."""
    record = compared({"X": [[0.6, 0.4], [0.7, 0.3], [0.8, 0.2]], "X+Y": [[0.6, 0.7]] * 3})
    (claim,) = claims(record)
    assert (found(claim, "utility").differences.base, found(claim, "utility").differences.other) == (
        (1.0,) * 3,
        (0.0,) * 3,
    )
    assert found(claim, "utility").verdict == "worse"
    neither = compared({"X": [[0.6, 0.8]] * 3, "X+Y": [[0.6, 0.7]] * 3})
    (view,) = claim_views(neither, [])
    assert describe_claims_briefly([view.claim]).endswith(" utility without a verdict (no model passes)")
    assert found(view.claim, "utility").verdict is None
    assert "Utility: neither arm has found anything, so no verdict: X+Y against X." in view.notes
    nowhere = compared({"X": [[1.0, 1.0]] * 3, "X+Y": [[1.0, 1.0]] * 3})
    assert describe_claim(claims(nowhere)[0]).endswith("no verdict: neither arm of a pair has found anything")
    unjudged = compared({"X": [[0.6]] * 3, "X+Y": [[0.6]] * 3}, verdict={"forget": None, "utility": None})
    assert Scoring(unjudged, unjudged.trials).scores == (VOLUME,)


def test_budgets_count_the_trials_that_cost_no_more_than_all_of_the_cheaper_arm() -> None:
    """X costs 10 a trial; X+Y 20, and twice the tokens in its second trial: 40 seconds buy two, 400 tokens three."""

    def costs(arm: str, seed: int, place: int) -> dict[str, Any]:
        tokens = 100.0 if arm == "X" else [100.0, 200.0, 100.0, 400.0][place]
        return {"cpu_seconds": 10.0 if arm == "X" else 20.0, "tokens": tokens}

    forget = {"X": [[0.8, 0.7, 0.6, 0.45]] * 3, "X+Y": [[0.8, 0.7, 0.54, 0.36]] * 3}
    (claim,) = claims(compared(forget, metrics=costs))
    assert [found(claim, budget=budget).trials for budget in ("trials", "time", "flops")] == [
        (12, 12),
        (12, 6),
        (12, 9),
    ]
    volumes = [found(claim, budget=budget).differences.other[0] for budget in ("trials", "time", "flops")]
    assert volumes == pytest.approx([0.6, 0.2 / 0.9, 0.4])
    assert found(claim, budget="time").verdict == "worse"
    first = claims(compared(forget, metrics=lambda arm, seed, place: {"cpu_seconds": 40.0 if arm == "X" else 1e3}))[0]
    assert found(first, budget="time").differences.other == (0.0,) * 3, "not one trial of the dear arm"


def test_without_processor_time_equal_time_is_by_the_clock_and_says_so() -> None:
    record = compared({"X": [[0.6, 0.4]] * 3, "X+Y": [[0.6, 0.7]] * 3}, metrics=lambda *_: {"cpu_seconds": None})
    assert WALL_TIME in Scoring(record, record.trials).budgets
    (view,) = claim_views(record, [])
    assert view.notes[0] == "Equal time: by the wall clock, since these records lack cpu_seconds."
    untold = compared({"X": [[0.6]] * 3, "X+Y": [[0.5]] * 3}, metrics=lambda *_: {"tokens": None})
    assert FLOPS not in Scoring(untold, untold.trials).budgets


def test_flops_follow_the_passes_and_the_adapter() -> None:
    record = compared({"X": [[0.5]]})
    shape = model_shape(record)
    assert shape

    def flops(**given: Any) -> float:
        made = record.trials[0]
        return training_flops(shape, made.model_copy(update={"params": {**made.params, **given}}))

    weights = shape.layers * shape.matrix_elements + shape.hidden * shape.vocabulary
    assert flops() == 3 * 2 * weights * 300, "300 tokens, forwards and backwards"
    assert flops(**{"optimizer.name": "mezo"}) == 2 * weights * 300
    assert flops(**{"engine.gradient_checkpointing": True}) == 4 * 2 * weights * 300
    assert 2 / 3 < flops(**{"adapter.rank": 1}) / flops() < 0.75
    assert (
        model_shape(record.model_copy(update={"study": {"model": {"name": "pretrained"}}, "parameters": None})) is None
    )


def test_fewer_than_three_seeds_have_no_verdict_and_three_have_two_degrees_of_freedom() -> None:
    two = compared({"X": [[0.6], [0.7]], "X+Y": [[0.3], [0.2]]})
    (claim,) = claims(two)
    assert (found(claim).verdict, found(claim).evidence, claim.outcome(VOLUME, TRIALS)) == (None, None, None)
    assert describe_claim(claim) == "Y (1 pair, 2 seeds): no verdict: it needs 3 seeds, and there are 2"
    assert describe_test([claim]) == "No verdict: it needs 3 seeds, and there are 2."
    assert describe_claims_briefly([claim]) == ""
    assert "no verdict" in Page(render_pages(two)["report.html"]).text.lower()
    three = compared({"X": [[0.6], [0.7], [0.5]], "X+Y": [[0.3], [0.2], [0.4]]})
    (claim,) = claims(three)
    evidence = found(claim).evidence
    assert evidence
    assert evidence.p == pytest.approx(ttest_rel([0.3, 0.2, 0.4], [0.6, 0.7, 0.5]).pvalue)
    assert found(claim).verdict == "undecided"


def test_a_claim_about_several_losses_holds_fails_or_is_undecided() -> None:
    base, better = [[0.8], [0.79], [0.81], [0.8]], [[0.3], [0.31], [0.29], [0.28]]
    noisy = [[0.4], [0.85], [0.3], [0.88]]

    def of(first: list, second: list) -> Claim:
        return claims(compared({"FO-A": base, "SO-A": first, "FO-B": base, "SO-B": second}))[0]

    assert of(better, better).outcome(VOLUME, TRIALS) == "holds"
    undecided = of(better, noisy)
    assert [f.verdict for f in undecided.by(VOLUME, TRIALS)] == ["better", "undecided"]
    assert undecided.outcome(VOLUME, TRIALS) == "undecided"
    assert of(better, base).outcome(VOLUME, TRIALS) == "fails", "equal in one"
    one, other = undecided.by(VOLUME, TRIALS)
    pooled = undecided.pooled_by(VOLUME, TRIALS)
    means = [(a + b) / 2 for a, b in zip(one.differences.values, other.differences.values, strict=True)]
    assert pooled.differences.values == pytest.approx(means)
    assert pooled.evidence
    assert pooled.evidence.corrected == pytest.approx(paired_t(means)), "one test: nothing to correct"
    assert one.evidence
    assert one.evidence.corrected == pytest.approx(2 * one.evidence.p)
    words = describe_claim(undecided)
    assert words.startswith("second order (2 pairs, 4 seeds): volume undecided with every budget; utility ")


def test_the_seed_without_which_the_verdict_changes_is_named() -> None:
    record = compared({"X": [[0.8]] * 5, "X+Y": [[0.3], [0.31], [0.29], [0.3], [0.8]]})
    finding = found(claims(record)[0])
    assert (finding.verdict, finding.wins) == ("better", 4)
    assert finding.changes == tuple((seed, "undecided") for seed in range(4)), "three that agree, and one of no effect"
    record = compared({"X": [[0.8]] * 4 + [[0.3]], "X+Y": [[0.3], [0.31], [0.29], [0.3], [0.8]]})
    finding = found(claims(record)[0])
    assert (finding.verdict, finding.changes) == ("undecided", ((4, "better"),))
    assert "better without seed 4" in Page(render_pages(record)["report.html"]).text


def test_a_seed_with_unequal_numbers_of_trials_is_left_out() -> None:
    record = compared({"X": [[0.6, 0.5]] * 4, "X+Y": [[0.3, 0.2]] * 3 + [[0.3]]})
    (claim,) = claims(record)
    assert found(claim).differences.seeds == (0, 1, 2)
    (view,) = claim_views(record, [])
    assert "Left out, since the arms have unequal numbers of trials: seed 3 of X+Y against X." in view.notes


def test_a_pair_that_was_not_reached_has_a_place_and_no_number() -> None:
    record = compared({"FO-A": [[0.8]] * 3, "SO-A": [[0.3]] * 3, "FO-B": [[0.8]] * 3, "SO-B": []})
    (claim,) = claims(record)
    assert [finding.verdict for finding in claim.by(VOLUME, TRIALS)] == ["better", None]
    assert claim.outcome(VOLUME, TRIALS) == "undecided"
    assert describe_test([claim]).startswith("By paired t tests over 0 to 3 seeds")
    drawn = template_environment().get_template("arms.j2").module.interval_plot(interval_figure(claim))
    assert "SO-B − FO-B" in drawn
    assert "nan" not in drawn
    lines = list(csv.DictReader(StringIO(verdicts_csv(record))))
    assert {line["difference"] for line in lines if line["other"] == "SO-B"} == {""}


def test_epochs_are_the_fewest_of_a_feasible_trial_or_one_more_than_is_trained() -> None:
    def until(arm: str, seed: int, place: int) -> dict[str, Any]:
        return {"epochs_to_criterion": [3.0, 2.0, 1.0][place] if arm == "X" else 3.0}

    # Above its floor of .9 in `forget`, X's last trial is not feasible; X+Y's `forget` is never below 1.
    record = compared({"X": [[0.5, 0.5, 0.95]] * 3, "X+Y": [[0.5, 0.6, 0.7]] * 3}, metrics=until)
    missed = {"forget": 1.2}
    trials = tuple(
        t.model_copy(update={"metrics": {**t.metrics, **missed}, "series": ({**t.metrics, **missed},)})
        if t.params["arm"] == "X+Y"
        else t
        for t in record.trials
    )
    (claim,) = claims(record.model_copy(update={"trials": trials}))
    finding = found(claim, "epochs")
    assert (finding.score, finding.differences.base, finding.differences.other) == (EPOCHS, (2.0,) * 3, (4.0,) * 3)
    assert (finding.verdict, finding.wins) == ("worse", 0)


def test_pairs_by_name_and_those_that_a_study_names() -> None:
    names = ["SO-B", "FO-A", "SO-A", "Lion-A", "Released-A", "FO-C", "LoRA+IHL", "LoRA", "LoRA+IHL+FILA", "LoRA-4"]
    record = compared({name: [[0.5]] for name in names})
    pairs = [(pair.subject, pair.base.name, pair.other.name) for pair in arm_pairs(record, arms(record))]
    by_name = [
        ("second order", "FO-A", "SO-A"),
        ("sign of the momentum", "FO-A", "Lion-A"),
        ("the Hessian of SOUL's code", "SO-A", "Released-A"),
        ("IHL", "LoRA", "LoRA+IHL"),
        ("FILA", "LoRA+IHL", "LoRA+IHL+FILA"),
    ]
    assert pairs == by_name
    record.study["compare"]["pairs"] = {"rank": [["LoRA-4", "LoRA"]], "hinge": [["LoRA", "LoRA+IHL"]]}
    pairs = [(pair.subject, pair.base.name, pair.other.name) for pair in arm_pairs(record, arms(record))]
    assert pairs == [("rank", "LoRA-4", "LoRA"), ("hinge", "LoRA", "LoRA+IHL"), *by_name[:3], by_name[4]]


def test_the_table_has_a_line_for_every_answer() -> None:
    record = compared({"FO-A": [[0.8]] * 3, "SO-A": [[0.3]] * 3, "FO-B": [[0.8]] * 3, "SO-B": [[0.4]] * 3})
    rows = list(csv.DictReader(StringIO(verdicts_csv(record))))
    assert len(rows) == 3 * 2 * 3, "two pairs and their mean, two scores, three budgets"
    first = rows[0]
    assert [first[key] for key in ("claim", "base", "other", "score", "budget", "verdict", "claim_outcome", "won")] == [
        "second order", "FO-A", "SO-A", "volume", "trials", "better", "holds", "3",
    ]  # fmt: skip
    assert float(first["difference"]) == float(first["difference_seed_2"]) == pytest.approx(0.5 / 0.9)
    assert {row["base"] for row in rows} == {"FO-A", "FO-B", ""}


def test_the_page_says_of_each_claim_whether_it_holds() -> None:
    record = compared({"FO-A": [[0.8]] * 3, "SO-A": [[0.3]] * 3, "FO-B": [[0.8]] * 3, "SO-B": [[0.4]] * 3})
    html = render_pages(record)["report.html"]
    text = Page(html).text
    for words in ("Second order (2 pairs, 3 seeds)", "holds", "SO-A against FO-A", "mean over pairs", "better in 2"):
        assert words in text
    assert 'data-figure="claim-1"' in html
    assert "with equal trials, second order: volume holds, utility holds" in text
    assert "sign test" not in text
    assert "spread to judge" not in text


def test_the_picture_has_a_row_of_panels_for_every_claim() -> None:
    arms_of = {f"{part}-A": [[0.8 - 0.1 * place]] * 3 for place, part in enumerate(("FO", "Lion", "SO"))}
    made = claims(compared(arms_of))
    assert [claim.subject for claim in made] == ["second order", "sign of the momentum"]
    assert verdicts_png(made).startswith(b"\x89PNG")
    figure = interval_figure(made[0])
    assert [panel.score for panel in figure.panels] == [VOLUME, BEST_UTILITY]
    assert [(row.label, row.budget, row.decided) for row in figure.panels[0].rows] == [
        ("SO-A − FO-A", "trials", True), ("", "time", True), ("", "FLOPs", True),
    ]  # fmt: skip
    assert {row.color for panel in figure.panels for row in panel.rows} == {made[0].pairs[0].other.color}


def test_scores_do_not_depend_on_the_order_in_which_trials_ended() -> None:
    record = compared({"X": [[0.6, 0.4, 0.7]] * 3, "X+Y": [[0.3, 0.2, 0.8]] * 3})
    turned = record.model_copy(update={"trials": tuple(reversed(record.trials))})
    assert verdicts_csv(turned) == verdicts_csv(record)
