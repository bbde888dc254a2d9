"""The demo model's tokenizer and chat format.

A plain byte-level BPE of 2,048 tokens (llama.cpp calls its splitting rule `gpt-2`) and
the ChatML layout. Digits are never merged: a number is read and written digit by digit,
which is what lets a small model do sums.
"""

import json
import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB = 2048
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PAD, START, END = SPECIAL

# Stored in the model file; any engine that renders it gets the layout of `encode_chat`.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts) -> Tokenizer:
    """Learn the merges from `texts`; the special tokens come last, at the end of the table.

    Every merge of small letters gets a twin in capitals, so that "STOP IT" falls into the same
    pieces as "stop it". What is left of the table after the twins bounds the number of merges.
    """
    roles = ["system", "user", "assistant"] * 500
    lines = roles + [re.sub(r"\d", "", text) for text in texts if not text.isupper()]
    learnt = learn_merges(lines, VOCAB)
    merges = []
    for merge in learnt:
        room = VOCAB - len(SPECIAL) - len(pre_tokenizers.ByteLevel.alphabet()) - len(merges)
        new = [m for m in dict.fromkeys([merge, capital_twin(merge)]) if m not in merges]
        if len(new) > room:
            break
        merges += new
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    # Two merges can make the same piece; it is one token.
    table = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = plain_bpe(models.BPE(vocab=table, merges=merges))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def plain_bpe(model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def learn_merges(lines, size: int) -> list[tuple[str, str]]:
    tokenizer = plain_bpe(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]


def small(piece: str) -> str:
    """The piece in small letters; the byte alphabet's own letters (such as \u0120, the space) stay."""
    return "".join(c.lower() if c.isascii() else c for c in piece)


def case_families(tokenizer: Tokenizer, size: int) -> tuple[list[int], list[int]]:
    """For every token the id of its form in small letters, and how it is written (0 small, 1 a
    capital in front, 2 capitals)."""
    table = tokenizer.get_vocab()
    families, forms = list(range(size)), [0] * size
    for piece, index in table.items():
        if piece in SPECIAL or small(piece) == piece:
            continue
        families[index] = table.get(small(piece), index)
        letters = [c for c in piece if c.isascii() and c.isalpha()]
        forms[index] = 2 if len(letters) > 1 and all(c.isupper() for c in letters) else 1
    return families, forms


def capital_twin(merge: tuple[str, str]) -> tuple[str, str]:
    """A merge of small letters in capitals; any other merge as it is."""
    if any(small(part) != part for part in merge):
        return merge
    return tuple("".join(c.upper() if c.isascii() else c for c in part) for part in merge)


def load_tokenizer(folder) -> Tokenizer:
    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


class Chat:
    """Turns chat messages into token ids."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.pad, self.start, self.end = (tokenizer.token_to_id(token) for token in SPECIAL)
        self.newline = self.ids("\n")
        self.roles = {role: self.ids(role) for role in ("system", "user", "assistant")}

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def text(self, ids) -> str:
        return self.tokenizer.decode(ids)

    def opening(self, role: str) -> list[int]:
        return [self.start, *self.roles[role], *self.newline]

    def prompt(self, messages) -> list[int]:
        """The ids of a conversation, ending where the assistant's answer begins."""
        ids = []
        for message in messages:
            ids += self.opening(message["role"]) + self.ids(message["content"])
            ids += [self.end, *self.newline]
        return ids + self.opening("assistant")

    def example(self, messages) -> tuple[list[int], list[int]]:
        """A conversation's ids and, per id, whether it is learnt (the assistant's words only)."""
        ids, learnt = [], []
        for message in messages:
            head = self.opening(message["role"])
            body = self.ids(message["content"]) + [self.end]
            own = int(message["role"] == "assistant")
            ids += head + body + self.newline
            learnt += [0] * len(head) + [own] * len(body) + [0] * len(self.newline)
        return ids, learnt
