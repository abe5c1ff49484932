"""The model card of an unlearned model: the README.md that stands beside its weights.

It says what was done, how, with which verdict, and how to load the model. It holds settings and numbers, no rows: a
card is copied with its model to anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from lethe.models.merging import is_adapter
from lethe.records import REQUESTS, StudyRecord, TrialRecord
from lethe.storage.paths import atomic_write, store

CARD = "README.md"
_LICENSE = re.compile(r"\A---\n(?:(?!---).*\n)*?license:[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)
_TESTS = {"yes": "passes every criterion", "partly": "forgot, but fails a criterion", "no": "did not forget enough"}


def write_model_cards(record: StudyRecord) -> None:
    """Write the card of every front member, and the requests that it answers, beside its saved model; one without a
    saved model is left out.

    An object store's folders are complete under a list of their files' sizes, and stay as they are: there only the
    registered versions have cards.
    """
    for trial in record.front if store() is None else ():
        folder = Path(trial.folder, "model")
        if trial.folder and folder.is_dir():
            atomic_write(folder / CARD, model_card(record, trial, adapter=is_adapter(folder)))
            atomic_write(folder / REQUESTS, requests_file(record))


def requests_file(record: StudyRecord) -> str:
    """Return the content of the file that says which requests the study's models answer."""
    return json.dumps([request.model_dump() for request in record.requests], indent=1) + "\n"


def model_card(record: StudyRecord, trial: TrialRecord, *, adapter: bool = False) -> str:
    """Return the card of a front member's model. `adapter`: the weights beside it are an adapter's, which belong on the
    study's start model."""
    return "\n".join([*_header(record, adapter), *_sections(record, trial, adapter)]) + "\n"


def base_license(folder: Path) -> str | None:
    """Return the licence that the README.md or config.json of a model folder names, None where neither does."""
    card, config = folder / CARD, folder / "config.json"
    if card.is_file() and (found := _LICENSE.match(card.read_text(errors="replace"))):
        return found[1]
    if config.is_file():
        named = json.loads(config.read_text()).get("license")
        return str(named) if named else None
    return None


def _header(record: StudyRecord, adapter: bool) -> Iterator[str]:
    """Yield the YAML that model hubs read."""
    yield "---"
    yield f"library_name: {'peft' if adapter else 'transformers'}"
    yield "pipeline_tag: text-generation"
    if found := base_license(Path(record.start_folder)):
        yield f"license: {found}"
    yield "tags: [unlearning, lethe]"
    yield "---"


def _sections(record: StudyRecord, trial: TrialRecord, adapter: bool) -> Iterator[str]:
    yield f"# {record.space}: unlearned, trial {trial.number}"
    yield ""
    yield f"A language model from which the forget rows of `{record.data_name}` were unlearned with lethe."
    yield ""
    yield "## Is it forgotten?"
    yield ""
    if trial.forgotten is None:
        yield "Not judged: the study has no criterion about forgetting that can be checked."
    else:
        yield f"**{trial.forgotten.forgotten}**: the model {_TESTS[trial.forgotten.forgotten]}."
        yield ""
        for criterion in trial.forgotten.criteria:
            yield f"- {'holds' if criterion.holds else '**fails**'}: {criterion.describe()}"
    yield ""
    yield from _scores(record, trial)
    yield ""
    yield "## How it was made"
    yield ""
    yield f"Study `{record.id}`, run `{trial.run}`. Digests: " + ", ".join(
        f"{name} `{digest}`" for name, digest in record.digests.items() if digest
    )
    yield ""
    settings = {**_fixed(record), **trial.params}
    yield from (f"- `{key}`: {value}" for key, value in settings.items())
    yield ""
    yield "## How to load it"
    yield ""
    yield from _loading(adapter)
    if trial.adapter:
        yield ""
        yield f"The adapter has {trial.adapter.describe()}."
        least = trial.adapter.rank
        yield f"A server has to allow rank {least} (vLLM: `max_lora_rank`, 16 unless it is told otherwise)."
        if trial.adapter.cut_to:
            yield "The scores above are those of the adapter that is not cut."


def _scores(record: StudyRecord, trial: TrialRecord) -> Iterator[str]:
    """Yield a table of the objectives of start model, this model and oracle."""
    oracle = record.oracle.metrics if record.oracle else {}
    yield "| | start model | this model | oracle |"
    yield "|---|---|---|---|"
    for goal in record.objectives:
        values = [scores.get(goal.metric) for scores in (record.start.metrics, trial.metrics, oracle)]
        cells = ["" if value is None else f"{value:.3g}" for value in values]
        yield f"| `{goal.metric}` ({goal.direction}) | {' | '.join(cells)} |"


def _fixed(record: StudyRecord) -> dict[str, object]:
    """Return names that the study fixes for all trials: its objective, optimizer and adapter."""
    run = record.study.get("run", {})
    sections = {key: run[key] for key in ("objective", "optimizer", "adapter") if isinstance(run.get(key), dict)}
    return {f"{key}.name": section["name"] for key, section in sections.items() if "name" in section}


def _loading(adapter: bool) -> Iterator[str]:
    yield "```python"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    if adapter:
        yield "from peft import PeftModel"
        yield ""
        yield 'base = AutoModelForCausalLM.from_pretrained("the start model\'s folder")'
        yield 'model = PeftModel.from_pretrained(base, "this folder")'
    else:
        yield 'model = AutoModelForCausalLM.from_pretrained("this folder")'
    yield 'tokenizer = AutoTokenizer.from_pretrained("this folder")'
    yield "```"
