"""Which keys of `model.layer_scaling` go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from megagrow.config.schema import LayerScalingConfig, LayerTable, ModelConfig
from megagrow.config.source import KeyPath, Source
from megagrow.units import nearest_divisor, nearest_multiple

_PROFILES = ("ffn_multipliers", "qkv_multipliers")
_OF_PROFILES = (
    *_PROFILES, "framed", "frame_multipliers", "rounding", "ffn_multiple", "head_multiple",
    "queries_per_group",
)  # fmt: skip
"""Keys that a table leaves nothing to do for."""

FRAMED = frozenset({"framed", "reverse", "crown"})
"""Variants whose first and last layers are wide unless `framed` says otherwise."""

LARGEST = 64.0
"""A multiplier above this is a slip of the pen."""


def check_layer_scaling(model: ModelConfig, source: Source, path: KeyPath, num_layers: int) -> None:
    """Raises ConfigError for keys that make no layers.

    Args:
        model: the model; nothing is checked where it has no layer-wise scaling.
        source: the file.
        path: where the model stands in it.
        num_layers: depth.
    """
    scaling = model.layer_scaling
    if scaling is None:
        return
    for key, message in _faults(model, scaling, num_layers):
        raise source.error((*path, *key), message)


def _faults(
    model: ModelConfig, scaling: LayerScalingConfig, num_layers: int
) -> Iterator[tuple[KeyPath, str]]:
    here = ("layer_scaling",)
    if scaling.variant == "table":
        for key in _OF_PROFILES:
            if getattr(scaling, key) != _default(key):
                yield (*here, key), "is of the other variants; remove it, or the table"
        if scaling.table is None or all(
            getattr(scaling.table, entry.name) is None for entry in fields(LayerTable)
        ):
            yield (*here, "table"), "is missing; give the sizes of every layer"
        else:
            yield from _table_faults(model, scaling.table, num_layers)
        return
    if scaling.table is not None:
        yield (*here, "table"), f"is not read by {scaling.variant}; set variant to table"
    if scaling.ffn_multipliers is None and scaling.qkv_multipliers is None:
        yield here, "varies nothing; set ffn_multipliers, qkv_multipliers or both"
    for key in _PROFILES:
        points = getattr(scaling, key)
        if points is not None:
            fault = points_fault(scaling.variant, points)
            if fault is not None:
                yield (*here, key), fault
    yield from _size_faults(model, scaling)
    yield from _frame_faults(scaling)


def is_framed(scaling: LayerScalingConfig) -> bool:
    """Whether the first and the last layer are wide whatever the profile says of them."""
    return scaling.variant in FRAMED if scaling.framed is None else scaling.framed


def points_fault(variant: str, points: Sequence[float]) -> str | None:
    """Why these points are no profile of `variant`, and how to mend them; None: they are one."""
    wanted = 3 if variant == "crown" else 2
    if len(points) != wanted:
        where = "first, middle and last" if wanted == 3 else "first and last"
        return f"{variant} takes {wanted} points, of the {where} layer, not {len(points)}"
    if not all(0 < point <= LARGEST for point in points):
        return f"multipliers are above 0 and at most {LARGEST:g}, not {list(points)}"
    if variant in ("vanilla", "framed") and points[0] > points[-1]:
        return f"{variant} goes up from layer to layer; turn them round, or set variant to reverse"
    if variant == "reverse" and points[0] < points[-1]:
        return "reverse goes down from layer to layer; turn them round, or set variant to vanilla"
    if variant == "crown" and not points[0] <= points[1] >= points[2]:
        return "the middle of a crown is its highest point; make it the largest of the three"
    return None


def _size_faults(model: ModelConfig, scaling: LayerScalingConfig) -> Iterator[tuple[KeyPath, str]]:
    here = ("layer_scaling",)
    for key in ("ffn_multiple", "head_multiple", "queries_per_group"):
        value = getattr(scaling, key)
        if value is not None and value < 1:
            yield (*here, key), f"must be at least 1, not {value}"
            return
    if scaling.ffn_multipliers is not None and model.ffn_hidden_size is not None:
        yield (
            ("ffn_hidden_size",),
            "follows from layer_scaling.ffn_multipliers; remove either (set it to null in a stage "
            "that takes it from the run)",
        )
    heads, head = model.num_attention_heads, model.kv_channels
    if scaling.qkv_multipliers is not None and head and model.hidden_size % head:
        yield (
            ("kv_channels",),
            f"with qkv_multipliers hidden_size {model.hidden_size} is heads of {head} at "
            f"multiplier 1, and not divisible; nearest: {_nearest_head(model, head)}",
        )
    elif scaling.qkv_multipliers is not None and head and heads * head != model.hidden_size:
        yield (
            ("num_attention_heads",),
            f"with qkv_multipliers it is the heads of multiplier 1: hidden_size "
            f"{model.hidden_size} / kv_channels {head} = {model.hidden_size // head}, not {heads}",
        )
    shared, groups = scaling.queries_per_group, model.num_query_groups
    if shared is not None and groups is not None:
        yield (
            ("num_query_groups",),
            "follows from layer_scaling.queries_per_group; remove either (set it to null in a "
            "stage that takes it from the run)",
        )
    unit = shared or groups or 1
    if scaling.ffn_multipliers is None and scaling.ffn_multiple != _default("ffn_multiple"):
        yield (*here, "ffn_multiple"), "is of ffn_multipliers; set these, or remove it"
    multiple = scaling.head_multiple
    if multiple is not None and multiple % unit:
        yield (
            (*here, "head_multiple"),
            f"heads in multiples of {multiple} cannot always be shared out over key/value heads; "
            f"nearest: {nearest_multiple(unit, multiple)}",
        )
    if multiple is not None and scaling.qkv_multipliers is None:
        yield (*here, "head_multiple"), "is of qkv_multipliers; set these, or remove it"
    if scaling.qkv_multipliers is None and shared is not None and heads % shared:
        yield (
            (*here, "queries_per_group"),
            f"{heads} heads cannot be shared out {shared} at a time; nearest: "
            f"{nearest_divisor(heads, shared)}",
        )


def _nearest_head(model: ModelConfig, head: int) -> int:
    """The nearest head dimension that divides the hidden size; rotary embeddings need pairs."""
    if model.style == "llama" and model.hidden_size % 2 == 0:
        return 2 * nearest_divisor(model.hidden_size // 2, head // 2)
    return nearest_divisor(model.hidden_size, head)


def _frame_faults(scaling: LayerScalingConfig) -> Iterator[tuple[KeyPath, str]]:
    frame, key = scaling.frame_multipliers, ("layer_scaling", "frame_multipliers")
    if frame is None:
        return
    if not is_framed(scaling):
        yield key, "there is no frame; set framed to true, or remove it"
    if len(frame) != 2:
        yield key, "takes two multipliers, of FFN width and of heads, such as [4.0, 1.0]"
    elif not all(0 < value <= LARGEST for value in frame):
        yield key, f"multipliers are above 0 and at most {LARGEST:g}, not {list(frame)}"


def _table_faults(
    model: ModelConfig, table: LayerTable, num_layers: int
) -> Iterator[tuple[KeyPath, str]]:
    here = ("layer_scaling", "table")
    for entry in fields(LayerTable):
        sizes = getattr(table, entry.name)
        if sizes is None:
            continue
        if len(sizes) != num_layers:
            yield (
                (*here, entry.name),
                f"has {len(sizes)} entries for {num_layers} layers; give one for each",
            )
            return
        if min(sizes) < 1:
            yield (*here, entry.name), f"sizes are at least 1, not {min(sizes)}"
            return
    heads = table.num_attention_heads or (model.num_attention_heads,) * num_layers
    groups = table.num_query_groups or tuple(model.num_query_groups or count for count in heads)
    for layer, (of_queries, of_keys) in enumerate(zip(heads, groups, strict=True)):
        if of_queries % of_keys:
            yield (
                here,
                f"layer {layer}: {of_queries} heads cannot share {of_keys} key/value heads; "
                f"nearest: {nearest_multiple(of_keys, of_queries)} heads",
            )


def _default(key: str) -> object:
    return LayerScalingConfig.__dataclass_fields__[key].default
