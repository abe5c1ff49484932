"""Small tokenizers of the kinds that checkpoints bring: byte-level BPE and SentencePiece's, with and without BOS."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Who wrote the book that Ana Bor has read? Answer: The book is by Eva Fim, of Łódź.",
    "Где родилась Анна? Анна родилась в Москве.\nThe answers are 1, 2 and 3.",
    "assistant user system end of the turn: the answer, the book, the answer, the book",
]
CONTROL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)


def byte_level(prefix_space: bool = False) -> Tokenizer:
    """GPT-2's kind: a space belongs to the word behind it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def llama_3() -> Tokenizer:
    """The same with a pattern that keeps line ends together and numbers short."""
    tokenizer = byte_level()
    pattern = Regex(r"(?i:'s)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    split = pre_tokenizers.Split(pattern, "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def sentencepiece_legacy() -> Tokenizer:
    """Llama-2's kind in tokenizer.json: every piece of text between control tokens gets a space in front."""
    tokenizer = _pieces(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))
    tokenizer.pre_tokenizer = None
    return tokenizer


def sentencepiece() -> Tokenizer:
    """The same as it is saved today: a space in front of the whole text alone."""
    tokenizer = _pieces(normalizers.Replace(" ", "▁"))
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    return tokenizer


def gemma() -> Tokenizer:
    """Gemma's kind: no space in front of anything."""
    tokenizer = _pieces(normalizers.Replace(" ", "▁"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer


def _pieces(normalizer: normalizers.Normalizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bytes_ = ["<unk>", *(f"<0x{n:02X}>" for n in range(256))]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=600, special_tokens=bytes_, show_progress=False)
    )
    # Trained special tokens would be matched in text, which bytes are not.
    plain = Tokenizer(tokenizer.model)
    plain.normalizer = normalizer
    plain.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return plain


KINDS = {
    "byte_level": byte_level,
    "llama_3": llama_3,
    "sentencepiece_legacy": sentencepiece_legacy,
    "sentencepiece": sentencepiece,
    "gemma": gemma,
}


def pretrained(kind: str, *, bos: bool = False, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer as transformers has it, whose post-processor puts BOS in front if `bos`."""
    tokenizer = KINDS[kind]()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )
