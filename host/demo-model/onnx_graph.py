"""The demo model as an ONNX graph: a decoder with a key-value cache, with the ports Optimum gives one.

Plain operators of opset 17. Weights are stored as they come, f16 ones with a cast beside them, and all
arithmetic is f32. Every matrix keeps its safetensors name and its rows, so that one can be found and replaced.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from config import Config

OPSET, IR_VERSION = 17, 8
BATCH, NEW, PAST = "batch_size", "sequence_length", "past_sequence_length"
ALL = "past_sequence_length + sequence_length"
# What a score becomes that must not count. It is finite: a row of nothing but padding stays a number.
MASKED = -1e30


class Graph:
    """Collects nodes and initializers; every call returns the name of its output."""

    def __init__(self):
        self.nodes, self.initializers, self.known = [], [], set()

    def add(self, operator: str, name: str, *inputs: str, **attributes) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def stored(self, name: str, values: np.ndarray) -> str:
        if name not in self.known:
            self.known.add(name)
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, *values: int) -> str:
        return self.stored(f"shape.{'_'.join(map(str, values))}", np.array(values, np.int64))

    def integer(self, value: int) -> str:
        return self.stored(f"integer.{value}", np.array(value, np.int64))

    def wide(self, name: str, values: np.ndarray) -> str:
        """A weight as f32."""
        if values.dtype == np.float32:
            return self.stored(name, values)
        if f"{name}.f32" in self.known:
            return f"{name}.f32"
        self.known.add(f"{name}.f32")
        return self.add("Cast", f"{name}.f32", self.stored(name, values), to=TensorProto.FLOAT)

    def linear(self, at: str, x: str, name: str, values: np.ndarray) -> str:
        turned = self.add("Transpose", f"{at}.weight", self.wide(name, values), perm=[1, 0])
        return self.add("MatMul", at, x, turned)

    def norm(self, at: str, x: str, name: str, values: np.ndarray, eps: float) -> str:
        square = self.add("Mul", f"{at}.square", x, x)
        mean = self.add("ReduceMean", f"{at}.mean", square, axes=[-1], keepdims=1)
        safe = self.add("Add", f"{at}.safe", mean, self.stored("norm_eps", np.float32(eps)))
        scaled = self.add("Div", f"{at}.scaled", x, self.add("Sqrt", f"{at}.root", safe))
        return self.add("Mul", at, scaled, self.wide(name, values))

    def rotate(self, at: str, x: str, cos: str, sin: str) -> str:
        """RoPE in the rotated-halves convention."""
        first, second = f"{at}.first", f"{at}.second"
        self.nodes.append(helper.make_node("Split", [x], [first, second], name=f"{at}.split", axis=-1))
        turned = self.add("Concat", f"{at}.turned", self.add("Neg", f"{at}.negated", second), first, axis=-1)
        plain, crossed = self.add("Mul", f"{at}.cos", x, cos), self.add("Mul", f"{at}.sin", turned, sin)
        return self.add("Add", at, plain, crossed)


def positions(graph: Graph, config: Config):
    """Cosine and sine of every angle, shaped for keys and for grouped queries."""
    frequency = 1.0 / config.rope_theta ** (np.arange(0, config.head_dim, 2) / config.head_dim)
    frequency = graph.stored("rope_frequency", np.concatenate([frequency, frequency]).astype(np.float32))
    place = graph.add("Cast", "rope.place", "position_ids", to=TensorProto.FLOAT)
    angle = graph.add("Mul", "rope.angle", graph.add("Unsqueeze", "rope.column", place, graph.integers(-1)), frequency)
    tables = {}
    for kind in ("Cos", "Sin"):
        table = graph.add(kind, f"rope.{kind.lower()}", angle)
        tables["k", kind] = graph.add("Unsqueeze", f"rope.k.{kind.lower()}", table, graph.integers(1))
        tables["q", kind] = graph.add("Unsqueeze", f"rope.q.{kind.lower()}", table, graph.integers(1, 2))
    return tables


def visible(graph: Graph) -> str:
    """Which key a query may see: none behind its own place, and none that the mask leaves out."""

    def length(name, of, axis):
        shape = graph.add("Shape", f"{name}.shape", of)
        return graph.add("Gather", name, shape, graph.integer(axis))

    past, new = length("past", "past_key_values.0.key", 2), length("new", "input_ids", 1)
    total = graph.add("Add", "total", past, new)
    keys = graph.add("Range", "key_places", graph.integer(0), total, graph.integer(1))
    queries = graph.add("Range", "query_places", past, total, graph.integer(1))
    queries = graph.add("Unsqueeze", "query_column", queries, graph.integers(1))
    causal = graph.add("LessOrEqual", "causal", keys, queries)
    mask = graph.add("Cast", "mask", "attention_mask", to=TensorProto.BOOL)
    mask = graph.add("Unsqueeze", "mask_row", mask, graph.integers(1, 2, 3))
    return graph.add("And", "visible", causal, mask)


def attention(graph: Graph, config: Config, layer: int, x: str, weight, rope, seen: str) -> str:
    at, groups = f"layers.{layer}.attn", config.heads // config.kv_heads

    def project(short):
        name = f"model.layers.{layer}.self_attn.{short}_proj.weight"
        return graph.linear(f"{at}.{short}", x, name, weight[name])

    def keys_of(short):
        split = graph.integers(0, 0, config.kv_heads, config.head_dim)
        heads = graph.add("Reshape", f"{at}.{short}.heads", project(short), split)
        return graph.add("Transpose", f"{at}.{short}.by_head", heads, perm=[0, 2, 1, 3])

    split = graph.integers(0, 0, config.kv_heads, groups, config.head_dim)
    q = graph.add("Reshape", f"{at}.q.heads", project("q"), split)
    q = graph.add("Transpose", f"{at}.q.by_head", q, perm=[0, 2, 3, 1, 4])
    q = graph.rotate(f"{at}.q.rotated", q, rope["q", "Cos"], rope["q", "Sin"])
    k = graph.rotate(f"{at}.k.rotated", keys_of("k"), rope["k", "Cos"], rope["k", "Sin"])
    k = graph.add("Concat", f"present.{layer}.key", f"past_key_values.{layer}.key", k, axis=2)
    v = graph.add("Concat", f"present.{layer}.value", f"past_key_values.{layer}.value", keys_of("v"), axis=2)
    # One head of keys serves a group of query heads.
    k, v = (graph.add("Unsqueeze", f"{name}.shared", name, graph.integers(2)) for name in (k, v))
    scores = graph.add("MatMul", f"{at}.products", q, graph.add("Transpose", f"{at}.k.turned", k, perm=[0, 1, 2, 4, 3]))
    scores = graph.add("Mul", f"{at}.scores", scores, graph.stored("scale", np.float32(config.head_dim**-0.5)))
    scores = graph.add("Where", f"{at}.masked", seen, scores, graph.stored("masked", np.float32(MASKED)))
    y = graph.add("MatMul", f"{at}.mixed", graph.add("Softmax", f"{at}.shares", scores, axis=-1), v)
    y = graph.add("Transpose", f"{at}.by_place", y, perm=[0, 3, 1, 2, 4])
    y = graph.add("Reshape", f"{at}.joined", y, graph.integers(0, 0, config.width))
    name = f"model.layers.{layer}.self_attn.o_proj.weight"
    return graph.linear(f"{at}.o", y, name, weight[name])


def feed_forward(graph: Graph, layer: int, x: str, weight) -> str:
    at = f"layers.{layer}.mlp"

    def call(short, y):
        name = f"model.layers.{layer}.mlp.{short}_proj.weight"
        return graph.linear(f"{at}.{short}", y, name, weight[name])

    gate = call("gate", x)
    gate = graph.add("Mul", f"{at}.open", gate, graph.add("Sigmoid", f"{at}.sigmoid", gate))
    return call("down", graph.add("Mul", f"{at}.inner", gate, call("up", x)))


def ports(config: Config):
    """The graph's inputs and outputs."""
    whole = helper.make_tensor_value_info
    inputs = [
        whole("input_ids", TensorProto.INT64, [BATCH, NEW]),
        whole("attention_mask", TensorProto.INT64, [BATCH, ALL]),
        whole("position_ids", TensorProto.INT64, [BATCH, NEW]),
    ]
    outputs = [whole("logits", TensorProto.FLOAT, [BATCH, NEW, config.vocab])]
    for layer in range(config.layers):
        for part in ("key", "value"):
            shape = [BATCH, config.kv_heads, PAST, config.head_dim]
            inputs.append(whole(f"past_key_values.{layer}.{part}", TensorProto.FLOAT, shape))
            shape = [BATCH, config.kv_heads, ALL, config.head_dim]
            outputs.append(whole(f"present.{layer}.{part}", TensorProto.FLOAT, shape))
    return inputs, outputs


