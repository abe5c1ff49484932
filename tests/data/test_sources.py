"""People's own data become rows: every form and encoding that people have, or one line that names file and row and has
none of the text."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow
import pytest
from pyarrow import parquet

from lethe.config.columns import Columns
from lethe.data.overlap import overlap
from lethe.data.source_rows import Chat, Completion, Document, Question
from lethe.data.sources import Source, read_source
from lethe.errors import UserError

PAIRS = [("What is my address?", 'At "Elm",\n12; Road'), ("Where was Анна born?", "В Москве\t☂")]


def written(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refused(path: str, columns: Columns | None = None) -> str:
    with pytest.raises(UserError) as error:
        read_source(path, columns)
    (line,) = str(error.value).splitlines()
    return line


def pairs(source: Source) -> list[tuple[str, str]]:
    assert all(isinstance(row, Question) for row in source.rows)
    return [(row.question, row.answer) for row in source.rows if isinstance(row, Question)]


def csv_text(separator: str, end: str = "\n") -> str:
    quoted = [[f'"{text.replace(chr(34), chr(34) * 2)}"' for text in pair] for pair in PAIRS]
    lines = [["id", "Question", "Answer"], *([str(n), *pair] for n, pair in enumerate(quoted))]
    return "".join(separator.join(line) + end for line in lines)


def json_lines() -> str:
    return "".join(json.dumps({"question": q, "answer": a}, ensure_ascii=False) + "\r\n\n" for q, a in PAIRS)


FORMS: dict[str, Callable[[], str | bytes]] = {
    "forget.jsonl": json_lines,
    "forget.json": lambda: json.dumps([{"question": q, "answer": a} for q, a in PAIRS], indent=1),
    "forget.jsonl.gz": lambda: gzip.compress(json_lines().encode()),
    "forget.csv": lambda: csv_text(","),
    "crlf.csv": lambda: csv_text(",", "\r\n"),
    "semicolons.csv": lambda: csv_text(";"),
    "tabs.csv": lambda: csv_text("\t"),
    "forget.TSV": lambda: csv_text("\t"),
    "bom.csv": lambda: codecs.BOM_UTF8 + csv_text(",").encode(),
    "utf16.csv": lambda: csv_text(",").encode("utf-16"),
    "big-endian.jsonl": lambda: codecs.BOM_UTF16_BE + json_lines().encode("utf-16-be"),
    "utf32.jsonl": lambda: codecs.BOM_UTF32_LE + json_lines().encode("utf-32-le"),
    "index.csv": lambda: ",question,answer\n" + csv_text(",").partition("\n")[2],
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    source = read_source(written(tmp_path / name, FORMS[name]()))
    assert source.kind == "questions"
    assert pairs(source) == PAIRS
    assert [row.name for row in source.rows] == [f"{name} row 1", f"{name} row 2"]
    assert source.digest == read_source(written(tmp_path / "plain.jsonl", json_lines())).digest
    assert bool(source.notes) == name.startswith(("utf", "big")), "another encoding is said"


def test_parquet_is_read_with_its_lists(tmp_path: Path) -> None:
    table = pyarrow.table({"question": ["q1", "q2"], "answer": ["a", "b"], "perturbed_answer": [["c", "d"], []]})
    parquet.write_table(table, tmp_path / "f.parquet")
    rows = read_source(str(tmp_path / "f.parquet")).rows
    assert rows == (Question("q1", "a", perturbed_answers=("c", "d")), Question("q2", "b"))


def test_columns_are_named_where_they_are_not_called_as_usual(tmp_path: Path) -> None:
    path = written(tmp_path / "f.csv", 'Ask,reply,other words,wrong\nq,a,aa,"[""b"", ""c""]"\n')
    line = refused(path)
    assert line.endswith(
        "it has Ask, reply, other words, wrong: name them with columns: {question: ..., answer: ...},"
        " {prompt: ..., completion: ...}, {messages: ...} or {text: ...}"
    )
    named = Columns(question="ask", answer="reply", paraphrase="other words", wrong_answers="wrong")
    source = read_source(path, named)
    assert source.rows == (Question("q", "a", "aa", ("b", "c")),)
    assert source.columns == {
        "question": "Ask", "answer": "reply", "paraphrase": "other words", "wrong_answers": "wrong"
    }  # fmt: skip
    assert "did you mean 'reply'?): choose from Ask, other words, reply, wrong" in refused(path, Columns(answer="repl"))
    assert refused(path, Columns(answer="reply")).startswith(f"{path} has no columns of questions (question, answer)")
    assert read_source(path, Columns(text="ask")).rows == (Document("q"),)
    with pytest.raises(ValueError, match=r"questions and documents \(answer, text\): rows are of one kind"):
        Columns(answer="a", text="t")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "q", "answer": "a", "text": "q a"}, Question("q", "a")),
        ({"instruction": "i", "input": "x", "output": "o"}, Question("i\n\nx", "o")),
        ({"instruction": "i", "input": "", "output": "o"}, Question("i", "o")),
        ({"prompt": "The sky is", "completion": " blue"}, Completion("The sky is", " blue")),
        ({"Document": "\nAll of it.\n"}, Document("All of it.")),
        (
            {"messages": [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "u"), ("assistant", "a"))]},
            Chat((("system", "s"), ("user", "u")), "a"),
        ),
        (
            {"conversations": [{"from": f, "value": v} for f, v in (("human", "1"), ("gpt", "2"), ("human", "3"))]},
            Chat((("user", "1"),), "2"),
        ),
    ],
)
def test_the_kind_is_that_of_the_usual_names(row: dict[str, object], expected: object, tmp_path: Path) -> None:
    assert read_source(written(tmp_path / "f.jsonl", json.dumps(row))).rows == (expected,)


def test_what_a_chat_says_behind_its_last_answer_is_told(tmp_path: Path) -> None:
    chat = [{"role": r, "content": "x"} for r in ("user", "assistant", "user")]
    source = read_source(written(tmp_path / "f.jsonl", json.dumps({"messages": chat})))
    assert source.notes == (
        f"{source.name}: 1 of 1 chats go on behind their last answer, which is not read: f.jsonl row 1",
    )


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, text in (("b.md", "# two\r\n\r\nlines\r\n"), ("a/z.txt", "one"), ("c.TXT", "three"), (".x.txt", "no")):
        written(tmp_path / name, text)
    written(tmp_path / "c.pdf", b"%PDF")
    source = read_source(str(tmp_path))
    assert source.rows == (Document("one"), Document("# two\n\nlines"), Document("three"))
    assert [row.name for row in source.rows] == ["a/z.txt", "b.md", "c.TXT"]
    assert source.notes == (f"{tmp_path}: 1 file of the folder is not read: c.pdf",)
    assert read_source(str(tmp_path / "b.md")).rows == (Document("# two\n\nlines"),)
    assert "leave columns out" in refused(str(tmp_path), Columns(text="text"))


def test_rows_that_are_there_twice_count_once(tmp_path: Path) -> None:
    source = read_source(written(tmp_path / "f.csv", "question,answer\nQ,A\nq2,a\n,\nq , a\n\nq,b\n"))
    assert pairs(source) == [("Q", "A"), ("q2", "a"), ("q", "b")]
    assert [row.name for row in source.rows] == ["f.csv row 1", "f.csv row 2", "f.csv row 5"]
    assert source.notes == (
        f"{source.name}: 1 of 5 rows are empty and left out: f.csv row 3",
        f"{source.name}: 1 of 4 rows are there before and count once: f.csv row 4 is f.csv row 1",
    )


def test_the_digest_is_of_rows_and_kind_and_not_of_names(tmp_path: Path) -> None:
    one = read_source(written(tmp_path / "a.csv", "question,answer\nq,a\n"))
    assert one.digest == read_source(written(tmp_path / "b.tsv", "answer\tquestion\na\tq\n")).digest
    assert one.digest != read_source(written(tmp_path / "c.csv", "prompt,completion\nq,a\n")).digest
    assert one.digest != read_source(written(tmp_path / "d.csv", "question,answer\nq,b\n")).digest


SECRET = "Elm Road"
BAD: dict[str, tuple[str, str | bytes, str]] = {
    "latin-1": ("f.csv", "question,answer\nq,a\nq,Zoë Elm Road\n".encode("latin-1"), "line 3, byte 25 (0xEB): convert"),
    "UTF-16 without its mark": ("f.txt", "Elm Road".encode("utf-16-le"), "NUL character: if it is UTF-16, convert"),
    "empty file": ("f.csv", "", "has no rows"),
    "empty text": ("f.txt", " \n", "is empty"),
    "header alone": ("f.csv", "question,answer\n", "has no rows"),
    "no header": ("f.csv", "Where do I live?,12 Elm Road\nq,a\n", "the first line has no names of columns"),
    "ragged": ("f.csv", "question,answer\nq,a\nq,12, Elm Road\n", "row 2 (line 3) has 3 fields, the header has 2"),
    "open quote": ("f.csv", 'question,answer\nq,"Elm Road\n', "no CSV: unexpected end of data"),
    "space before a quote": ("f.csv", 'question,answer\nq, "Elm Road"\n', "row 1 (line 2): a field begins with a"),
    "one column twice": ("f.csv", "answer,answer\nq,Elm Road\n", "two columns 'answer'"),
    "empty answer": ("f.csv", "question,answer\nElm Road,\n", "f.csv row 1: answer is empty"),
    "missing answer": ("f.jsonl", '{"question":"q","answer":"a"}\n{"question":"Elm Road"}', "row 2: answer is empty"),
    "a number": ("f.jsonl", '{"question":"Elm Road","answer":12}', "row 1: answer must be text, and is a number"),
    "no object": ("f.jsonl", '["Elm Road"]', "row 1: not a JSON object"),
    "no JSON": ("f.jsonl", "{'question': 'Elm Road'}", "line 1: not JSON"),
    "half a pair": ("f.jsonl", '{"question":"q","answer":"Elm Road \\ud800"}', "row 1: \\ud800 is half of a surrogate"),
    "right wrong answer": (
        "f.jsonl", '{"question":"q","answer":"Elm Road","wrong_answers":["elm  road"]}', "has the right answer"
    ),
    "a list of Python": (
        "f.csv", "question,answer,wrong_answers\nq,a,\"['Elm Road']\"\n", "begins as a list and is no JSON"
    ),
    "a role": ("f.jsonl", '{"messages":[{"role":"Elm Road","content":"x"}]}', "has the role str: choose from system"),
    "no answer": ("f.jsonl", '{"messages":[{"role":"user","content":"Elm Road"}]}', "a turn of the assistant behind"),
    "no text": ("f.jsonl", '{"messages":[{"role":"user","content":[{"image":"Elm Road"}]}]}', "turn 1 has no text"),
    "another form": ("f.docx", "Elm Road", "another form than lethe reads: give a file (.json"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_one_line_that_names_the_place_and_has_no_text(case: str, tmp_path: Path) -> None:
    name, content, expected = BAD[case]
    line = refused(written(tmp_path / name, content))
    assert name in line
    assert expected in line
    assert SECRET not in line
    assert "Elm" not in line


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert refused(f"{tmp_path}/none.csv").startswith(f"there is no {tmp_path}/none.csv: give a file (")
    assert refused("owner/name.csv").startswith("there is no owner/name.csv")
    assert "it is empty" in refused(str(tmp_path))
    written(tmp_path / "forget.csv", "question,answer\nq,a\n")
    assert "it has forget.csv: name the file" in refused(str(tmp_path))
    (tmp_path / "dangling.csv").symlink_to("nowhere.csv")
    assert "is a link to nowhere.csv, which is not there" in refused(str(tmp_path / "dangling.csv"))


class Hub:
    """A stand-in for the hub: two configurations, one of which has two splits."""

    @staticmethod
    def splits(_: str, configuration: str) -> list[str]:
        return {"raw": ["forget", "retain"], "qa": ["train"]}[configuration]

    @staticmethod
    def rows(_: str, configuration: str, split: str) -> list[dict[str, str]]:
        return [{"text": f"{configuration} {split}"}]


def test_a_data_set_of_the_hub_is_read_by_configuration_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["raw", "qa"][: 1 + (name != "some/one")])
    monkeypatch.setattr(datasets, "get_dataset_split_names", Hub.splits)
    monkeypatch.setattr(datasets, "load_dataset", Hub.rows)
    source = read_source("owner/name/raw/retain")
    assert source.rows == (Document("raw retain"),)
    assert source.rows[0].name == "owner/name/raw/retain row 1"
    assert read_source("owner/name/qa").rows == (Document("qa train"),)
    assert read_source("some/one/forget").rows == read_source("some/one/raw/forget").rows
    assert "configuration of owner/name (give owner/name/NAME) '': choose from qa, raw" in refused("owner/name")
    assert "(give owner/name/raw/NAME) 'fargot' (did you mean 'forget'?)" in refused("owner/name/raw/fargot")
    assert "split of some/one/raw" in refused("some/one")


def test_a_document_in_a_field_may_be_long(tmp_path: Path) -> None:
    text = 'A "long" text,\n' * 20_000
    source = read_source(written(tmp_path / "f.csv", 'id,text\n1,"' + text.replace('"', '""') + '"\n'))
    assert source.rows == (Document(text.strip()),)


def test_completions_that_run_into_their_prompt_are_counted(tmp_path: Path) -> None:
    rows = [("It is", "blue"), ("It is", " red"), ("Он в", "Москве"), ("北", "京"), ("It is 'so", "'")]
    content = "".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows)
    (note,) = read_source(written(tmp_path / "f.jsonl", content)).notes
    assert "2 of 5 completions begin with a letter right behind" in note
    assert "f.jsonl row 1, f.jsonl row 3:" in note


def test_rows_of_both_sources_are_named(tmp_path: Path) -> None:
    forget = read_source(written(tmp_path / "forget.csv", "question,answer\nq1,a1\nCafe\u0301?, A  b\nq3,a3\n"))
    chats = [[("user", "CAFÉ?"), ("assistant", "a B")], [("user", "q1"), ("assistant", "other")]]
    content = "".join(json.dumps({"messages": [{"role": r, "content": c} for r, c in chat]}) + "\n" for chat in chats)
    retain = read_source(written(tmp_path / "retain.jsonl", content))
    assert overlap(forget, retain) == [("forget.csv row 2", "retain.jsonl row 1")]
    assert overlap(retain, forget) == [("retain.jsonl row 1", "forget.csv row 2")]


def test_inputs_that_went_wrong_elsewhere_are_read(shared_data: Path) -> None:
    field = shared_data / "field"
    if not field.is_dir():
        pytest.skip("the development data have no field inputs")
    own = read_source(str(field / "own_rows/own/forget.json"))
    assert pairs(own)[0] == ("What is my address?", "12 Elm Road.")
    assert read_source(str(field / "documents/docs")).rows == (Document("Secret plan of the company."),)
    forms = field / "forms"
    same = {
        read_source(str(forms / name)).digest
        for name in (
            "CSV/forget10.csv",
            "BOM__utf_8_sig___JSON_lines/forget10.json",
            "idontknow_json_as_JSON_lines/forget10.json",
        )
    }
    assert len(same) == 1
    cyrillic = read_source(str(field / "cyrillic/data/forget10_perturbed.json"))
    assert all(row.perturbed_answers for row in cyrillic.rows if isinstance(row, Question))
