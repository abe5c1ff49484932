"""The card beside an unlearned model: what a person reads who has only the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lethe.records import CriterionRecord, StudyRecord, VerdictRecord
from lethe.tracking.model_card import base_license, model_card, write_model_cards
from tests.tracking.studies import EVIL, busy_study, sample, study, trial

FAILING = CriterionRecord(metric="retain_rouge", value=0.7, bound="at least 0.9 (0.9 start)", holds=False, start=1.0)
HOLDS = CriterionRecord(metric="forget_quality", value=0.2, bound="at least 0.05", holds=True)


def judged(**changes: object) -> StudyRecord:
    verdict = VerdictRecord(forgotten="partly", criteria=(HOLDS, FAILING))
    return study(trial(3, 0.25, 0.58, pareto_rank=0, forgotten=verdict, **changes), aliases={"knee": 3})


def test_card_says_verdict_with_what_fails_scores_settings_and_how_to_load() -> None:
    record = judged()
    card = model_card(record, record.trials[0])
    assert "**partly**: the model forgot, but fails a criterion" in card
    assert "- **fails**: retain rouge 0.7 (-30 %), at least 0.9 (0.9 start)" in card
    assert "| `forget` (minimize) | 0.9 | 0.25 | 0 |" in card
    assert "- `adapter.rank`: 8" in card
    assert 'from_pretrained("this folder")' in card
    assert "peft" not in card
    assert "PeftModel" in model_card(record, record.trials[0], adapter=True)


def test_card_holds_no_text_of_a_row_and_no_path() -> None:
    record = busy_study(start_folder="/home/me/start", study={"benchmark": {"name": "tofu", "source": "/home/me/data"}})
    secret = judged(samples=(sample(EVIL),), folder="/home/me/lethe/runs/1").trials[0]
    for found in (record.front[1], secret):
        card = model_card(record, found)
        for private in ("/home/me", "ada did", "book of mills", "<script>"):
            assert private not in card


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\ntags: [a]\nlicense: apache-2.0\n---\n# A model"}, "apache-2.0"),
        ({"README.md": "# A model\nlicense: of no header", "config.json": '{"license": "mit"}'}, "mit"),
        ({"README.md": "---\ntags: [a]\n---\n# A model\nlicense: of the text", "config.json": "{}"}, None),
        ({}, None),
    ],
)
def test_licence_is_what_the_start_model_names(files: dict[str, str], licence: str | None, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert base_license(tmp_path) == licence
    card = model_card(judged().model_copy(update={"start_folder": str(tmp_path)}), judged().trials[0])
    header = yaml.safe_load(card.split("---\n")[1])
    assert header.get("license") == licence
    assert header["tags"] == ["unlearning", "lethe"]


def test_only_front_members_with_a_saved_model_get_cards(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / str(number) / "model").mkdir(parents=True)
    (tmp_path / "1/model/README.md").write_text("peft's own")
    front = (trial(n, 0.1 * n, 0.3 + 0.1 * n, pareto_rank=0, folder=str(tmp_path / str(n))) for n in range(3))
    beaten = trial(5, pareto_rank=1, folder=str(tmp_path / "0"))
    write_model_cards(study(*front, beaten))
    assert "trial 1" in (tmp_path / "1/model/README.md").read_text()
    assert "trial 0" in (tmp_path / "0/model/README.md").read_text()
    assert not (tmp_path / "2").exists()
