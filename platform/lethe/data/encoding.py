"""Text to token ids: one text of trusted parts, in which control tokens count, and of data, in which they are text."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from lethe.data.rendering import control_tokens, described
from lethe.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRIVATE = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))  # code points that no text uses: Unicode says so
PLANES = re.compile(f"[{chr(0xF0000)}-{chr(0x10FFFD)}]")


class TextEncoder:
    """A tokenizer in which every control token is written as one private character, its stand-in.

    It shares the tokenizer's model, and differs from it in nothing else: the whole text is tokenised at once, with
    whatever a tokenizer does at the beginning of a text or behind a control token. `opening`: the ids that the
    tokenizer itself puts in front of a text, BOS or nothing.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, written: str = "") -> None:
        """`written`: the text of a template, whose added tokens are control tokens even if they are not special. Raises
        UserError for a tokenizer that does not say which text a token stands for."""
        from tokenizers import AddedToken, Tokenizer

        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(f"{described(tokenizer)} gives no offsets: save it as tokenizer.json first")
        self._name = described(tokenizer)
        self._control = control_tokens(tokenizer, written)
        self._stand_ins = {token: chr(PRIVATE[n]) for n, token in enumerate(self._control.values())}
        longest_first = sorted(self._stand_ins, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._encoder = Tokenizer(backend.model)
        for part in ("normalizer", "pre_tokenizer"):
            if (found := getattr(backend, part)) is not None:
                setattr(self._encoder, part, found)
        added = tokenizer.added_tokens_decoder
        contents = {i: self._stand_ins[token] for i, token in self._control.items()}
        contents |= {i: token.content for i, token in added.items() if i not in contents and token.content}
        flags = ("single_word", "lstrip", "rstrip", "normalized")
        tokens = [
            AddedToken(text, **({name: getattr(added[i], name) for name in flags} if i in added else {}))
            for i, text in contents.items()
        ]
        self._encoder.add_tokens(tokens)
        self._ids = {self._encoder.token_to_id(text): i for i, text in contents.items()}
        self.opening = _opening(tokenizer)

    def trusted(self, text: str) -> str:
        """Return `text` of a template with stand-ins for its control tokens."""
        return self._pattern.sub(lambda match: self._stand_ins[match[0]], text)

    def encode(self, *parts: str, data: tuple[int, ...] = ()) -> tuple[tuple[int, ...], list[int]]:
        """Return the ids of the joined `parts` and, for each part, the number of tokens that end with it or before it.

        Parts whose numbers are in `data` come from outside; the others are `trusted`. Raises UserError for a control
        token that the tokenizer makes of plain text.
        """
        pieces = [PLANES.sub("", part) if n in data else part for n, part in enumerate(parts)]
        text = "".join(pieces)
        encoding = self._encoder.encode(text, add_special_tokens=False)
        ends = [end for _, end in encoding.offsets]
        lengths, at = [], 0
        for piece in pieces:
            at += len(piece)
            lengths.append(bisect_right(ends, at))
        self._check(encoding.ids, encoding.offsets, text)
        return tuple(self._ids.get(i, i) for i in encoding.ids), lengths

    def _check(self, raw: list[int], offsets: list[tuple[int, int]], text: str) -> None:
        for i, (start, end) in zip(raw, offsets, strict=True):
            token = self._control.get(i)
            # The ids of stand-ins are none of the model's own, so this one was made of text.
            if token is not None and i not in self._ids and text[start:end] == token:
                raise UserError(
                    f"{self._name} makes the control token {token!r} of plain text: take it out of the data"
                )


def _opening(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids that the tokenizer's post-processor puts in front of a text."""
    alone, whole = (tokenizer.encode("a", add_special_tokens=added) for added in (False, True))
    start = next((n for n in range(len(whole)) if whole[n : n + len(alone)] == alone), 0)
    return tuple(whole[:start])
