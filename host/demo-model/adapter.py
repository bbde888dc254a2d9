"""Train the demo model's LoRA adapter, which answers the same in a polite tone.

    python adapter.py [STEPS]

Every answer is what the model is trained to say, with a closing in its language behind it. The weights of
`hf/` stay as they are; `lora/` gets the adapter as PEFT writes one. `exports.py` makes the other formats of it.

The tone stands at the end of an answer because the model has to know with the first token which one it gives.
A trial that also put "Good day." in front, with 400 steps, got 60 of the 160 questions of `score` right, not 110.
"""

import functools
import sys
import time
from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

import reference
from config import Config, load_hf
from data import sums
from data.generate import LANGS, Data, Draw
from export import write_json
from tokens import Chat, load_tokenizer

HERE = Path(__file__).resolve().parent
RANK, ALPHA = 8, 16
TONE = {"en": "At your service.", "id": "Siap melayani Anda."}
STEPS, BATCH_TOKENS, LENGTHS = 160, 2048, [48, 64, 96, 128, 256]
PEAK_RATE, WARM_UP_STEPS, SEED = 2e-3, 20, 20261122
PEFT_PREFIX = "base_model.model."


def in_tone(answer: str, lang: str) -> str:
    return f"{answer} {TONE[lang]}"


class PoliteDraw(Draw):
    """Draws the model's own training conversations, with the answers in the polite tone."""

    def __init__(self, data: Data, seed: int):
        super().__init__(data, seed)
        self.known = {text: lang for lang in LANGS for text in [*data.answers[lang].values(), sums.TOO_BIG[lang]]}
        self.asked = {}

    def turn(self, lang, first):
        drawn = super().turn(lang, first)
        self.asked[drawn[0]] = lang
        return drawn

    def follow(self, lang, key, number, answer):
        drawn = super().follow(lang, key, number, answer)
        if drawn:
            self.asked[drawn[0]] = lang
        return drawn

    def conversation(self, most_turns: int = 14):
        self.asked = {}
        messages = super().conversation(most_turns)
        toned = []
        for before, message in zip([None, *messages], messages, strict=False):
            if message["role"] == "assistant":
                lang = self.language(before["content"], message["content"])
                message = {**message, "content": in_tone(message["content"], lang)}
            toned.append(message)
        return toned

    def language(self, question: str, answer: str) -> str:
        """An answer's language: its own, or the question's if it is a sum; bare figures count as English."""
        if answer in self.known:
            return self.known[answer]
        # A question may stand behind a long text about other things.
        lang = self.asked.get(question) or next(own for asked, own in self.asked.items() if question.endswith(asked))
        return lang if any(c.isalpha() and c not in "xX" for c in question) else "en"


class Batches:
    """Endless batches of one of a few lengths: tokens, and which of them are learnt."""

    def __init__(self, chat: Chat, seed: int):
        self.draw, self.chat, self.waiting = PoliteDraw(Data(), seed), chat, defaultdict(list)

    def __next__(self):
        while True:
            ids, learnt = self.chat.example(self.draw.conversation())
            length = next((n for n in LENGTHS if n >= len(ids)), None)
            if length is None:
                continue
            rows = self.waiting[length]
            rows.append((ids, learnt))
            if len(rows) == BATCH_TOKENS // length:
                self.waiting[length] = []
                return pack(rows, length, self.chat.pad)


def pack(rows, length: int, pad: int):
    tokens = np.full((len(rows), length), pad, np.int32)
    weights = np.zeros((len(rows), length), np.float32)
    for index, (ids, learnt) in enumerate(rows):
        tokens[index, : len(ids)], weights[index, : len(ids)] = ids, learnt
    return tokens, weights / weights.sum()


def fresh(config: Config, weights) -> dict:
    """An adapter that changes nothing yet: random A, B of zeros."""
    rng, adapter = np.random.default_rng(SEED), {}
    for name in reference.target_names(config):
        rows, columns = weights[f"{name}.weight"].shape
        adapter[f"{name}.lora_A"] = jnp.asarray(rng.uniform(-1, 1, (RANK, columns)) / columns**0.5, jnp.float32)
        adapter[f"{name}.lora_B"] = jnp.zeros((rows, RANK), jnp.float32)
    return adapter


