"""A plain Llama in PyTorch, and MLX's affine 4-bit quantization.

Parameter names are the ones of the checkpoint, so that state_dict() is what
export.py writes.
"""

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

GROUP, BITS = 64, 4


@dataclass
class Config:
    vocab_size: int = 4096
    hidden_size: int = 384
    intermediate_size: int = 1024
    num_hidden_layers: int = 7
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 64
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048

    def to_dict(self):
        return dataclasses.asdict(self)


def affine_quantize(weight):
    """MLX's affine mode: (codes, scales, biases), one scale and bias per group.

    The scale is negative unless the smallest value has the larger magnitude,
    and is adjusted so that zero is exactly one of the 16 levels. Scales and
    biases are rounded to float16 first, then the codes are chosen for them.
    """
    groups = weight.float().reshape(-1, GROUP)
    high, low = groups.amax(1, keepdim=True), groups.amin(1, keepdim=True)
    scale = ((high - low) / (2**BITS - 1)).clamp_min(1e-7)
    low_wins = low.abs() > high.abs()
    scale = torch.where(low_wins, scale, -scale)
    edge = torch.where(low_wins, low, high)
    q0 = torch.round(edge / scale)
    scale = torch.where(q0 != 0, edge / torch.where(q0 != 0, q0, 1.0), scale)
    bias = torch.where(q0 != 0, edge, 0.0)
    scale, bias = scale.half().float(), bias.half().float()
    codes = torch.round((groups - bias) / scale).clamp(0, 2**BITS - 1)
    return codes, scale, bias


def fake_quantize(weight):
    """The weight as it will be after quantization; the gradient passes straight through."""
    with torch.no_grad():
        codes, scale, bias = affine_quantize(weight)
        delta = (codes * scale + bias).reshape(weight.shape) - weight
    return weight + delta


def rotate(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * self.weight).to(x.dtype)


class Linear(nn.Module):
    def __init__(self, inputs, outputs, zero=False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs) if zero else torch.randn(outputs, inputs) * inputs**-0.5 * 0.7)
        self.fake = False

    def forward(self, x):
        return F.linear(x, fake_quantize(self.weight) if self.fake else self.weight)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = Linear(c.hidden_size, c.num_attention_heads * c.head_dim)
        self.k_proj = Linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.v_proj = Linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.o_proj = Linear(c.num_attention_heads * c.head_dim, c.hidden_size, zero=True)

    def forward(self, x, cos, sin, attend):
        B, T, _ = x.shape
        shape = lambda y: y.view(B, T, -1, self.c.head_dim).transpose(1, 2)
        q, k, v = shape(self.q_proj(x)), shape(self.k_proj(x)), shape(self.v_proj(x))
        y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = Linear(c.hidden_size, c.intermediate_size)
        self.up_proj = Linear(c.hidden_size, c.intermediate_size)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size, zero=True)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = Attention(c)
        self.mlp = MLP(c)
        self.input_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = Norm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, cos, sin, attend):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Embedding(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c.vocab_size, c.hidden_size) * 0.02)
        self.fake = False

    def matrix(self):
        return fake_quantize(self.weight) if self.fake else self.weight


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = Embedding(c)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = Norm(c.hidden_size, c.rms_norm_eps)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.model = Body(c)

    def set_fake_quantization(self, on):
        for m in self.modules():
            if hasattr(m, "fake"):
                m.fake = on

    def rope(self, positions):
        d = self.c.head_dim
        inverse = self.c.rope_theta ** (-torch.arange(0, d, 2, device=positions.device, dtype=torch.float32) / d)
        angle = positions.float()[:, None, :, None] * inverse
        return angle.cos(), angle.sin()

    def forward(self, tokens, positions, attends):
        """Logits. `attends` is one attention function for each layer."""
        matrix = self.model.embed_tokens.matrix()
        x = F.embedding(tokens, matrix)
        if torch.is_autocast_enabled():
            x = x.to(torch.get_autocast_dtype(x.device.type))
        cos, sin = self.rope(positions)
        for layer, attend in zip(self.model.layers, attends):
            x = layer(x, cos, sin, attend)
        return F.linear(self.model.norm(x), matrix)


@torch.no_grad()
def generate(model, prompts, eos, max_new=160, device="cuda"):
    """Greedy decoding of a batch of token lists with a cache; returns token lists."""
    c = model.c
    B, longest = len(prompts), max(map(len, prompts))
    total = longest + max_new
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    tokens = torch.zeros(B, longest, dtype=torch.long, device=device)
    for i, p in enumerate(prompts):
        tokens[i, :len(p)] = torch.tensor(p, device=device)
    dtype = model.model.norm.weight.dtype
    caches = [torch.zeros(2, B, c.num_key_value_heads, total, c.head_dim, device=device, dtype=dtype) for _ in model.model.layers]
    rows = torch.arange(B, device=device)
    rep = c.num_attention_heads // c.num_key_value_heads

    def prefill(cache):
        def attend(q, k, v):
            cache[0, :, :, :longest], cache[1, :, :, :longest] = k, v
            return F.scaled_dot_product_attention(q, k.repeat_interleave(rep, 1), v.repeat_interleave(rep, 1), is_causal=True)
        return attend

    positions = torch.arange(longest, device=device).expand(B, -1)
    logits = model(tokens, positions, [prefill(x) for x in caches])[rows, lengths - 1]
    out, done = [], torch.zeros(B, dtype=torch.bool, device=device)
    ends = torch.tensor(sorted(eos), device=device)
    for step in range(max_new):
        nxt = logits.argmax(-1)
        nxt = torch.where(done, ends[0], nxt)
        out.append(nxt)
        done = done | torch.isin(nxt, ends)
        if step % 8 == 7 and done.all():
            break
        at = lengths + step
        mask = (torch.arange(total, device=device)[None] <= at[:, None])[:, None, None]

        def decode(cache):
            def attend(q, k, v):
                cache[0, rows, :, at], cache[1, rows, :, at] = k[:, :, 0], v[:, :, 0]
                return F.scaled_dot_product_attention(q, cache[0].repeat_interleave(rep, 1), cache[1].repeat_interleave(rep, 1), attn_mask=mask)
            return attend

        logits = model(nxt[:, None], at[:, None], [decode(x) for x in caches])[:, 0]
    result = []
    for row in torch.stack(out, 1).tolist():
        cut = next((i for i, t in enumerate(row) if t in eos), len(row))
        result.append(row[:cut])
    return result
