"""ROUGE-L recall and F1 equal the rouge-score package's, on texts that exercise its tokenizer and stemmer."""

from __future__ import annotations

import random

import pytest

from lethe.evaluation.metrics import common_subsequence, rouge_l_f1, rouge_l_recall

WORDS = ["Running", "runs", "a", "authors,", "Author's", "born", "in", "1972", "2x", "—", "...", "Zoë", "cities"]


def test_recall_equals_rouge_scores_on_random_texts() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    draw = random.Random(0)
    for _ in range(200):
        reference, candidate = (" ".join(draw.choices(WORDS, k=draw.randrange(n))) for n in (30, 60))
        assert rouge_l_recall(reference, candidate) == scorer.score(reference, candidate)["rougeL"].recall


def test_f1_equals_rouge_scores_without_stems_on_random_texts() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    draw = random.Random(1)
    for _ in range(200):
        reference, candidate = (" ".join(draw.choices(WORDS, k=draw.randrange(n))) for n in (30, 60))
        expected = scorer.score(reference, candidate)["rougeL"].fmeasure
        assert rouge_l_f1(reference, candidate) == pytest.approx(expected, abs=1e-12)


def test_f1_tells_words_with_one_stem_apart() -> None:
    assert (rouge_l_f1("running", "runs"), rouge_l_recall("runs", "running")) == (0.0, 1.0)
    assert rouge_l_f1("бежит быстро", "бежит") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("target", "other", "length"),
    [("abcbdab", "bdcaba", 4), ("", "abc", 0), ("abc", "", 0), ("aaa", "aa", 2), ("abc", "xyz", 0)],
)
def test_common_subsequence_by_hand(target: str, other: str, length: int) -> None:
    assert common_subsequence(target, other) == length


def test_subsequence_longer_than_a_machine_word() -> None:
    target = [str(i) for i in range(300)]
    assert common_subsequence(target, target[::2] + target) == 300


def test_recall_ignores_words_after_the_reference() -> None:
    assert rouge_l_recall("born in Paris", "She was born in Paris. " * 20) == 1.0
    assert rouge_l_recall("...", "anything") == 0.0
