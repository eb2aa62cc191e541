"""A GPT in plain PyTorch, one process, batch first: what the megatron-core model must equal."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The shape of a reference model."""

    style: str
    layers: int
    hidden: int
    heads: int
    groups: int
    channels: int
    ffn: int
    vocab: int
    length: int
    tied: bool
    epsilon: float = 1e-5
    rotary_base: int = 10_000
    rotary_scaling: float | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    each: tuple[tuple[int, int, int], ...] = ()
    """Heads, groups and FFN width of every layer, if they differ."""

    def of(self, layer: int) -> Sizes:
        if not self.each:
            return self
        heads, groups, ffn = self.each[layer]
        return replace(self, heads=heads, groups=groups, ffn=ffn)


class GPT(nn.Module):
    """Tokens ``[b, s]`` and labels ``[b, s]`` to the loss of each token ``[b, s]``."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        llama = sizes.style == "llama"
        self.embedding = nn.Embedding(sizes.vocab, sizes.hidden)
        self.positions = None if llama else nn.Embedding(sizes.length, sizes.hidden)
        self.layers = nn.ModuleList(Layer(sizes.of(layer)) for layer in range(sizes.layers))
        self.norm = norm(sizes)
        self.head = None if sizes.tied else nn.Linear(sizes.hidden, sizes.vocab, bias=False)
        if llama:
            half = torch.arange(0, sizes.channels, 2, dtype=torch.float32) / sizes.channels
            frequencies = sizes.rotary_base**-half
            if sizes.rotary_scaling is not None:
                frequencies = torch.tensor(
                    [llama31(float(each), sizes.rotary_scaling) for each in frequencies]
                )
            angles = torch.outer(torch.arange(sizes.length).float(), frequencies)
            angles = torch.cat((angles, angles), dim=-1)
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)

    def logits(self, tokens: Tensor) -> Tensor:
        """``[b, s, vocab]``."""
        x = self.embedding(tokens)
        rotary = None
        if self.positions is None:
            rotary = (self.cos[: tokens.size(1)], self.sin[: tokens.size(1)])
        else:
            x = x + self.positions.weight[: tokens.size(1)]
        for layer in self.layers:
            x = layer(x, rotary)
        x = self.norm(x)
        return F.linear(x, self.embedding.weight) if self.head is None else self.head(x)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        logits = self.logits(tokens).flatten(0, 1)
        return F.cross_entropy(logits, labels.flatten(), reduction="none").view_as(labels)


class Layer(nn.Module):
    """Attention and MLP, each behind a norm, in a residual stream."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        bias = sizes.style == "gpt2"
        width = (sizes.heads + 2 * sizes.groups) * sizes.channels
        inner = sizes.ffn if bias else 2 * sizes.ffn
        self.norm1, self.norm2 = norm(sizes), norm(sizes)
        self.qkv = nn.Linear(sizes.hidden, width, bias=bias or sizes.qkv_bias)
        if sizes.qk_norm:
            self.qnorm, self.knorm = (norm(sizes, sizes.channels) for _ in range(2))
        self.proj = nn.Linear(sizes.heads * sizes.channels, sizes.hidden, bias=bias)
        self.up = nn.Linear(sizes.hidden, inner, bias=bias)
        self.down = nn.Linear(sizes.ffn, sizes.hidden, bias=bias)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        x = x + self.attention(self.norm1(x), rotary)
        return x + self.mlp(self.norm2(x))

    def attention(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        sizes = self.sizes
        batch, length, _ = x.shape
        shared = sizes.heads // sizes.groups
        qkv = self.qkv(x).view(batch, length, sizes.groups, shared + 2, sizes.channels)
        q, k, v = qkv.split((shared, 1, 1), dim=3)
        q, k, v = (part.flatten(2, 3).transpose(1, 2) for part in (q, k, v))
        if sizes.qk_norm:
            q, k = self.qnorm(q), self.knorm(k)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared > 1)
        return self.proj(y.transpose(1, 2).flatten(2))

    def mlp(self, x: Tensor) -> Tensor:
        if self.sizes.style == "gpt2":
            return self.down(F.gelu(self.up(x), approximate="tanh"))
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def norm(sizes: Sizes, width: int | None = None) -> nn.Module:
    kind = nn.RMSNorm if sizes.style == "llama" else nn.LayerNorm
    return kind(width or sizes.hidden, eps=sizes.epsilon)


def llama31(frequency: float, factor: float) -> float:
    """A rotary frequency as Llama 3.1's reference code scales it."""
    wavelength = 2 * math.pi / frequency
    if wavelength < 8192 / 4:
        return frequency
    if wavelength > 8192:
        return frequency / factor
    smooth = (8192 / wavelength - 1) / (4 - 1)
    return (1 - smooth) * frequency / factor + smooth * frequency


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def parameter_map(sizes: Sizes) -> dict[str, str]:
    """Name in the reference -> name in megatron-core's model, on one process."""
    names = {"embedding.weight": "embedding.word_embeddings.weight"}
    if sizes.style == "gpt2":
        names["positions.weight"] = "embedding.position_embeddings.weight"
    if not sizes.tied:
        names["head.weight"] = "output_layer.weight"
    if sizes.qkv_bias:
        for index in range(sizes.layers):
            theirs = f"decoder.layers.{index}.self_attention.linear_qkv.bias"
            names[f"layers.{index}.qkv.bias"] = theirs
    kinds = ("weight", "bias") if sizes.style == "gpt2" else ("weight",)
    modules = {
        "norm1": "input_layernorm",
        "norm2": "pre_mlp_layernorm",
        "qkv": "self_attention.linear_qkv",
        "proj": "self_attention.linear_proj",
        "up": "mlp.linear_fc1",
        "down": "mlp.linear_fc2",
    }
    if sizes.qk_norm:
        modules |= {"qnorm": "self_attention.q_layernorm", "knorm": "self_attention.k_layernorm"}
    for kind in kinds:
        names[f"norm.{kind}"] = f"decoder.final_layernorm.{kind}"
        for index in range(sizes.layers):
            for mine, theirs in modules.items():
                names[f"layers.{index}.{mine}.{kind}"] = f"decoder.layers.{index}.{theirs}.{kind}"
    return names
