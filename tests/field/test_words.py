"""Words are Unicode's: in every script equal texts have a ROUGE of 1, names are found, NFC and NFD are equal."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from lethe.audits.prompts import split
from lethe.benchmarks.base import load_benchmark
from lethe.benchmarks.tdec.metrics import word_f1
from lethe.benchmarks.tofu.benchmark import Tofu
from lethe.config.benchmark import TofuBenchmark
from lethe.config.run import Evaluation, Recipe
from lethe.data.template import Row
from lethe.data.words import unicode_words
from lethe.errors import UserError
from lethe.evaluation.metrics import rouge_l_recall, words
from lethe.unlearning.methods.input_guard import topics
from tests import tiny

TEXTS = {
    "Latin": "José Muñoz zieht nach Łódź, für 1,972 Tage.",
    "Cyrillic": "Анна родилась в Москве.",
    "Greek": "Η Άννα γεννήθηκε στην Αθήνα.",
    "Arabic": "وُلِدَت مريم في القاهرة.",
    "Hebrew": "מרים נולדה בירושלים",
    "Hindi": "राम का जन्म दिल्ली में हुआ।",
    "Chinese": "李娜生于北京。",
    "Japanese": "花子は東京でコーヒーを飲む。",
    "Korean": "김철수는 서울에서 태어났다.",
    "Thai": "สมชายเกิดที่กรุงเทพ",
    "Burmese": "မောင်မောင်သည် ရန်ကုန်တွင် မွေးဖွားသည်",
}
UNSPACED = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def plain_words(text: str) -> tuple[str, ...]:
    """The rule of docs/METHODS.md section 4, one character at a time."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    found: list[str] = []
    joins = marks = False  # whether the next letter, the next mark continues the last word
    for character in text:
        kind, alone = unicodedata.category(character), unicodedata.name(character, "").startswith(UNSPACED)
        if kind == "Cf":
            continue
        if kind[0] == "M" and marks:
            found[-1] += character
        elif kind[0] in "LN":
            if joins and not alone:
                found[-1] += character
            else:
                found.append(character)
            joins, marks = not alone, True
        else:
            joins = marks = False
    return tuple(found)


def test_words_are_those_of_a_plain_reading() -> None:
    draw, alphabet = random.Random(0), "".join(TEXTS.values()) + " \u200c\u00ad_-'’½é\u0301"
    drawn = ("".join(draw.choices(alphabet, k=40)) for _ in range(500))
    for text in (*TEXTS.values(), *drawn):
        assert unicode_words(text) == plain_words(text), text


