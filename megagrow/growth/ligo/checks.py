"""Which pairs of shapes LiGO can grow between. Pure Python."""

from __future__ import annotations

from dataclasses import fields

from megagrow.errors import ConfigError
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape
from megagrow.units import nearest_multiple

_MAY_GROW = ("hidden_size", "layers")


def check_ligo(old: ModelShape, new: ModelShape) -> None:
    """Says whether LiGO can grow one shape into another.

    Raises:
        ConfigError: it cannot; with the nearest value that it can.
    """
    for field in fields(ModelShape):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name not in _MAY_GROW and before != after:
            raise ConfigError(f"LiGO: {field.name} must stay {before!r}, not {after!r}")
    for which, shape in (("old", old), ("new", new)):
        _check_alike(which, shape)
    _check_grows("hidden_size", old.hidden_size, new.hidden_size)
    _check_grows("the number of layers", old.num_layers, new.num_layers)
    narrow, wide = old.layers[0], new.layers[0]
    for field in fields(LayerShape):
        _check_grows(field.name, getattr(narrow, field.name), getattr(wide, field.name))
    if old.style == "llama" and narrow.kv_channels != wide.kv_channels:
        raise ConfigError(
            f"LiGO: kv_channels must stay {narrow.kv_channels}, not {wide.kv_channels}: the rotary "
            "frequencies of a channel depend on it; add heads instead"
        )
    _check_groups(narrow, wide)
    if old == new:
        raise ConfigError(
            f"LiGO: nothing grows: {old.num_layers} layers of hidden size {old.hidden_size} stay; "
            f"for example {2 * old.num_layers} layers"
        )


def _check_alike(which: str, shape: ModelShape) -> None:
    if not shape.layers:
        raise ConfigError(f"LiGO: the {which} model has no layers; at least 1")
    if not shape.is_isotropic:
        raise ConfigError(
            f"LiGO: layers of the {which} model must be of one shape, for they are added up, and "
            "with layer_scaling they are not; choose another operator"
        )


def _check_grows(what: str, before: int, after: int) -> None:
    if after < before:
        raise ConfigError(f"LiGO: {what} cannot shrink from {before} to {after}; at least {before}")


def _check_groups(old: LayerShape, new: LayerShape) -> None:
    heads, groups = new.num_attention_heads, new.num_query_groups
    per_group = old.num_attention_heads // old.num_query_groups
    if heads % groups:
        raise ConfigError(
            f"LiGO: {heads} query heads cannot be shared out over {groups} groups; nearest: "
            f"{max(nearest_multiple(groups, heads), per_group * groups)} heads"
        )
    if heads // groups < per_group:
        raise ConfigError(
            f"LiGO: {heads} query heads in {groups} groups leave old heads no place in their group "
            f"of {per_group}; at least {per_group * groups} heads"
        )
