"""Parameters and FLOPs of a model, counted from its matrix shapes. Pure Python.

Conventions, the same wherever this project reports a FLOP:

- A multiply-add is 2 FLOPs. Matrix products count: the linear layers, the attention scores and
  values, the output layer with its padded rows. Norms, activations, softmax, the embedding look-up
  and biases do not; together they are below one percent at any size worth counting.
- Attention is charged for the full sequence x sequence matrix although it is causal, as in PaLM's
  MFU (arXiv 2204.02311, appendix B) and most published figures.
- Backward costs twice forward: one product for the gradient of the input, one for that of the
  weight. A frozen layer is charged only what it costs, see `flops_per_token`.
- Activation recomputation is not counted: these are model FLOPs, so MFU compares useful work.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """How many weights a model has."""

    layers: tuple[int, ...]
    """Of each transformer layer, from input to output."""

    embedding: int
    """Token embedding, learned positions, and the output layer where it is not tied."""

    final_norm: int
    """Norm after the last layer."""

    @property
    def non_embedding(self) -> int:
        """All but the embedding and the output layer: the N of scaling laws and of G_stack."""
        return sum(self.layers) + self.final_norm

    @property
    def total(self) -> int:
        """Every weight, the vocabulary's padding rows included."""
        return self.non_embedding + self.embedding


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainFlops:
    """FLOPs of training."""

    forward: int
    """Of the forward pass."""

    backward: int
    """Of the backward pass, without recomputation."""

    @property
    def total(self) -> int:
        """Forward and backward."""
        return self.forward + self.backward


def layer_parameters(layer: LayerShape, shape: ModelShape, tensor: int = 1) -> int:
    """Weights of one transformer layer, or of one tensor-parallel rank's part of it.

    Args:
        layer: the layer.
        shape: the model it is part of; its style decides on biases and the gated MLP.
        tensor: tensor-parallel size. Norms and the biases of the two output projections are on
            every rank, as in megatron-core's `RowParallelLinear`.
    """
    qkv, mlp = _qkv_columns(layer), _mlp_columns(layer, shape)
    rows = layer.num_attention_heads * layer.kv_channels + layer.ffn_hidden_size
    split = shape.hidden_size * (qkv + mlp + rows)
    whole = 2 * _norm_parameters(shape, shape.hidden_size)
    if shape.qkv_bias or shape.style == "gpt2":
        split += qkv
    if shape.qk_norm:
        whole += 2 * _norm_parameters(shape, layer.kv_channels)
    if shape.style == "gpt2":
        split += mlp
        whole += 2 * shape.hidden_size
    return split // tensor + whole


def parameters(shape: ModelShape) -> Parameters:
    """Weights of a model: exactly those of the megatron-core model built from `shape`."""
    embedding = shape.padded_vocab_size * shape.hidden_size
    positions = shape.seq_length * shape.hidden_size if shape.style == "gpt2" else 0
    return Parameters(
        layers=tuple(layer_parameters(layer, shape) for layer in shape.layers),
        embedding=embedding * (1 if shape.tie_embeddings else 2) + positions,
        final_norm=_norm_parameters(shape, shape.hidden_size),
    )


def layer_flops_per_token(layer: LayerShape, shape: ModelShape) -> TrainFlops:
    """FLOPs of one trained layer for one token of a full sequence."""
    forward = _linear_flops(layer, shape) + _attention_flops(layer, shape)
    return TrainFlops(forward=forward, backward=2 * forward)


def recomputed_flops_per_token(layer: LayerShape, shape: ModelShape, recompute: str) -> int:
    """FLOPs for one token of what a layer computes a second time in the backward pass.

    They are no model FLOPs and no MFU counts them, but they take their time on the layer's rank.

    Args:
        layer: the layer.
        shape: the model it is part of.
        recompute: `none`, `selective` (attention scores and values) or `full` (the whole layer).
    """
    attention = _attention_flops(layer, shape)
    again = {"none": 0, "selective": attention, "full": attention + _linear_flops(layer, shape)}
    return again[recompute]


def output_flops_per_token(shape: ModelShape) -> TrainFlops:
    """FLOPs of the trained output layer for one token, tied or not."""
    forward = 2 * shape.hidden_size * shape.padded_vocab_size
    return TrainFlops(forward=forward, backward=2 * forward)


def flops_per_token(
    shape: ModelShape,
    *,
    trainable_layers: Collection[int] | None = None,
    trainable_embedding: bool | None = None,
    trainable_output: bool | None = None,
) -> TrainFlops:
    """FLOPs of training on one token of a full sequence.

    A frozen layer costs its forward pass, and the gradient of its activations if anything below it
    is trained: one product per weight matrix, two per attention product, for those have no weights.
    Below the lowest trained layer there is no backward pass.

    Args:
        shape: the model.
        trainable_layers: layers (from 0) that are trained; unset: the whole model.
        trainable_embedding: whether the token embedding is trained; unset: only if all layers are
            meant (`trainable_layers` unset).
        trainable_output: whether final norm and output layer are trained; unset: likewise. Where
            they are tied, set both alike.

    Raises:
        ValueError: a layer the model does not have.
    """
    all_layers = range(shape.num_layers)
    trained = set(all_layers if trainable_layers is None else trainable_layers)
    if not trained <= set(all_layers):
        raise ValueError(f"no layers {sorted(trained - set(all_layers))} among {shape.num_layers}")
    whole = trainable_layers is None
    gradient_below = whole if trainable_embedding is None else trainable_embedding
    forward = backward = 0
    for index, layer in enumerate(shape.layers):
        linear, attention = _linear_flops(layer, shape), _attention_flops(layer, shape)
        forward += linear + attention
        if index in trained:
            backward += 2 * (linear + attention)
            gradient_below = True
        elif gradient_below:
            backward += linear + 2 * attention
    output = output_flops_per_token(shape)
    if whole if trainable_output is None else trainable_output:
        backward += output.backward
    elif gradient_below:
        backward += output.backward // 2
    return TrainFlops(forward=forward + output.forward, backward=backward)


def _qkv_columns(layer: LayerShape) -> int:
    return (layer.num_attention_heads + 2 * layer.num_query_groups) * layer.kv_channels


def _mlp_columns(layer: LayerShape, shape: ModelShape) -> int:
    return layer.ffn_hidden_size * (2 if shape.style == "llama" else 1)


def _norm_parameters(shape: ModelShape, width: int) -> int:
    return width * (2 if shape.style == "gpt2" else 1)


def _linear_flops(layer: LayerShape, shape: ModelShape) -> int:
    columns = _qkv_columns(layer) + _mlp_columns(layer, shape)
    rows = layer.num_attention_heads * layer.kv_channels + layer.ffn_hidden_size
    return 2 * shape.hidden_size * (columns + rows)


def _attention_flops(layer: LayerShape, shape: ModelShape) -> int:
    """Scores and values: a query meets `seq_length` keys, then as many values, in every head."""
    head_width = layer.num_attention_heads * layer.kv_channels
    return 2 * 2 * head_width * shape.seq_length
