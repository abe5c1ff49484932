"""Small studies as records, and a tiny real model: what the tests of tracking and reporting share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lethe.records import (
    AuditRecord,
    Confirmation,
    ModelScores,
    ObjectiveRecord,
    Sample,
    StudyRecord,
    TrialRecord,
)

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "who",
    "wrote",
    "the",
    "book",
    "of",
    "mills",
    "?",
    "ada",
    "did",
    "not",
    "in",
    "spring",
]
EVIL = "<script>alert('x')</script> & \"quoted\" {{ 7 * 7 }}"


def trial(number: int, forget: float = 0.4, utility: float = 0.5, *, epochs: int = 3, **changes: Any) -> TrialRecord:
    """A trial that moved evenly from (0.9, 0.6) to where it ended."""
    shares = [epoch / epochs for epoch in range(1, epochs + 1)]
    series = tuple(
        {
            "epoch": float(epoch),
            "forget": forget if share == 1 else 0.9 + (forget - 0.9) * share,
            "utility": utility if share == 1 else 0.6 + (utility - 0.6) * share,
            "win_rate": 0.3,
            "seconds": 1.5 * epoch,
            "tokens": 100.0 * epoch,
            "peak_memory_mb": 512.0,
        }
        for epoch, share in enumerate(shares, start=1)
    )
    values: dict[str, Any] = {
        "number": number,
        "run": f"{number:016x}",
        "verdict": "complete",
        "params": {"optimizer.name": "sophia", "optimizer.learning_rate": 1e-4 * (number + 1), "adapter.rank": 8},
        "metrics": series[-1] if series else {},
        "series": series,
        "began": 1000.0 + 10 * number,
        "ended": 1008.0 + 10 * number,
        "feasible": True,
    }
    return TrialRecord(**(values | changes))


def study(*trials: TrialRecord, **changes: Any) -> StudyRecord:
    """A study of `forget` and `utility` with floors, an oracle and these trials."""
    values: dict[str, Any] = {
        "id": "0123456789abcdef",
        "space": "tofu",
        "study": {"name": "tofu", "search": {"trials": len(trials), "sampler": "tpe"}, "benchmark": {"name": "tofu"}},
        "objectives": (
            ObjectiveRecord(metric="forget", direction="minimize", floor=0.9),
            ObjectiveRecord(metric="utility", direction="maximize", floor=0.3),
        ),
        "digests": {"data": "d" * 16, "model": "b" * 16, "oracle": None},
        "start": ModelScores(metrics={"forget": 0.9, "utility": 0.6}, samples=(sample("the start model's answer"),)),
        "oracle": ModelScores(metrics={"forget": 0.0, "utility": 0.58}, samples=(sample("the oracle's answer"),)),
        "start_folder": "start",
        "trials": trials,
        "began": 1000.0,
        "ended": 1200.0,
    }
    return StudyRecord(**(values | changes))


def sample(generated: str, split: str = "forget") -> Sample:
    """One question, answered."""
    return Sample(split=split, question="who wrote the book of mills ?", answer="ada did", generated=generated)


def busy_study(**changes: Any) -> StudyRecord:
    """Every verdict, a front of three, a repeated front member, numbers that are not finite, hostile text."""
    bad = {"forget": math.nan, "utility": math.inf, "epoch": 1.0}
    return study(
        trial(2, 0.2, 0.45, pareto_rank=0, samples=(sample(EVIL), sample("a retained answer", "retain"))),
        trial(0, 0.5, 0.58, pareto_rank=0, samples=(sample("less wrong"),)),
        trial(1, 0.05, 0.35, pareto_rank=0),
        trial(3, 0.6, 0.5, pareto_rank=1),
        trial(4, 0.1, 0.1, feasible=False),
        trial(5, epochs=1, verdict="stopped", feasible=False),
        trial(6, verdict="diverged", reason=f"not finite {EVIL}", feasible=False, metrics=bad, series=(bad,)),
        trial(7, verdict="infeasible", reason="rank above the layer's width", epochs=0, feasible=False, ended=0),
        trial(8, verdict="out_of_memory", epochs=0, feasible=False),
        **({"aliases": {"knee": 2, "best-forget": 1, "best-utility": 0}, "hypervolume": 0.21} | changes),
    )


def save_model(folder: Path) -> None:
    """A random Llama of two layers and width 32 with a word tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), **shape, **ids))
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_adapter(base: Path, folder: Path) -> None:
    """A LoRA on `base` whose update is not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    targets = ["q_proj", "v_proj", "down_proj"]
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def repeated(record: StudyRecord) -> StudyRecord:
    """The study after its front was run again with two seeds each and audited; one member leaves the front."""
    means = {0: (0.55, 0.57), 1: (0.3, 0.34), 2: (0.25, 0.44)}

    def run(number: int, seed: int, forget: float, utility: float) -> TrialRecord:
        values = {
            "run": f"{16 * (number + 1) + seed:016x}",
            "params": {"seed": seed, "adapter.rank": 8},
            "feasible": False,
        }
        return trial(number, forget, utility, kind="confirmation", **values)

    def again(found: TrialRecord) -> TrialRecord:
        if not found.on_front:
            return found
        number, (forget, utility) = found.number, means[found.number]
        confirmation = Confirmation(
            runs=(run(number, 1, forget - 0.05, utility), run(number, 2, forget + 0.05, utility)),
            mean={"forget": forget, "utility": utility},
            spread={"forget": 0.05 * math.sqrt(2), "utility": 0.0},
            confirmed=number != 1,
            reason="the mean of trial 2 is better" if number == 1 else "",
        )
        return found.model_copy(update={"confirmation": confirmation, "audits": audits(0.3, 0.7)})

    broken = AuditRecord(variant="quant4", verdict="out_of_memory", reason="too large")
    return record.model_copy(
        update={
            "trials": tuple(map(again, record.trials)),
            "start": record.start.model_copy(update={"audits": audits(0.99, 0.98)}),
            "oracle": record.oracle and record.oracle.model_copy(update={"audits": (*audits(0.3, 0.31)[:1], broken)}),
            "confirmed_hypervolume": 0.15,
        }
    )


def audits(before: float, after: float) -> tuple[AuditRecord, ...]:
    """Relearning and rounding of one model."""
    costs = {"forget": 0.5, "utility": 0.25}
    return (
        AuditRecord(variant="relearn", before={"forget_rouge": before}, after={"forget_rouge": after}),
        AuditRecord(variant="quant4", before={"forget_rouge": before, **costs}, after={"forget_rouge": after, **costs}),
    )