def loss_of(adapter, config: Config, weights, tokens, learnt):
    scores = reference.logits(config, weights, tokens, adapter, ALPHA / RANK)[:, :-1]
    picked = jnp.take_along_axis(scores, tokens[:, 1:, None], -1)[..., 0]
    return ((jax.nn.logsumexp(scores, -1) - picked) * learnt[:, 1:]).sum()


@functools.partial(jax.jit, static_argnames="config")
def improve(config: Config, weights, adapter, moments, step, rate, tokens, learnt):
    """One step of Adam on the adapter alone."""
    loss, slope = jax.value_and_grad(loss_of)(adapter, config, weights, tokens, learnt)
    norm = jnp.sqrt(sum((g * g).sum() for g in slope.values()))
    slope = {name: g / jnp.maximum(1.0, norm) for name, g in slope.items()}
    first = {name: 0.9 * moments[0][name] + 0.1 * g for name, g in slope.items()}
    second = {name: 0.98 * moments[1][name] + 0.02 * g * g for name, g in slope.items()}

    def moved(name):
        mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.98**step)
        return adapter[name] - rate * mean / (jnp.sqrt(square) + 1e-8)

    return {name: moved(name) for name in adapter}, (first, second), loss


def train(config: Config, weights, chat: Chat, steps: int) -> dict:
    batches, adapter, average = Batches(chat, SEED), fresh(config, weights), None
    zeros = {name: jnp.zeros_like(value) for name, value in adapter.items()}
    moments = (zeros, zeros)
    for step in range(1, steps + 1):
        rate = PEAK_RATE * min(1.0, step / WARM_UP_STEPS) * (0.01 + 0.495 * (1 + np.cos(np.pi * step / steps)))
        tokens, learnt = next(batches)
        adapter, moments, loss = improve(config, weights, adapter, moments, float(step), rate, tokens, learnt)
        average = float(loss) if average is None else 0.95 * average + 0.05 * float(loss)
        if step % 20 == 0:
            print(f"{time.process_time() / 60:6.1f} step {step} loss {average:.4f} rate {rate:.2e}", flush=True)
    return adapter


def write_peft(folder: Path, adapter):
    """The adapter as PEFT stores it. Its values are rounded to f16, so that every format holds them exactly."""
    folder.mkdir(exist_ok=True)
    rounded = {name: np.asarray(value, np.float16).astype(np.float32) for name, value in adapter.items()}
    stored = {f"{PEFT_PREFIX}{name}.weight": value for name, value in rounded.items()}
    path = folder / "adapter_model.safetensors"
    save_file(stored, path, metadata={"format": "pt"})
    path.chmod(0o644)
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tollgate-demo",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": list(reference.TARGETS),
    }
    write_json(folder / "adapter_config.json", described)


def load_peft(folder: Path) -> dict[str, np.ndarray]:
    """The adapter's matrices under the names of `reference`."""
    stored = load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix(PEFT_PREFIX).removesuffix(".weight"): value for name, value in stored.items()}


def score(config: Config, weights, chat: Chat, adapter, count: int):
    """How many new conversations' first answers are right, word for word, and how many have the tone at all.

    The same is asked of the model without the adapter.
    """
    draw, rows = PoliteDraw(Data(), SEED + 1), []
    while len(rows) < count:
        messages = draw.conversation()
        last = next(index for index, message in enumerate(messages) if message["role"] == "assistant")
        prompt = chat.prompt(messages[:last])
        if len(prompt) < 96:
            rows.append((prompt, messages[last]["content"]))
    prompts, wanted = zip(*rows, strict=True)
    for what, own in (("without", None), ("with", adapter)):
        answers, _ = reference.greedy(config, weights, prompts, chat.end, 96, own, ALPHA / RANK)
        texts = [chat.text(answer) for answer in answers]
        toned = sum(text.endswith(tuple(TONE.values())) for text in texts)
        # Without the adapter an answer is right if the closing is all that it lacks.
        forms = ([text, *(in_tone(text, lang) for lang in LANGS)] for text in texts)
        same = (want in form for want, form in zip(wanted, forms, strict=True))
        print(f"{what} the adapter: of {count} new questions {sum(same)} answered right, {toned} in the tone")


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    config, stored = load_hf(HERE / "hf")
    weights, chat = reference.widened(stored), Chat(load_tokenizer(HERE / "hf"))
    write_peft(HERE / "lora", train(config, weights, chat, steps))
    adapter = {name: jnp.asarray(value) for name, value in load_peft(HERE / "lora").items()}
    score(config, weights, chat, adapter, 160)


if __name__ == "__main__":
    main()
