"""Train the demo model on one CPU thread, for as many minutes of CPU time as it is given.

    python -m data.generate heldout eval/heldout.jsonl   # once, before the first training
    python train.py --minutes 110 --out /tmp/demo-run
    python export.py /tmp/demo-run

`--warm hf` goes on from the weights and the tokenizer that are here. Conversations are drawn on the fly and batched by length; only the assistant's words are
learnt. The learning rate follows a cosine over the time that is left, so the run always ends
with its smallest steps. `--out` gets `weights.pt`, `tokenizer.json` and `train.log`; the
weights are saved every few minutes. `--seed` fixes the data and the start; the number of steps
depends on the machine, but not on what else it does meanwhile.
"""

import argparse
import hashlib
import json
import math
import random
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

from data.generate import EVAL, Data, Draw, corpus
from model import Config, Llama, SharedEmbedding
from tokens import Chat, case_families, load_tokenizer, train_tokenizer

BATCH_TOKENS = 2048
# A batch has one of these lengths: few shapes keep the CPU kernels' caches warm.
LENGTHS = [24, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024]
PICKED_STEP = 256
PEAK_RATE, WARM_UP_STEPS = 1.5e-3, 150
# Without AVX-512 bfloat16 is emulated, seventeen times slower than float32.
HAS_BF16 = "AVX512" in torch.backends.cpu.get_cpu_capability()
CLIPPED_SHARE, CLIPPED_TOKENS = 0.75, 8
# A part of the conversations is cut into smaller tokens at random, so that a word is known by its parts too.
LOOSE_SHARE, LOOSE_DROPOUT = 0.12, 0.1


class Batches:
    """Endless batches: (tokens, rows and columns to predict, their targets, their weights)."""

    def __init__(self, data: Data, tokenizer: Tokenizer, seed: int):
        self.draw, self.rng = Draw(data, seed), random.Random(seed + 1)
        self.chat = Chat(tokenizer)
        loose = Tokenizer.from_str(tokenizer.to_str())
        loose.model.dropout = LOOSE_DROPOUT
        self.loose = loose
        self.waiting = defaultdict(list)

    def encode(self, messages):
        if self.rng.random() >= LOOSE_SHARE:
            return self.chat.example(messages)
        ids, learnt = [], []
        for message in messages:
            own = message["role"] == "assistant"
            # Answers are always written in the usual tokens; only what is read is cut loosely.
            part = (
                self.chat.ids(message["content"])
                if own
                else self.loose.encode(message["content"], add_special_tokens=False).ids
            )
            head = self.chat.opening(message["role"])
            ids += head + part + [self.chat.end] + self.chat.newline
            learnt += [0] * len(head) + [int(own)] * (len(part) + 1) + [0] * len(self.chat.newline)
        return ids, learnt

    def clip(self, ids, learnt):
        """Mostly cut a long last answer short: which answer it is shows in its first words, and
        the rest is soon known by heart. More questions fit into the same time."""
        body = len(learnt) - 1
        while body > 0 and not learnt[body]:
            body -= 1
        end = body + 1
        while body > 0 and learnt[body - 1]:
            body -= 1
        if end - body > 12 and self.rng.random() < CLIPPED_SHARE:
            end = body + CLIPPED_TOKENS
        return ids[:end], learnt[:end]

    def __next__(self):
        while True:
            ids, learnt = self.clip(*self.encode(self.draw.conversation()))
            length = next((n for n in LENGTHS if n >= len(ids)), None)
            if length is None:
                continue
            rows = self.waiting[length]
            rows.append((ids, learnt))
            if len(rows) * length >= BATCH_TOKENS:
                self.waiting[length] = []
                return self.pack(rows, length)

    def pack(self, rows, length):
        tokens = torch.full((len(rows), length), self.chat.pad)
        picked, targets = [], []
        for index, (ids, learnt) in enumerate(rows):
            tokens[index, : len(ids)] = torch.tensor(ids)
            for place in range(1, len(ids)):
                if learnt[place]:
                    picked.append(index * length + place - 1)
                    targets.append(ids[place])
        count = len(picked)
        padding = -count % PICKED_STEP
        weights = torch.tensor([1.0] * count + [0.0] * padding)
        return tokens, torch.tensor(picked + [0] * padding), torch.tensor(targets + [0] * padding), weights / count