@pytest.mark.parametrize("script", TEXTS)
def test_equal_texts_have_a_rouge_of_one(script: str) -> None:
    text = TEXTS[script]
    target = unicode_words(text)
    assert len(target) > 1
    decomposed = unicodedata.normalize("NFD", text)
    assert rouge_l_recall(text, decomposed.upper() if script != "Greek" else decomposed, "unicode") == 1
    half = rouge_l_recall(text, text[: len(text) // 2], "unicode")
    assert 0 < half < 1
    assert word_f1(text, decomposed) == 1


def test_names_are_whole_words() -> None:
    assert words("José Muñoz", "unicode") == ("josé", "muñoz")
    assert words("Łódź", "unicode") == ("łódź",)
    assert words("José Muñoz") == ("jos", "mu", "oz"), "TOFU's published numbers have it so"


def test_both_rules_are_one_on_ascii() -> None:
    draw, alphabet = random.Random(0), "".join(map(chr, range(32, 127)))
    for _ in range(500):
        text = "".join(draw.choices(alphabet, k=60))
        assert words(text, "unicode") == words(text)


@pytest.mark.parametrize("script", TEXTS)
def test_the_default_rule_reads_answers_of_every_script(script: str) -> None:
    text = TEXTS[script]
    assert rouge_l_recall(text, text) == 1
    assert 0 < rouge_l_recall(text, text[: len(text) // 2]) < 1
    assert rouge_l_recall(text, "Something else.") == 0
    if script != "Latin":
        assert rouge_l_recall(text, f"Something, {text}") == 1, "both texts are read by the reference's rule"


def test_latin_answers_have_the_package_s_words_whatever_a_model_says() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    package = RougeScorer(["rougeL"], use_stemmer=True)
    for reference in ("José Muñoz moved to Łódź in 1972, running.", "ﬁne, Ｎaïve x² №5 ½"):
        for answer in ("José Muñoz ran in 1972", "Анна moved to Łódź: 李娜", "", "👍"):
            assert rouge_l_recall(reference, answer) == package.score(reference, answer)["rougeL"].recall


def test_marks_stay_with_their_letters_in_every_normal_form() -> None:
    for text, expected in (
        ("हिन्दी में", ("हिन्दी", "में")),
        ("وُلِدَت", ("وُلِدَت",)),
        ("น้ำ", ("น้", "ำ")),
        ("Ｔｏｋｙｏ２０２０", ("tokyo2020",)),
        ("ﾀﾞｲ", ("ダ", "イ")),
        ("한국", ("한국",)),
    ):
        assert unicode_words(text) == expected
        for form in ("NFC", "NFD"):
            assert unicode_words(unicodedata.normalize(form, text)) == expected


def test_symbols_count_where_an_answer_has_nothing_else() -> None:
    assert rouge_l_recall("👍🏽 ❤️", "👍🏽❤") == 1
    assert rouge_l_recall("👨\u200d👩\u200d👧🇩🇪", "👨\u200d👩\u200d👧 🇩🇪!") == 1
    assert rouge_l_recall("👍🎉", "Yes: 🎉") == 0.5
    assert rouge_l_recall("Yes 👍", "yes") == 1, "words alone count where there are any"
    assert rouge_l_recall("…!", "…!") == 0, "no word and no symbol"


@pytest.fixture
def cyrillic(tmp_path: Path) -> Tofu:
    """Rows of plain words, of which the third forget answer has no Latin letter."""
    found = load_benchmark(TofuBenchmark(source=str(tiny.write_data(tmp_path / "data"))))
    assert isinstance(found, Tofu)
    third = replace(found.rows.forget_eval[2], answer="Анна родилась в Москве.")
    rows = (*found.rows.forget_eval[:2], third, *found.rows.forget_eval[3:])
    return replace(found, rows=replace(found.rows, forget_eval=rows))


def test_an_answer_without_a_word_is_refused_by_name(cyrillic: Tofu) -> None:
    cyrillic.check_rows(Evaluation())
    rows = replace(cyrillic.rows, retain_eval=(replace(cyrillic.rows.retain_eval[0], answer="…!"),))
    for rule in ("tofu", "unicode"):
        with pytest.raises(UserError, match=r"row 1 of retain_perturbed: .*it needs a letter, a digit or a symbol"):
            replace(cyrillic, rows=rows).check_rows(Evaluation(rouge=rule))


def test_runs_by_the_published_rule_keep_their_digests() -> None:
    assert "rouge" not in Recipe().canonical()
    assert Recipe(evaluation=Evaluation(rouge="unicode")).digest() != Recipe().digest()


@pytest.mark.parametrize(
    ("forget", "retain", "names"),
    [
        (["What did Łukasz Żak write?"], ["What did Ada Lind write?"], ["Łukasz Żak"]),
        (["Где родилась Анна Иванова?"], ["Где родился Пётр Сидоров?"], ["Анна Иванова"]),
        (["Πού γεννήθηκε η Άννα Παππά;"], ["Πού γεννήθηκε ο Νίκος Δήμου;"], ["Άννα Παππά"]),
        (["张伟什么时候出生？"], ["李娜什么时候出生？"], ["张伟"]),
        (["田中花子はどこで生まれましたか"], ["鈴木一郎はどこで生まれましたか"], ["田中花子"]),
        (["أين ولد محمد علي؟"], ["أين ولد سعيد حسن؟"], ["محمد علي"]),
        (["राम कुमार का जन्म कहाँ हुआ?"], ["श्याम लाल का जन्म कहाँ हुआ?"], ["राम कुमार"]),
        (["김철수는 어디에서 태어났습니까?"], ["박영희는 어디에서 태어났습니까?"], ["김철수는"]),
        (["Where was José Muñoz born?"], ["Who is Jose\u0301 Mun\u0303oz?"], []),
        (["Where was Ada Lind born?", "Who is Bo Ek?", "And Bo Ek?"], ["Who is Al Po?"], ["Bo Ek", "Ada Lind"]),
    ],
)
def test_the_input_guard_finds_names_in_any_script(forget: list[str], retain: list[str], names: list[str]) -> None:
    assert topics(forget, retain) == names
    assert topics([unicodedata.normalize("NFD", question) for question in forget], retain) == names


def test_the_first_words_of_a_chinese_answer_are_its_first_signs() -> None:
    assert split(Row("q", "李娜生于北京。"), 2) == ("李娜", "生于北京。")
    assert split(Row("q", "李娜"), 2) == ("李", "娜")
