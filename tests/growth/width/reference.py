"""A GPT in plain PyTorch that computes logits from a table of whole, unfused tensors.

Unlike tests/model/reference.py, layers may differ in shape, and outputs may be masked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from megagrow.growth.width.interface import WidthOperator
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import NORMS, Role, TensorName, tensor_shape

Model = Mapping[TensorName, Tensor]
Masks = Callable[[TensorName], Tensor | None]

LAYER_ROLES = {
    "llama": (
        Role.ATTENTION_NORM,
        Role.QUERY,
        Role.KEY,
        Role.VALUE,
        Role.ATTENTION_OUTPUT,
        Role.MLP_NORM,
        Role.GATE,
        Role.UP,
        Role.DOWN,
    ),
    "gpt2": (
        Role.ATTENTION_NORM,
        Role.QUERY,
        Role.KEY,
        Role.VALUE,
        Role.ATTENTION_OUTPUT,
        Role.MLP_NORM,
        Role.UP,
        Role.DOWN,
    ),
}


def model_shape(
    hidden: int,
    *layers: tuple[int, int, int, int],
    style: str = "llama",
    tied: bool = False,
    qkv_bias: bool = False,
    qk_norm: bool = False,
) -> ModelShape:
    """Layers are (query heads, key/value groups, head dimension, FFN)."""
    return ModelShape(
        style="llama" if style == "llama" else "gpt2",
        hidden_size=hidden,
        layers=tuple(
            LayerShape(
                num_attention_heads=heads,
                num_query_groups=groups,
                kv_channels=dimension,
                ffn_hidden_size=ffn,
            )
            for heads, groups, dimension, ffn in layers
        ),
        vocab_size=11,
        padded_vocab_size=12,
        seq_length=6,
        tie_embeddings=tied,
        qkv_bias=style == "gpt2" or qkv_bias,
        qk_norm=qk_norm,
    )


def names(shape: ModelShape) -> list[TensorName]:
    """Every tensor of a model."""
    roles: list[tuple[Role, int | None]] = [(Role.TOKEN_EMBEDDING, None), (Role.FINAL_NORM, None)]
    if shape.style == "gpt2":
        roles.append((Role.POSITION_EMBEDDING, None))
    if not shape.tie_embeddings:
        roles.append((Role.OUTPUT, None))
    per_layer = LAYER_ROLES[shape.style]
    if shape.qk_norm:
        per_layer = (*per_layer, Role.QUERY_NORM, Role.KEY_NORM)
    roles += [(role, layer) for layer in range(shape.num_layers) for role in per_layer]
    found = []
    for role, layer in roles:
        found.append(TensorName(role=role, layer=layer))
        if _has_bias(role, shape):
            found.append(TensorName(role=role, layer=layer, bias=True))
    return found


def _has_bias(role: Role, shape: ModelShape) -> bool:
    if role in (Role.QUERY, Role.KEY, Role.VALUE):
        return shape.qkv_bias
    tables = (Role.TOKEN_EMBEDDING, Role.POSITION_EMBEDDING, Role.OUTPUT)
    return shape.style == "gpt2" and role not in tables


def random_model(shape: ModelShape, seed: int, dtype: torch.dtype = torch.float32) -> Model:
    """A model as if trained: gains near 1, biases, activations of about 1."""
    generator = torch.Generator().manual_seed(seed)
    model = {}
    for name in names(shape):
        size = tensor_shape(name, shape)
        drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        if name.role in NORMS and not name.bias:
            drawn = 1 + drawn / 4
        elif name.bias:
            drawn = drawn / 4
        elif name.role not in (Role.TOKEN_EMBEDDING, Role.POSITION_EMBEDDING):
            drawn = drawn / size[1] ** 0.5
        model[name] = drawn.to(dtype)
    return model


def grown(operator: WidthOperator, model: Model, old: ModelShape, new: ModelShape) -> Model:
    """Every tensor widened, on its own; their shapes are those of the new model."""
    operator.check(old, new)
    wide = {name: operator.widen(name, tensor, old, new) for name, tensor in model.items()}
    for name, tensor in wide.items():
        assert tuple(tensor.shape) == tensor_shape(name, new), name
        assert tensor.dtype == model[name].dtype, name
    return wide


def unmasked(name: TensorName) -> Tensor | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Forward:
    """One forward pass."""

    model: Model
    shape: ModelShape
    masks: Masks = unmasked
    """What the output of a weight's module is multiplied by, over its last dimension."""

    epsilon: float = 1e-5
    """Epsilon of the norms."""

    seen: dict[TensorName, Tensor] = field(default_factory=dict)
    """Output of every linear layer, for tests to look at."""

    def logits(self, tokens: Tensor) -> Tensor:
        """`[b, s]` to `[b, s, vocabulary]`."""
        embedding = TensorName(role=Role.TOKEN_EMBEDDING)
        x = self.masked(embedding, self.model[embedding][tokens])
        if self.shape.style == "gpt2":
            position = TensorName(role=Role.POSITION_EMBEDDING)
            x = x + self.masked(position, self.model[position][: tokens.shape[1]])
        for index, layer in enumerate(self.shape.layers):
            x = x + self.attention(self.norm(x, Role.ATTENTION_NORM, index), index, layer)
            x = x + self.mlp(self.norm(x, Role.MLP_NORM, index), index)
        x = self.norm(x, Role.FINAL_NORM, None)
        head = embedding if self.shape.tie_embeddings else TensorName(role=Role.OUTPUT)
        return x @ self.model[head].T

    def attention(self, x: Tensor, index: int, layer: LayerShape) -> Tensor:
        batch, length, _ = x.shape
        heads, groups = layer.num_attention_heads, layer.num_query_groups
        query, key, value = (
            self.linear(x, role, index).view(batch, length, count, layer.kv_channels)
            for role, count in ((Role.QUERY, heads), (Role.KEY, groups), (Role.VALUE, groups))
        )
        if self.shape.qk_norm:
            query = self.norm(query, Role.QUERY_NORM, index)
            key = self.norm(key, Role.KEY_NORM, index)
        if self.shape.style == "llama":
            query, key = rotated(query), rotated(key)
        shared = heads // groups
        key, value = (part.repeat_interleave(shared, dim=2) for part in (key, value))
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / layer.kv_channels**0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(-1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, value)
        return self.linear(mixed.flatten(2), Role.ATTENTION_OUTPUT, index)

    def mlp(self, x: Tensor, index: int) -> Tensor:
        inner = self.linear(x, Role.UP, index)
        if self.shape.style == "llama":
            inner = inner * F.silu(self.linear(x, Role.GATE, index))
        else:
            inner = F.gelu(inner, approximate="tanh")
        return self.linear(inner, Role.DOWN, index)

    def linear(self, x: Tensor, role: Role, index: int) -> Tensor:
        name = TensorName(role=role, layer=index)
        bias = self.model.get(TensorName(role=role, layer=index, bias=True))
        y = F.linear(x, self.model[name], bias)
        self.seen[name] = y
        return self.masked(name, y)

    def norm(self, x: Tensor, role: Role, index: int | None) -> Tensor:
        name = TensorName(role=role, layer=index)
        gain = self.model[name]
        if self.shape.style == "llama":
            square = x.square().mean(-1, keepdim=True)
            return self.masked(name, x * (square + self.epsilon).rsqrt() * gain)
        # Where there is a mask, mean and variance are weighted by it (MSG).
        mask = self.masks(name)
        weights = torch.ones_like(gain) if mask is None else mask
        weights = weights / weights.sum()
        mean = (x * weights).sum(-1, keepdim=True)
        variance = ((x - mean).square() * weights).sum(-1, keepdim=True)
        bias = self.model[TensorName(role=role, layer=index, bias=True)]
        return self.masked(name, (x - mean) * (variance + self.epsilon).rsqrt() * gain + bias)

    def masked(self, name: TensorName, y: Tensor) -> Tensor:
        mask = self.masks(name)
        return y if mask is None else y * mask


def rotated(x: Tensor, base: int = 10_000) -> Tensor:
    """Rotary embedding of `[b, s, heads, dimension]`, halves paired."""
    length, dimension = x.shape[1], x.shape[3]
    frequency = base ** -(torch.arange(0, dimension, 2, dtype=torch.float64) / dimension)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)[:, None]
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def tokens(shape: ModelShape, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(shape.vocab_size, (2, shape.seq_length), generator=generator)


def logits(model: Model, shape: ModelShape, epsilon: float = 1e-5) -> Tensor:
    return Forward(model=model, shape=shape, epsilon=epsilon).logits(tokens(shape))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference over that of what is expected."""
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
