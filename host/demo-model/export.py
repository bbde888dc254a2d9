"""Write the demo model's files from a training checkpoint.

The weights are rounded once to f16 values; everything else comes from those:
`hf/model.safetensors` stores them as they are, `demo.gguf` quantizes them to q8_0.
The other formats are written by `exports.py`, from `hf/`.

    python export.py CHECKPOINT [OUT]

CHECKPOINT is the folder `train.py` writes (`weights.pt`, `tokenizer.json`); OUT is this folder.
"""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

from config import Config
from tokens import CHAT_TEMPLATE, SPECIAL, load_tokenizer

HERE = Path(__file__).resolve().parent
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def load_checkpoint(folder: Path) -> tuple[Config, dict[str, np.ndarray]]:
    """The configuration and the weights, rounded to f16, under their safetensors names."""
    import torch  # Only here: `exports.py` shares this module and does without.

    saved = torch.load(folder / "weights.pt", weights_only=True)
    weights = {f"model.{name}": w.half().numpy() for name, w in saved["weights"].items()}
    return Config(**saved["config"]), weights


def write_hf(folder: Path, config: Config, weights, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors writes a file that only its owner may read.
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"))
    pad, start, end = (tokenizer.token_to_id(token) for token in SPECIAL)
    described = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": pad,
        "torch_dtype": "float16",
    }
    write_json(folder / "config.json", described)
    template = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
        "add_bos_token": False,
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[0],
        "model_max_length": config.context,
    }
    write_json(folder / "tokenizer_config.json", template)


def write_json(path: Path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp rotates neighbouring pairs, not halves: reorder the rows of q and k to match."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def vocabulary(tokenizer, size: int):
    """Token texts, their GGUF types and the merges, in id order, filled up to `size`."""
    table = tokenizer.get_vocab()
    texts = [None] * len(table)
    for text, index in table.items():
        texts[index] = text
    kinds = [gguf.TokenType.CONTROL if text in SPECIAL else gguf.TokenType.NORMAL for text in texts]
    for index in range(len(texts), size):
        texts.append(f"<|unused_{index}|>")
        kinds.append(gguf.TokenType.UNUSED)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return texts, kinds, [m if isinstance(m, str) else " ".join(m) for m in merges]


def write_gguf(path: Path, config: Config, weights, tokenizer, kind: gguf.GGMLQuantizationType):
    """Write a model file whose matrices are of type `kind`, q8_0 or f16; the norms are always f32."""
    quantized = kind == gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tollgate-demo")
    writer.add_description("Tollgate's built-in demo chat model")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_languages(["en", "id"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantized else gguf.LlamaFileType.MOSTLY_F16)
    if quantized:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab)

    texts, kinds, merges = vocabulary(tokenizer, config.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    pad, start, end = (tokenizer.token_to_id(token) for token in SPECIAL)
    writer.add_bos_token_id(start)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(pad)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)

    for name, values in gguf_tensors(config, weights):
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(config: Config, weights):
    """The f16-rounded weights as f32, under llama.cpp's names and in its row order."""
    wide = {name: w.astype(np.float32) for name, w in weights.items()}
    yield "token_embd.weight", wide["model.embed_tokens.weight"]
    yield "output_norm.weight", wide["model.norm.weight"]
    for layer in range(config.layers):
        for ours, theirs in LAYER_NAMES.items():
            values = wide[f"model.layers.{layer}.{ours}.weight"]
            if theirs == "attn_q":
                values = interleave(values, config.heads)
            elif theirs == "attn_k":
                values = interleave(values, config.kv_heads)
            yield f"blk.{layer}.{theirs}.weight", values


def write_sums(folder: Path):
    """SHA-256 of every file that is shipped, in the form `sha256sum --check` reads."""
    names = sorted(path.name for path in folder.glob("*.gguf"))
    for part in ("hf", "lora", "onnx"):
        names += sorted(f"{part}/{path.name}" for path in (folder / part).glob("*"))
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in names]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    checkpoint = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE
    config, weights = load_checkpoint(checkpoint)
    tokenizer = load_tokenizer(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    write_hf(out / "hf", config, weights, tokenizer)
    write_gguf(out / "demo.gguf", config, weights, tokenizer, gguf.GGMLQuantizationType.Q8_0)
    write_sums(out)
    parameters = sum(w.size for w in weights.values())
    print(f"{asdict(config)}: {parameters} parameters, demo.gguf {(out / 'demo.gguf').stat().st_size} bytes")


if __name__ == "__main__":
    main()
