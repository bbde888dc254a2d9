"""Write the demo model's other formats from `hf/` and `lora/`, and the table that all of them are held to.

    python exports.py

`demo-f16.gguf`, `onnx/` and `lora/demo-lora.gguf` have the very values of the two safetensors files.
`exports.json` has the greedy tokens of some questions, computed by `reference.py`; this script stops if
the ONNX file, run here, does not give the same ones.
"""

import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import gguf
import numpy as np
import onnxruntime

import adapter as lora
import reference
from config import Config, load_hf
from export import LAYER_NAMES, interleave, write_gguf, write_sums
from onnx_graph import decoder
from tokens import Chat, load_tokenizer

HERE = Path(__file__).resolve().parent
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json")
SCALE = lora.ALPHA / lora.RANK
LIMIT, PER_LANGUAGE = 32, 12
# Backends round differently; where the two best tokens are this far apart, no rounding can swap them.
MARGIN = 0.25
# One prompt that takes several steps to read.
LONG = "{} That was the text. Now, what is the capital of Japan?"


def write_adapter_gguf(path: Path, config: Config, adapter):
    """The adapter as llama.cpp's converter writes one, in f32: the rows of q and k follow those of the model."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name("tollgate-demo-polite")
    writer.add_description("The polite tone for Tollgate's built-in demo chat model")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "tollgate-demo")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(lora.ALPHA))
    heads = {"attn_q": config.heads, "attn_k": config.kv_heads}
    for name in reference.target_names(config):
        _, _, layer, target = name.split(".", 3)
        theirs = LAYER_NAMES[target]
        wide = adapter[f"{name}.lora_B"]
        if theirs in heads:
            wide = interleave(wide, heads[theirs])
        writer.add_tensor(f"blk.{layer}.{theirs}.weight.lora_a", adapter[f"{name}.lora_A"])
        writer.add_tensor(f"blk.{layer}.{theirs}.weight.lora_b", np.ascontiguousarray(wide))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_onnx(folder: Path, config: Config, weights, source: Path):
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(decoder(config, weights).SerializeToString(deterministic=True))
    for name in COPIED:
        shutil.copyfile(source / name, folder / name)


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_greedy(model, config: Config, prompt: list[int], stop: int, chunk: int = 1 << 30) -> list[int]:
    """The most likely tokens, with the cache fed from step to step and the prompt read in chunks."""
    shape = (1, config.kv_heads, 0, config.head_dim)
    names = [f"past_key_values.{layer}.{part}" for layer in range(config.layers) for part in ("key", "value")]
    past = {name: np.zeros(shape, np.float32) for name in names}
    waiting, done, answer = list(prompt), 0, []
    while len(answer) < LIMIT:
        feed, waiting = waiting[:chunk], waiting[chunk:]
        done += len(feed)
        outputs = model.run(
            None,
            {
                "input_ids": np.array([feed], np.int64),
                "attention_mask": np.ones((1, done), np.int64),
                "position_ids": np.arange(done - len(feed), done, dtype=np.int64)[None],
                **past,
            },
        )
        past = dict(zip(names, outputs[1:], strict=True))
        if waiting:
            continue
        token = int(outputs[0][0, -1].argmax())
        if token == stop:
            break
        answer.append(token)
        waiting = [token]
    return answer


def questions(chat: Chat) -> list[tuple[str, str]]:
    """What may stand in the table, with its language: the long text, then the free questions that are single turns."""
    filler = lora.PoliteDraw(lora.Data(), lora.SEED + 2).filler_text("en", 130)
    found = [("en", LONG.format(filler))]
    for line in (HERE / "eval" / "free.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if len(row["messages"]) == 1:
            found.append((row["lang"], row["messages"][0]["content"]))
    return found


def table(config: Config, weights, adapter, chat: Chat):
    """The rows of `exports.json` and the least gap of each kind: only questions on which rounding changes nothing."""
    asked = questions(chat)
    prompts = [chat.prompt([{"role": "user", "content": text}]) for _, text in asked]
    wide = reference.widened(weights)
    plain, gaps = reference.greedy(config, wide, prompts, chat.end, LIMIT)
    # An answer without an end in the table would not show the tone.
    kept = [index for index, answer in enumerate(plain) if 0 < len(answer) < LIMIT and gaps[index] >= MARGIN]
    again = [prompts[index] for index in kept]
    toned, toned_gaps = reference.greedy(config, wide, again, chat.end, LIMIT, adapter, SCALE)
    fit = defaultdict(list)
    for index, answer, gap in zip(kept, toned, toned_gaps, strict=True):
        lang, text = asked[index]
        if gap >= MARGIN and answer != plain[index]:
            row = {"message": text, "prompt": prompts[index], "plain": plain[index], "adapter": answer}
            fit[lang].append((row, gaps[index], gap))
    # Evenly through the file, which is sorted by subject; the long text is the first.
    picked = [of[len(of) * n // PER_LANGUAGE] for of in fit.values() for n in range(PER_LANGUAGE)]
    print(f"{len(picked)} questions are in the table, of {sum(map(len, fit.values()))} that fit")
    rows, plain_gaps, tone_gaps = zip(*picked, strict=True)
    return rows, (min(plain_gaps), min(tone_gaps))


def check(config: Config, weights, adapter, rows, stop: int):
    """Hold the ONNX file to the table, and the adapter merged into f32 and into f16 weights."""
    merged = {name: np.asarray(w) for name, w in reference.merged(reference.widened(weights), adapter, SCALE).items()}
    rounded = {name: w.astype(np.float16) for name, w in merged.items()}
    models = [
        ("plain", "onnx/model.onnx", (HERE / "onnx" / "model.onnx").read_bytes()),
        ("adapter", "the adapter merged in f32", decoder(config, merged).SerializeToString()),
        ("adapter", "the adapter merged in f16", decoder(config, rounded).SerializeToString()),
    ]
    for column, what, model in models:
        runner = session(model)
        for row in rows:
            for chunk in (1 << 30, 7):
                got = onnx_greedy(runner, config, row["prompt"], stop, chunk)
                if got != row[column]:
                    asked = f"{row['message']!r}, read {chunk} tokens at a time,"
                    sys.exit(f"{what} answers {asked} with {got}, not {row[column]}")
        print(f"{what}: {len(rows)} of {len(rows)} alike")


def write_table(path: Path, rows, gaps, stop: int):
    """JSON with one question to a line."""
    head = {
        "about": "Greedy tokens of the f16 weights in f32 arithmetic, without and with the adapter; up to `limit`, "
        "or to `stop`, which is not in them. `least_gap` is the least distance of the two best logits on the way.",
        "limit": LIMIT,
        "stop": stop,
        "least_gap": {"plain": round(gaps[0], 4), "adapter": round(gaps[1], 4)},
    }
    start = json.dumps(head, indent=2, ensure_ascii=False)[:-2]
    lines = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in rows)
    path.write_text(f'{start},\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8")


def main():
    config, weights = load_hf(HERE / "hf")
    tokenizer, adapter = load_tokenizer(HERE / "hf"), lora.load_peft(HERE / "lora")
    chat = Chat(tokenizer)
    write_gguf(HERE / "demo-f16.gguf", config, weights, tokenizer, gguf.GGMLQuantizationType.F16)
    write_onnx(HERE / "onnx", config, weights, HERE / "hf")
    write_adapter_gguf(HERE / "lora" / "demo-lora.gguf", config, adapter)
    rows, gaps = table(config, weights, adapter, chat)
    check(config, weights, adapter, rows, chat.end)
    write_table(HERE / "exports.json", rows, gaps, chat.end)
    write_sums(HERE)


if __name__ == "__main__":
    main()
