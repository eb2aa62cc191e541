"""The variants of layer-wise scaling and their isotropic baseline, of equal parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from megagrow.config.schema import LayerScalingConfig, ModelConfig
from megagrow.config.sections import without_defaults
from megagrow.plan.layer_scaling_solver import Budget, cost, solve

BASELINE = "baseline"
FFN, HEADS = 2.5, 0.75
"""Multipliers of the baseline: those of the 18 layers of arXiv 2509.06518, table 2."""

FRAME = (4.0, 1.0)
"""The frame's, of FFN and heads: the authors' code."""

VARIANTS: dict[str, tuple[tuple[float, ...], tuple[float, ...], str]] = {
    "vanilla": ((1.0, 4.0), (0.5, 1.0), "last"),
    "framed": ((0.5, 4.0), (0.5, 1.0), "last"),
    "reverse": ((4.0, 0.5), (1.0, 0.5), "first"),
    "crown": ((0.5, 3.8, 0.5), (0.5, 1.0, 0.5), "middle"),
}
"""FFN and head multipliers of the paper, and which point gives way so that sizes are equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """What the models have in common."""

    layers: int
    """Depth."""

    hidden: int
    """Width of the residual stream."""

    head: int
    """Head dimension."""

    queries_per_group: int
    """Query heads that share a key/value head."""

    ffn_multiple: int
    """FFN widths are multiples of this."""

    length: int
    """Tokens in a sequence."""

    vocabulary: int
    """Number of token ids."""


def models(size: Size, *, equal_flops: bool) -> dict[str, ModelConfig]:
    """The baseline and the variants, with as many weights beside the embeddings within 0.5%.

    Args:
        size: of all of them.
        equal_flops: whether they also take as many FLOPs for a token, within 0.5%: then a point of
            the heads gives way too. With a point of the FFN alone, variants have more heads.

    Raises:
        RuntimeError: there are no such models of this size.
    """
    full = size.hidden // size.head
    heads = round(HEADS * full)
    baseline = ModelConfig(
        style="llama",
        hidden_size=size.hidden,
        num_attention_heads=heads,
        num_query_groups=heads // size.queries_per_group,
        kv_channels=size.head,
        ffn_hidden_size=round(FFN * size.hidden),
        vocab_size=size.vocabulary,
        seq_length=size.length,
        qk_norm=True,
    )
    weights, flops = cost(baseline, size.layers, embeddings=False)
    budget = Budget(parameters=weights, flops=flops if equal_flops else None)
    found = {BASELINE: baseline}
    for name, (ffn, qkv, point) in VARIANTS.items():
        start = replace(
            baseline,
            num_attention_heads=full,
            num_query_groups=None,
            ffn_hidden_size=None,
            layer_scaling=LayerScalingConfig(
                variant=name,  # type: ignore[arg-type]
                ffn_multipliers=ffn,
                qkv_multipliers=qkv,
                frame_multipliers=None if name == "vanilla" else FRAME,
                queries_per_group=size.queries_per_group,
                ffn_multiple=size.ffn_multiple,
            ),
        )
        free = [f"ffn.{point}", f"qkv.{point}"] if equal_flops else [f"ffn.{point}"]
        solution = solve(start, size.layers, budget, free)
        if not solution.meets:
            raise RuntimeError(f"{name}: {solution.error:.2%} off the baseline's cost")
        found[name] = solution.model
    return found


def section(model: ModelConfig) -> dict[str, Any]:
    """A model as the section of a run's file, with the first values of the quickstart."""
    return {**without_defaults(model), "init": {"scheme": "gstack"}}