def decoder(config: Config, weight: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The whole graph of weights under their safetensors names, each f16 or f32."""
    graph = Graph()
    rope, seen = positions(graph, config), visible(graph)
    table = "model.embed_tokens.weight"
    rows = graph.add("Gather", "embedded", graph.stored(table, weight[table]), "input_ids")
    x = graph.add("Cast", "layers.0.input", rows, to=TensorProto.FLOAT)
    for layer in range(config.layers):
        at, name = f"layers.{layer}", f"model.layers.{layer}.input_layernorm.weight"
        y = graph.norm(f"{at}.norm", x, name, weight[name], config.norm_eps)
        x = graph.add("Add", f"{at}.attended", x, attention(graph, config, layer, y, weight, rope, seen))
        name = f"model.layers.{layer}.post_attention_layernorm.weight"
        y = graph.norm(f"{at}.mlp_norm", x, name, weight[name], config.norm_eps)
        x = graph.add("Add", f"layers.{layer + 1}.input", x, feed_forward(graph, layer, y, weight))
    x = graph.norm("norm", x, "model.norm.weight", weight["model.norm.weight"], config.norm_eps)
    graph.linear("logits", x, table, weight[table])
    inputs, outputs = ports(config)
    built = helper.make_graph(graph.nodes, "tollgate-demo", inputs, outputs, graph.initializers)
    model = helper.make_model(
        built, producer_name="tollgate", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(model, full_check=True)
    return model
