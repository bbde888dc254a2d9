"""The demo model's network: a Llama decoder, small enough to train on one CPU core.

It follows the Hugging Face `LlamaForCausalLM` layout (names of the weights, RoPE on
rotated halves, RMS norms, SwiGLU, tied embeddings), so that the weights can be written
to safetensors unchanged and to GGUF with the usual row permutation. It is a training
and scoring aid; the gateway runs the exported file through its own backend.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from config import Config


class RmsNorm(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.width))
        self.eps = config.norm_eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rope_tables(config: Config, length: int):
    """Cosine and sine of every (position, dimension) angle, halves repeated."""
    dims = torch.arange(0, config.head_dim, 2)
    frequency = 1.0 / config.rope_theta ** (dims / config.head_dim)
    angle = torch.outer(torch.arange(length), frequency)
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Apply RoPE in the rotated-halves convention."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        kv_width = config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, kv_width, bias=False)
        self.v_proj = nn.Linear(config.width, kv_width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x, cos, sin, past=None):
        batch, length, _ = x.shape
        c = self.config

        def split(y, heads):
            return y.view(batch, length, heads, c.head_dim).transpose(1, 2)

        q = rotate(split(self.q_proj(x), c.heads), cos, sin)
        k = rotate(split(self.k_proj(x), c.kv_heads), cos, sin)
        v = split(self.v_proj(x), c.kv_heads)
        if past is not None:
            if past:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            past[:] = [k, v]
        groups = c.heads // c.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        q, k = q.to(v.dtype), k.to(v.dtype)
        # With a cache, every call but the first brings one token, which may see all of the past.
        y = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, c.width))


class Mlp(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.input_layernorm = RmsNorm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(config)
        self.mlp = Mlp(config)
        self.dropout = 0.0

    def forward(self, x, cos, sin, past=None):
        y = self.self_attn(self.input_layernorm(x), cos, sin, past)
        x = x + F.dropout(y, self.dropout, self.training)
        y = self.mlp(self.post_attention_layernorm(x))
        return x + F.dropout(y, self.dropout, self.training)


class SharedEmbedding(nn.Module):
    """An embedding for training in which a piece of text and its capitals share most of a row.

    The row of a token is its family's row, plus the vector of the way it is written, plus a
    difference of its own, which weight decay keeps small. `families` and `forms` say for every
    token which family and which form it has. The sum is an ordinary embedding.
    """

    def __init__(self, rows, families: list[int], forms: list[int]):
        super().__init__()
        self.register_buffer("families", torch.tensor(families), persistent=False)
        self.register_buffer("forms", torch.tensor(forms), persistent=False)
        self.family = nn.Parameter(rows.clone())
        self.form = nn.Parameter(torch.zeros(max(forms) + 1, rows.shape[1]))
        self.own = nn.Parameter(rows - rows[self.families])

    @property
    def weight(self):
        return self.own + self.family[self.families] + self.form[self.forms]

    def forward(self, tokens):
        return F.embedding(tokens, self.weight)


class Llama(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RmsNorm(config)
        cos, sin = rope_tables(config, config.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                # Smaller steps into the residual stream keep the first updates calm.
                into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
                scale = 0.02 / (2 * config.layers) ** 0.5 if into_stream else 0.02
                nn.init.normal_(weight, 0.0, scale)

    def hidden(self, tokens, past=None, offset=0):
        """The normed hidden states of `tokens`, which start at position `offset`."""
        length = tokens.shape[1]
        cos, sin = self.cos[offset : offset + length], self.sin[offset : offset + length]
        x = self.embed_tokens(tokens)
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, None if past is None else past[index])
        return self.norm(x)

    def logits(self, hidden):
        """Scores over the vocabulary; the embedding is tied to the output."""
        return F.linear(hidden, self.embed_tokens.weight)

    @torch.no_grad()
    def greedy(self, prompt: list[int], stop: int, limit: int = 96) -> list[int]:
        """The most likely continuation of `prompt`, up to `stop` or `limit` tokens."""
        past = [[] for _ in self.layers]
        feed, offset, answer = prompt[-(self.config.context - limit) :], 0, []
        while len(answer) < limit:
            hidden = self.hidden(torch.tensor([feed]), past, offset)
            offset += len(feed)
            token = int(self.logits(hidden[:, -1]).argmax())
            if token == stop:
                break
            answer.append(token)
            feed = [token]
        return answer
