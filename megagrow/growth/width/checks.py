"""Which pairs of shapes each width operator can grow between. Pure Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType

from megagrow.errors import ConfigError
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape
from megagrow.units import nearest_multiple

_WIDTHS = ("hidden_size", "layers")
_LAYER_WIDTHS = ("num_attention_heads", "num_query_groups", "kv_channels", "ffn_hidden_size")


def check_width(operator: str, old: ModelShape, new: ModelShape) -> None:
    """Says whether a width operator can grow one shape into another.

    Args:
        operator: its name.
        old: the model.
        new: the wider model, of as many layers.

    Raises:
        ConfigError: no such operator, or it cannot; with the nearest size that it can, if any.
    """
    if operator not in _CHECKS:
        raise ConfigError(f"no width operator {operator!r}; one of: {', '.join(_CHECKS)}")
    _CHECKS[operator](old, new)


def _check_split(old: ModelShape, new: ModelShape) -> None:
    _check_shapes("split", old, new)
    _check_head_dimension("split", old, new)


def _check_zero(old: ModelShape, new: ModelShape) -> None:
    _check_shapes("zero", old, new)
    _check_head_dimension("zero", old, new)
    _check_heads_per_group("zero", old, new)
    if old.style == "gpt2" and old.hidden_size != new.hidden_size:
        raise ConfigError(
            f"zero: hidden_size must stay {old.hidden_size}, not {new.hidden_size}: LayerNorm "
            "would mix the new channels, which are 0, with the old ones; use hyperclone or "
            "split, or let heads and FFN grow alone"
        )


def _check_random(old: ModelShape, new: ModelShape) -> None:
    _check_shapes("random", old, new)
    _check_head_dimension("random", old, new)
    _check_heads_per_group("random", old, new)


def _check_hyperclone(old: ModelShape, new: ModelShape) -> None:
    _check_shapes("hyperclone", old, new)
    _check_multiples("hyperclone", old, new)
    if old.style == "llama" or old.qk_norm:
        _check_head_dimension("hyperclone", old, new)


def _check_double(old: ModelShape, new: ModelShape) -> None:
    _check_same_but_widths("double", old, new)
    for what, before, after in _widths(old, new):
        wanted = before if what.startswith("kv_channels") else 2 * before
        if after != wanted:
            raise ConfigError(f"double: {what} must go from {before} to {wanted}, not {after}")


def _check_rms_preserving(old: ModelShape, new: ModelShape) -> None:
    _check_shapes("rms_preserving", old, new)
    _check_head_dimension("rms_preserving", old, new)


_CHECKS: Mapping[str, Callable[[ModelShape, ModelShape], None]] = MappingProxyType(
    {
        "split": _check_split,
        "zero": _check_zero,
        "random": _check_random,
        "hyperclone": _check_hyperclone,
        "double": _check_double,
        "rms_preserving": _check_rms_preserving,
    }
)


def _widths(old: ModelShape, new: ModelShape) -> Iterator[tuple[str, int, int]]:
    """Every width: its name, what it was and what it becomes."""
    yield "hidden_size", old.hidden_size, new.hidden_size
    for index, (narrow, wide) in enumerate(zip(old.layers, new.layers, strict=True)):
        for width in _LAYER_WIDTHS:
            yield f"{width} of layer {index}", getattr(narrow, width), getattr(wide, width)


def _check_shapes(operator: str, old: ModelShape, new: ModelShape) -> None:
    """What most ask: only widths differ, none shrinks, every query head has a place."""
    _check_same_but_widths(operator, old, new)
    for what, before, after in _widths(old, new):
        if after < before:
            raise ConfigError(f"{operator}: {what} cannot shrink from {before} to {after}")
    for index, (narrow, wide) in enumerate(zip(old.layers, new.layers, strict=True)):
        _check_groups(f"{operator}: layer {index}", narrow, wide)


def _check_same_but_widths(operator: str, old: ModelShape, new: ModelShape) -> None:
    if old.num_layers != new.num_layers:
        raise ConfigError(
            f"{operator}: {old.num_layers} -> {new.num_layers} layers: it changes widths alone; "
            "change the depth with a depth operator"
        )
    for field in fields(ModelShape):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name not in _WIDTHS and before != after:
            raise ConfigError(f"{operator}: {field.name} must stay {before!r}, not {after!r}")


def _check_head_dimension(operator: str, old: ModelShape, new: ModelShape) -> None:
    """For operators that do not define what a longer head is."""
    for what, before, after in _widths(old, new):
        if what.startswith("kv_channels") and before != after:
            raise ConfigError(
                f"{operator}: {what} must stay {before}, not {after}: attention's scale and the "
                "rotary frequencies depend on it; add heads instead"
            )


def _check_multiples(operator: str, old: ModelShape, new: ModelShape) -> None:
    """For operators that repeat every channel equally often."""
    for what, before, after in _widths(old, new):
        if after % before:
            raise ConfigError(
                f"{operator}: {what}: {after} is no multiple of {before}; nearest: "
                f"{nearest_multiple(before, after)}"
            )


def _check_heads_per_group(operator: str, old: ModelShape, new: ModelShape) -> None:
    """For operators that put new query heads in new key/value groups."""
    for index, (narrow, wide) in enumerate(zip(old.layers, new.layers, strict=True)):
        before = narrow.num_attention_heads // narrow.num_query_groups
        if before * wide.num_query_groups != wide.num_attention_heads:
            nearest = nearest_multiple(before, wide.num_attention_heads)
            raise ConfigError(
                f"{operator}: layer {index}: {wide.num_attention_heads} query heads in "
                f"{wide.num_query_groups} groups; it keeps {before} to a group, because a new head "
                f"in an old group would see old values. Nearest: {nearest} heads in "
                f"{nearest // before} groups"
            )


def _check_groups(where: str, old: LayerShape, new: LayerShape) -> None:
    heads, groups = new.num_attention_heads, new.num_query_groups
    if heads % groups:
        raise ConfigError(
            f"{where}: {heads} query heads cannot be shared out over {groups} groups; nearest: "
            f"{nearest_multiple(groups, heads)} heads"
        )
    per_group = old.num_attention_heads // old.num_query_groups
    copies = groups // old.num_query_groups
    if copies * (heads // groups) < per_group:
        raise ConfigError(
            f"{where}: {heads} query heads in {groups} groups leave no place beside its keys and "
            f"values for every old one, of {old.num_attention_heads} in {old.num_query_groups} "
            f"groups; at least {-(-per_group // copies) * groups} heads"
        )