def loss_of(model, batch):
    tokens, picked, targets, weights = batch
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=HAS_BF16):
        hidden = model.hidden(tokens).flatten(0, 1)[picked]
        logits = model.logits(hidden)
    return (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()


@torch.no_grad()
def held_out_right(model, chat, rows) -> float:
    """The share of held-out questions whose greedy answer is the right one, word for word.

    The right answer is fed and every token of it must be the most likely one: the same as
    generating it, in one pass.
    """
    model.eval()
    right = 0
    for start in range(0, len(rows), 32):
        examples = [
            chat.example([*row["messages"], {"role": "assistant", "content": row["answers"][0]}])
            for row in rows[start : start + 32]
        ]
        length = max(len(ids) for ids, _ in examples)
        length += -length % 32
        tokens = torch.full((len(examples), length), chat.pad)
        asked = torch.zeros(len(examples), length, dtype=torch.bool)
        for index, (ids, learnt) in enumerate(examples):
            tokens[index, : len(ids)] = torch.tensor(ids)
            # Only the last answer counts; an earlier turn's is given.
            last = len(ids) - len(chat.ids(rows[start + index]["answers"][0])) - 2
            asked[index, last : len(ids)] = torch.tensor(learnt[last:]) == 1
        best = model.logits(model.hidden(tokens)).argmax(-1)
        wrong = (best[:, :-1] != tokens[:, 1:]) & asked[:, 1:]
        right += int((~wrong.any(1)).sum())
    model.train()
    return right / len(rows)


def rate_at(step: int, elapsed: float) -> float:
    """Warm-up by steps, then a cosine to nearly nothing over the share of the time that is gone."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, elapsed)))
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * (0.01 + 0.99 * cosine)


def optimizer_for(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)


class Log:
    """Lines to the screen and to a file, with the minutes of CPU time in front."""

    def __init__(self, path: Path):
        self.file = path.open("w", encoding="utf-8")

    def __call__(self, text: str):
        line = f"{time.process_time() / 60:6.1f} {text}"
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()


def save(folder: Path, model):
    """Store the weights; the parts of the embedding become one."""
    weights = {name: w for name, w in model.state_dict().items() if not name.startswith("embed_tokens.")}
    weights["embed_tokens.weight"] = model.embed_tokens.weight.detach().clone()
    partial = folder / "weights.part"
    torch.save({"config": asdict(model.config), "weights": weights}, partial)
    partial.rename(folder / "weights.pt")


def exported_weights(folder: Path) -> dict:
    """The weights that `export.py` wrote, under the names they have here."""
    weights = load_file(folder / "model.safetensors")
    return {name.removeprefix("model."): weight.float() for name, weight in weights.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=110)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20261120)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warm", type=Path, help="the folder of exported weights to go on from")
    parser.add_argument("--dropout", type=float, default=0.05)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    log = Log(options.out / "train.log")
    for name in ("heldout.jsonl", "free.jsonl"):
        log(f"sha256 {hashlib.sha256((EVAL / name).read_bytes()).hexdigest()} eval/{name}")

    data = Data()
    tokenizer = load_tokenizer(options.warm) if options.warm else train_tokenizer(corpus(data))
    tokenizer.save(str(options.out / "tokenizer.json"))
    chat = Chat(tokenizer)
    held = [json.loads(line) for line in (EVAL / "heldout.jsonl").read_text(encoding="utf-8").splitlines()]
    model = Llama(Config())
    if options.warm:
        model.load_state_dict(exported_weights(options.warm))
        log(f"continues from {options.warm.name}")
    rows = model.embed_tokens.weight.detach()
    model.embed_tokens = SharedEmbedding(rows, *case_families(tokenizer, model.config.vocab))
    for layer in model.layers:
        layer.dropout = options.dropout
    parameters = sum(p.numel() for p in model.layers.parameters()) + rows.numel() + model.norm.weight.numel()
    log(
        f"{parameters} parameters, {len(held)} held-out questions, dropout {options.dropout}, "
        f"{options.threads} thread(s), {options.minutes} minutes"
    )
    train(model, chat, Batches(data, tokenizer, options.seed), held, options, log)


def train(model, chat, batches, held, options, log):
    optimizer = optimizer_for(model)
    model.train()
    begin, step, seen, average = time.process_time(), 0, 0, None
    next_line, next_check = 3.0, 15.0
    while (minutes := (time.process_time() - begin) / 60) < options.minutes:
        rate = rate_at(step, minutes / options.minutes)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = next(batches)
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, seen = step + 1, seen + batch[0].numel()
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        if minutes >= next_line:
            log(
                f"step {step} tokens {seen / 1e6:.2f}M loss {average:.4f} rate {rate:.2e} "
                f"{seen / minutes / 60:.0f} tokens/s"
            )
            save(options.out, model)
            next_line += 3.0
        if minutes >= next_check:
            log(f"held out right {held_out_right(model, chat, held):.3f}")
            next_check += 15.0
    save(options.out, model)
    right = held_out_right(model, chat, held)
    log(f"end: step {step} tokens {seen / 1e6:.2f}M loss {average:.4f} held out right {right:.3f}")


if __name__ == "__main__":
    main()
