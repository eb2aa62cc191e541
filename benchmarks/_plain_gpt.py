"""The same GPT in plain PyTorch: `nn.Module`, `scaled_dot_product_attention`, batch first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megagrow.model.shape import ModelShape


class GPT(nn.Module):
    """Tokens and labels `[b, s]` to their mean cross-entropy."""

    def __init__(self, shape: ModelShape, rotary_base: int) -> None:
        super().__init__()
        self.llama = shape.style == "llama"
        self.embedding = nn.Embedding(shape.padded_vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = norm(shape)
        self.head = nn.Linear(shape.hidden_size, shape.padded_vocab_size, bias=False)
        if self.llama:
            channels = shape.layers[0].kv_channels
            frequencies = rotary_base ** -(torch.arange(0, channels, 2).float() / channels)
            angles = torch.outer(torch.arange(shape.seq_length).float(), frequencies).repeat(1, 2)
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)
        else:
            self.positions = nn.Embedding(shape.seq_length, shape.hidden_size)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        if shape.tie_embeddings:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """The loss."""
        x = self.embedding(tokens)
        rotary = (self.cos, self.sin) if self.llama else None
        if rotary is None:
            x = x + self.positions.weight
        for layer in self.layers:
            x = layer(x, rotary)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())


class Layer(nn.Module):
    """Attention and MLP, each behind a norm, in a residual stream."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        layer, hidden, bias = shape.layers[0], shape.hidden_size, shape.style == "gpt2"
        self.heads, self.groups = layer.num_attention_heads, layer.num_query_groups
        self.channels, self.gated = layer.kv_channels, not bias
        width = (self.heads + 2 * self.groups) * self.channels
        inner = layer.ffn_hidden_size * (2 if self.gated else 1)
        self.norm1, self.norm2 = norm(shape), norm(shape)
        self.qkv = nn.Linear(hidden, width, bias=bias)
        self.proj = nn.Linear(self.heads * self.channels, hidden, bias=bias)
        self.up = nn.Linear(hidden, inner, bias=bias)
        self.down = nn.Linear(layer.ffn_hidden_size, hidden, bias=bias)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """`[b, s, h]` to the same."""
        x = x + self.attention(self.norm1(x), rotary)
        y = self.up(self.norm2(x))
        if self.gated:
            gate, up = y.chunk(2, dim=-1)
            y = F.silu(gate) * up
        else:
            y = F.gelu(y, approximate="tanh")
        added: Tensor = x + self.down(y)
        return added

    def attention(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """Causal self-attention with grouped key/value heads."""
        batch, length, _ = x.shape
        heads = self.qkv(x).view(batch, length, -1, self.channels).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.groups, self.groups), dim=1)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        y = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=self.heads != self.groups
        )
        projected: Tensor = self.proj(y.transpose(1, 2).reshape(batch, length, -1))
        return projected


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) of `[b, heads, s, channels]`."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x.dtype)


def norm(shape: ModelShape) -> nn.Module:
    """The norm of the model's style."""
    return (nn.RMSNorm if shape.style == "llama" else nn.LayerNorm)(shape.hidden_size, eps=1e-5)
