"""What a study says about the adapters of its front, and cuts for servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lethe.config.adapter import Fila
from lethe.config.study import Tracking
from lethe.errors import UserError
from lethe.models.saving import save_model
from lethe.records import StudyRecord
from lethe.reporting.terminal_tables import trial_view
from lethe.reporting.trial_pages import trial_pages
from lethe.study import saved_adapters
from lethe.study.saved_adapters import check_cut, describe_adapters, with_saved_adapters
from lethe.tracking.model_card import model_card, write_model_cards
from tests.models.small import disturb, llama, started
from tests.tracking.studies import study, trial


def finished(folder: Path) -> StudyRecord:
    """A front of a trial with FILA and one with every weight, and a beaten one with FILA."""
    for number in (0, 2):
        model = started(llama, Fila(rank=4))
        disturb(model)
        save_model(model, folder / str(number) / "model")
    (folder / "1/model").mkdir(parents=True)
    params = {"adapter.name": "fila", "adapter.rank": 4}
    front = [
        trial(n, 0.1 * (n + 1), 0.5 + 0.1 * n, pareto_rank=0, folder=str(folder / str(n)), params=params)
        for n in (0, 1)
    ]
    return study(*front, trial(2, pareto_rank=1, folder=str(folder / "2"), params=params))


def test_twice_the_rank_is_said_in_console_card_report_and_show(tmp_path: Path) -> None:
    record = with_saved_adapters(finished(tmp_path), None)
    first, second, beaten = record.trials
    assert (first.adapter.rank, first.adapter.twice, second.adapter, beaten.adapter) == (8, True, None, None)
    (line,) = describe_adapters(record)
    assert "saved at twice their rank, up to 8, since their start is subtracted" in line
    said = "rank 8, twice the run's: its start is subtracted in it"
    assert said in model_card(record, first, adapter=True)
    assert "A server has to allow rank 8" in model_card(record, first)
    assert said in " ".join(str(part) for part in trial_view(record, first))
    assert said in str(trial_pages(record, {}, [])["trials"][0]["summary"])
    assert "adapter" not in "".join(first.afterwards)
    assert [path.name for path in tmp_path.glob("*/model/*") if path.is_dir()] == []


def test_adapters_above_the_limit_are_cut_and_the_error_stands_everywhere(tmp_path: Path) -> None:
    record = with_saved_adapters(finished(tmp_path), 5)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/model/rank-5")] == ["0/model/rank-5"]
    found = record.trials[0].adapter
    assert 0 < found.mean_error < found.worst_error < 1
    error = f"rank 5: relative error {found.mean_error:.2g} a layer, {found.worst_error:.2g} at worst (model."
    assert [error in line for line in describe_adapters(record)] == [True]
    write_model_cards(record)
    card = (tmp_path / "0/model/README.md").read_text()
    assert error in card
    assert "scores above are those of the adapter that is not cut" in card
    numbers = {"adapter_rank": 8, "adapter_cut_to": 5, "adapter_error_mean": found.mean_error}
    assert numbers.items() <= record.trials[0].afterwards.items(), "and so in MLflow's metrics and tags"
    assert StudyRecord.model_validate_json(record.model_dump_json()) == record
    roomy = with_saved_adapters(finished(tmp_path / "again"), 8)
    assert roomy.trials[0].adapter.cut_to is None
    assert len(list(describe_adapters(roomy))) == 1


def test_an_object_store_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_adapters, "store", lambda: "s3://bucket")
    check_cut(Tracking())
    with pytest.raises(UserError, match=r"tracking\.max_lora_rank: an object store's models stay as they are"):
        check_cut(Tracking(max_lora_rank=16))
