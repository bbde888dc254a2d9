"""Score the demo model on the held-out and the free questions.

    python score.py --url https://localhost:8443/v1 --key KEY --cacert DATA/tls/ca.pem
    python score.py --weights hf

With `--url` any OpenAI-compatible endpoint answers, at temperature 0; the standard library is
enough. With `--weights` the shipped weights are rounded to q8_0 and run here, with activations
rounded as llama.cpp's CPU kernels do it; that needs `requirements.txt`.

An answer is right if it is, apart from white space, the canonical answer of the question; a sum
is right if the last number of the answer is.
"""

import argparse
import json
import re
import ssl
import sys
import urllib.request
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAX_TOKENS = 96


def is_right(row: dict, answer: str) -> bool:
    if "number" in row:
        numbers = re.findall(r"\d+", answer)
        return bool(numbers) and int(numbers[-1]) == row["number"]
    return " ".join(answer.split()) in row["answers"]


def endpoint(options):
    """A function from messages to the answer, asked over HTTP."""
    context = ssl.create_default_context(cafile=options.cacert) if options.url.startswith("https") else None
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {options.key}"}

    def call(path: str, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(options.url.rstrip("/") + path, data, headers)
        with urllib.request.urlopen(request, timeout=60, context=context) as reply:
            return json.load(reply)

    model = options.model or call("/models")["data"][0]["id"]

    def answer(messages) -> str:
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}
        return call("/chat/completions", body)["choices"][0]["message"]["content"]

    return answer


def local_weights(options):
    """A function from messages to the answer, computed from safetensors rounded to q8_0."""
    import torch
    from safetensors.torch import load_file

    from model import Config, Llama
    from tokens import Chat, load_tokenizer

    torch.set_num_threads(1)

    def in_blocks(values):
        """Round to eight bits per block of 32, with an f16 scale: GGUF's q8_0."""
        blocks = values.reshape(*values.shape[:-1], -1, 32)
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        steps = torch.where(scale > 0, blocks / scale.clamp_min(1e-30), 0.0).round()
        return (steps * scale.half().float()).reshape(values.shape)

    described = json.loads((options.weights / "config.json").read_text())
    config = Config(
        vocab=described["vocab_size"],
        width=described["hidden_size"],
        layers=described["num_hidden_layers"],
        heads=described["num_attention_heads"],
        kv_heads=described["num_key_value_heads"],
        ffn=described["intermediate_size"],
        context=described["max_position_embeddings"],
    )
    weights = load_file(options.weights / "model.safetensors")
    rounded = {
        name.removeprefix("model."): in_blocks(w.float()) if w.ndim == 2 else w.float() for name, w in weights.items()
    }
    model = Llama(config)
    model.load_state_dict(rounded)
    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs: (in_blocks(inputs[0]),))
    plain_logits = model.logits
    model.logits = lambda hidden: plain_logits(in_blocks(hidden))
    chat = Chat(load_tokenizer(options.weights))
    return lambda messages: chat.text(model.greedy(chat.prompt(messages), chat.end, MAX_TOKENS))


def score(name: str, answer, show_wrong: int):
    """Ask every question of a file and print the shares of right answers."""
    rows = [json.loads(line) for line in (HERE / "eval" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    tally, wrong = defaultdict(lambda: [0, 0]), []
    for row in rows:
        given = answer(row["messages"])
        right = is_right(row, given)
        for group in ("all", row["lang"], kind_of(row["key"])):
            tally[group][0] += right
            tally[group][1] += 1
        if not right:
            wrong.append((row, given))
    print(
        f"{name}: "
        + ", ".join(f"{group} {right}/{count} ({right / count:.1%})" for group, (right, count) in tally.items())
    )
    for row, given in wrong[:show_wrong]:
        print(f"  [{row['lang']} {row['key']}] {row['messages'][-1]['content']!r} -> {given!r}")


def kind_of(key: str) -> str:
    if ">" in key or key.startswith("follow-up"):
        return "follow-up"
    if key in ("capital", "day", "month") or key.startswith("fact/"):
        return "fact"
    return key if key in ("sum", "unknown") else "intent"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url")
    parser.add_argument("--key", default="")
    parser.add_argument("--cacert")
    parser.add_argument("--model", help="the model's name at the endpoint; the first one listed by default")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--only", choices=["heldout", "free"])
    parser.add_argument("--wrong", type=int, default=0, help="how many wrong answers to show")
    options = parser.parse_args()
    if bool(options.url) == bool(options.weights):
        sys.exit("one of --url and --weights, please")
    answer = endpoint(options) if options.url else local_weights(options)
    for name in ("heldout", "free"):
        if options.only in (None, name):
            score(name, answer, options.wrong)


if __name__ == "__main__":
    main()
