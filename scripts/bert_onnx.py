"""A BERT encoder in safetensors as an ONNX graph, with the ports Optimum gives one.

    python bert_onnx.py HF ONNX

Plain operators of opset 17 in f32: `input_ids`, `attention_mask` and `token_type_ids` to `last_hidden_state`. The folder
ONNX gets `model.onnx`, and beside it what a gateway reads with it.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "host" / "demo-model"))
from onnx_graph import BATCH, IR_VERSION, MASKED, OPSET, Graph

LENGTH = "sequence_length"
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json", "1_Pooling/config.json")


class Encoder:
    """The graph in the making, of one model's description and weights."""

    def __init__(self, config: dict, weights: dict[str, np.ndarray]):
        self.config, self.weights, self.graph = config, weights, Graph()

    def stored(self, name: str) -> str:
        return self.graph.stored(name, self.weights[name].astype(np.float32))

    def dense(self, at: str, x: str, name: str) -> str:
        weight = f"{name}.weight"
        product = self.graph.linear(f"{at}.product", x, weight, self.weights[weight].astype(np.float32))
        return self.graph.add("Add", at, product, self.stored(f"{name}.bias"))

    def norm(self, at: str, x: str, name: str) -> str:
        eps = self.config["layer_norm_eps"]
        scale, shift = self.stored(f"{name}.weight"), self.stored(f"{name}.bias")
        return self.graph.add("LayerNormalization", at, x, scale, shift, axis=-1, epsilon=eps)

    def embedded(self) -> str:
        graph = self.graph
        words = graph.add("Gather", "words", self.stored("embeddings.word_embeddings.weight"), "input_ids")
        segments = graph.add("Gather", "segments", self.stored("embeddings.token_type_embeddings.weight"), "token_type_ids")
        length = graph.add("Gather", "length", graph.add("Shape", "shape", "input_ids"), graph.integers(1))
        first, table = graph.integers(0), self.stored("embeddings.position_embeddings.weight")
        places = graph.add("Slice", "positions", table, first, length, first)
        x = graph.add("Add", "embedded", graph.add("Add", "told", words, segments), places)
        return self.norm("embedded.norm", x, "embeddings.LayerNorm")

    def attention(self, layer: int, x: str, seen: str) -> str:
        graph, heads, width = self.graph, self.config["num_attention_heads"], self.config["hidden_size"]
        at, split = f"layer.{layer}.attention", graph.integers(0, 0, heads, width // heads)

        def heads_of(part: str, perm) -> str:
            projected = self.dense(f"{at}.{part}", x, f"encoder.layer.{layer}.attention.self.{part}")
            split_up = graph.add("Reshape", f"{at}.{part}.heads", projected, split)
            return graph.add("Transpose", f"{at}.{part}.by_head", split_up, perm=perm)

        q, k, v = heads_of("query", [0, 2, 1, 3]), heads_of("key", [0, 2, 3, 1]), heads_of("value", [0, 2, 1, 3])
        scale = graph.stored("scale", np.float32((width // heads) ** -0.5))
        scores = graph.add("Mul", f"{at}.scores", graph.add("MatMul", f"{at}.products", q, k), scale)
        scores = graph.add("Where", f"{at}.masked", seen, scores, graph.stored("masked", np.float32(MASKED)))
        mixed = graph.add("MatMul", f"{at}.mixed", graph.add("Softmax", f"{at}.shares", scores, axis=-1), v)
        mixed = graph.add("Transpose", f"{at}.by_place", mixed, perm=[0, 2, 1, 3])
        return graph.add("Reshape", f"{at}.joined", mixed, graph.integers(0, 0, width))

    def gelu(self, at: str, x: str) -> str:
        graph = self.graph
        scaled = graph.add("Div", f"{at}.scaled", x, graph.stored("root_of_2", np.float32(2**0.5)))
        share = graph.add("Add", f"{at}.share", graph.add("Erf", f"{at}.erf", scaled), graph.stored("one", np.float32(1)))
        return graph.add("Mul", at, graph.add("Mul", f"{at}.twice", x, share), graph.stored("half", np.float32(0.5)))

    def build(self) -> onnx.ModelProto:
        graph = self.graph
        seen = graph.add("Cast", "mask", "attention_mask", to=TensorProto.BOOL)
        seen = graph.add("Unsqueeze", "seen", seen, graph.integers(1, 2))
        x = self.embedded()
        for layer in range(self.config["num_hidden_layers"]):
            at, name = f"layer.{layer}", f"encoder.layer.{layer}"
            y = self.dense(f"{at}.attended", self.attention(layer, x, seen), f"{name}.attention.output.dense")
            x = self.norm(f"{at}.norm", graph.add("Add", f"{at}.sum", x, y), f"{name}.attention.output.LayerNorm")
            y = self.gelu(f"{at}.gelu", self.dense(f"{at}.inner", x, f"{name}.intermediate.dense"))
            y = graph.add("Add", f"{at}.added", x, self.dense(f"{at}.outer", y, f"{name}.output.dense"))
            x = self.norm(f"{at}.output", y, f"{name}.output.LayerNorm")
        graph.add("Identity", "last_hidden_state", x)
        port, shape = helper.make_tensor_value_info, [BATCH, LENGTH]
        inputs = [port(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask", "token_type_ids")]
        outputs = [port("last_hidden_state", TensorProto.FLOAT, [*shape, self.config["hidden_size"]])]
        built = helper.make_graph(graph.nodes, "bert", inputs, outputs, graph.initializers)
        model = helper.make_model(
            built, producer_name="tollgate", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def main():
    source, out = map(Path, sys.argv[1:])
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        sys.exit(f"{source} is no BERT with the activation gelu")
    model = Encoder(config, load_file(source / "model.safetensors")).build()
    (out / "1_Pooling").mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    for name in COPIED:
        shutil.copyfile(source / name, out / name)


if __name__ == "__main__":
    main()
