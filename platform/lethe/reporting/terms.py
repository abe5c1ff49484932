"""The words of reports, one for each thing: names of methods, and terms with what they mean."""

from __future__ import annotations

from lethe.records import EVALUATED_SHARE

NAMES = {  # components as people write them, by the name in a configuration
    "npo": "NPO",
    "simnpo": "SimNPO",
    "dpo": "DPO",
    "ihl": "IHL",
    "kl": "KL",
    "altpo": "AltPO",
    "file": "a loss from a file",
    "wga": "WGA",
    "satimp": "SatImp",
    "undial": "UNDIAL",
    "ce_u": "CE-U",
    "rmu": "RMU",
    "pdu": "PDU",
    "grad_diff": "gradient difference",
    "gradient_ascent": "gradient ascent",
    "preference_optimization": "preference optimization",
    "influence": "influence functions",
    "retrain": "retraining",
    "input_guard": "an input guard",
    "adamw": "AdamW",
    "adamw8bit": "AdamW in 8 bits",
    "lion": "Lion",
    "sgd": "SGD",
    "muon": "Muon",
    "mezo": "MeZO",
    "sophia": "Sophia",
    "lora": "LoRA",
    "pissa": "PiSSA",
    "fila": "FILA",
    "vila": "VILA",
    "full": "every weight",
    "quantisation": "rounding",
    "prompts": "other prompts",
    "sampling": "sampled answers",
    "format": "other forms of the question",
    "logit_lens": "a logit lens",
}

RUN_MEANINGS = {  # of what every run reports, whatever the benchmark
    EVALUATED_SHARE: "share of the rows that the metrics are of: below 1 in interim evaluations, before the last epoch",
}

TERMS = {
    "oracle": "a model that never saw the forget rows; one that has forgotten is like it",
    "arm": "one of the methods that are compared: each has as many trials over the same ranges, with every seed",
    "reference": "an arm to compare with, such as retraining: drawn as a line, on no front",
    "first and second order": "whether the optimizer uses gradients alone (circles, Lion squares) or curvature as well "
    "(diamonds, the released Hessian pentagons)",
    "front": "the trials that no other trial beats in every objective",
    "floor": "the value that a trial must be better than to count, fixed before the first trial",
    "knee": "the front's best compromise: the member farthest from the line between the front's ends",
    "hypervolume": "the area between the front and the floors, 1 for the oracle's forgetting at the start model's "
    "utility; larger is better",
    "held out": "the largest size, which no fit has seen: its prediction is judged by its measurement",
    "law": "how a cost grows: offset + factor x size^exponent; in proportion where the exponent is 1",
    "stage": "what ZeRO divides among the workers: 0 nothing, 1 optimizer states, 2 gradients, 3 weights as well",
    "strong and weak scaling": "more workers for as many rows a step, or for as many times the rows",
    "serial share": "the part of a step that more workers do not shorten: Amdahl's, for weak scaling Gustafson's",
    "forget target": "a share of the start model's value (.75 by default) in the first objective",
    "utilisation": "the model's FLOPs per CPU second, over the rate of this machine's matrix products",
    "win rate": "the share of Sophia's moving coordinates that are not clipped",
    "interim": "evaluated before the last epoch, on an evenly spread share of the rows (run.evaluation.interim): an "
    "early stop reads it, the front never does; its points are hollow",
    "rank": "0 is the front; 1 is the front without it, and so on",
}
