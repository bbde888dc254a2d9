"""The demo model in JAX, without a cache and without tricks: f32 arithmetic on the f16 weights of `hf/`.

What other formats and backends answer is held against this. `adapter.py` trains a LoRA adapter through it.
"""

import os

# One core, like the training of the model itself; it must be said before JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np

from config import Config

jax.config.update("jax_platforms", "cpu")
BATCH = 16
# The matrices an adapter changes, under the names they have in a layer.
TARGETS = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}


def widened(weights) -> dict:
    """The f16 weights as f32; nothing is lost."""
    return {name: jnp.asarray(w, jnp.float32) for name, w in weights.items()}


def target_names(config: Config) -> list[str]:
    """The names of all matrices an adapter changes, such as `model.layers.0.mlp.up_proj`."""
    return [f"model.layers.{layer}.{part}.{name}" for layer in range(config.layers) for name, part in TARGETS.items()]


def linear(x, weights, adapter, name: str, scale: float):
    """`x` through a matrix, and beside it through the adapter's two narrow ones if there are any."""
    y = x @ weights[f"{name}.weight"].T
    if adapter is None:
        return y
    return y + scale * ((x @ adapter[f"{name}.lora_A"].T) @ adapter[f"{name}.lora_B"].T)


def rms_norm(x, weight, eps: float):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps) * weight


def rotate(x, cos, sin):
    """RoPE in the rotated-halves convention."""
    first, second = jnp.split(x, 2, -1)
    return x * cos + jnp.concatenate([-second, first], -1) * sin


def attention(config: Config, x, call, cos, sin):
    batch, length, _ = x.shape

    def split(y, heads):
        return y.reshape(batch, length, heads, config.head_dim).swapaxes(1, 2)

    q = rotate(split(call(x, "q_proj"), config.heads), cos, sin)
    k = rotate(split(call(x, "k_proj"), config.kv_heads), cos, sin)
    v = split(call(x, "v_proj"), config.kv_heads)
    groups = config.heads // config.kv_heads
    k, v = jnp.repeat(k, groups, 1), jnp.repeat(v, groups, 1)
    scores = q @ k.swapaxes(-1, -2) / config.head_dim**0.5
    scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf)
    y = jax.nn.softmax(scores, -1) @ v
    return call(y.swapaxes(1, 2).reshape(batch, length, config.width), "o_proj")


def logits(config: Config, weights, tokens, adapter=None, scale: float = 0.0):
    """Scores over the vocabulary for every place of `tokens`, which start at position 0."""
    return hidden(config, weights, tokens, adapter, scale) @ weights["model.embed_tokens.weight"].T


def hidden(config: Config, weights, tokens, adapter=None, scale: float = 0.0):
    """The normed hidden states of `tokens`."""
    dims = np.arange(0, config.head_dim, 2) / config.head_dim
    angle = np.outer(np.arange(tokens.shape[1]), 1.0 / config.rope_theta**dims)
    angle = np.concatenate([angle, angle], -1)
    cos, sin = jnp.asarray(np.cos(angle), jnp.float32), jnp.asarray(np.sin(angle), jnp.float32)
    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config.layers):
        at = f"model.layers.{layer}"

        def call(x, name, at=at):
            return linear(x, weights, adapter, f"{at}.{TARGETS[name]}.{name}", scale)

        y = rms_norm(x, weights[f"{at}.input_layernorm.weight"], config.norm_eps)
        x = x + attention(config, y, call, cos, sin)
        y = rms_norm(x, weights[f"{at}.post_attention_layernorm.weight"], config.norm_eps)
        x = x + call(jax.nn.silu(call(y, "gate_proj")) * call(y, "up_proj"), "down_proj")
    return rms_norm(x, weights["model.norm.weight"], config.norm_eps)


def merged(weights, adapter, scale: float) -> dict:
    """The f32 weights with the adapter added in."""
    out = dict(weights)
    for name in {name.rsplit(".", 1)[0] for name in adapter}:
        out[f"{name}.weight"] = out[f"{name}.weight"] + scale * adapter[f"{name}.lora_B"] @ adapter[f"{name}.lora_A"]
    return out


def greedy(config: Config, weights, prompts, stop: int, limit: int, adapter=None, scale: float = 0.0):
    """For every prompt the most likely tokens, up to `stop` or `limit`, and the least gap on the way.

    The gap is between the two highest logits, `stop` included where it was the highest. Everything is
    computed anew for every token; what stands behind a place cannot change it.
    """

    @jax.jit
    def next_scores(tokens, ends):
        last = hidden(config, weights, tokens, adapter, scale)[jnp.arange(BATCH), ends - 1]
        return last @ weights["model.embed_tokens.weight"].T

    answers, gaps = [[] for _ in prompts], [float("inf")] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        length = -(-(len(prompts[rows[-1]]) + limit) // 32) * 32
        tokens, ends = np.zeros((BATCH, length), np.int32), np.ones(BATCH, np.int32)
        for place, row in enumerate(rows):
            ends[place] = len(prompts[row])
            tokens[place, : ends[place]] = prompts[row]
        open_places = set(range(len(rows)))
        for _ in range(limit):
            if not open_places:
                break
            scores = np.asarray(next_scores(tokens, ends))
            for place in sorted(open_places):
                row, token = rows[place], int(scores[place].argmax())
                second, best = np.sort(scores[place])[-2:]
                gaps[row] = min(gaps[row], float(best - second))
                if token == stop:
                    open_places.discard(place)
                    continue
                answers[row].append(token)
                tokens[place, ends[place]] = token
                ends[place] += 1
    return answers, gaps
