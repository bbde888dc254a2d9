"""The shape of the demo model's network, and the weights of `hf/` under it."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file


@dataclass(frozen=True)
class Config:
    """The shape of the network. Rows are multiples of 256, so every GGUF block type fits."""

    vocab: int = 2048
    width: int = 256
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 768
    context: int = 1024
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


def load_hf(folder: Path):
    """The configuration and the f16 weights of an exported folder, under their safetensors names."""
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = Config(
        vocab=described["vocab_size"],
        width=described["hidden_size"],
        layers=described["num_hidden_layers"],
        heads=described["num_attention_heads"],
        kv_heads=described["num_key_value_heads"],
        ffn=described["intermediate_size"],
        context=described["max_position_embeddings"],
        rope_theta=described["rope_theta"],
        norm_eps=described["rms_norm_eps"],
    )
    return config, load_file(folder / "model.safetensors")
