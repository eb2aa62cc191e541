"""Partial stacking patterns, written as in the G_stack paper. Pure Python."""

from __future__ import annotations

import re

from megagrow.errors import ConfigError

_GROUP = re.compile(r"(?P<layers>[\d,.]+)(?:[x*×](?P<times>\d+))?")
_SYNTAX = (
    "groups of layers (from 1) joined by '-', a group repeated by 'x' and a number: 12-345x7-6; "
    "in models of more than 9 layers with commas or ranges: 1,2-3..12x3-13"
)


def parse_pattern(pattern: str, old_layers: int) -> list[int]:
    """The old layer (from 0) of every new one, for a pattern such as `12-345x7-6`.

    Args:
        pattern: layers counted from 1, as in arXiv 2405.15319, section on partial stacking. With up
            to 9 layers each digit is one; with more, a group is a list: `1,2-3..12x3-13`.
        old_layers: layers of the model before.

    Raises:
        ConfigError: it cannot be read, or names a layer that does not exist.
    """
    found: list[int] = []
    for group in pattern.replace(" ", "").split("-"):
        match = _GROUP.fullmatch(group)
        if match is None:
            raise ConfigError(f"pattern {pattern!r}: cannot read {group!r}; it takes {_SYNTAX}")
        listed = match["layers"]
        if old_layers <= 9 and listed.isdigit():
            listed = ",".join(listed)
        layers = _layers(listed, pattern)
        missing = [layer for layer in layers if not 1 <= layer <= old_layers]
        if missing:
            raise ConfigError(
                f"pattern {pattern!r}: no layer {missing[0]} among 1 to {old_layers}; it takes "
                f"{_SYNTAX}"
            )
        found += [layer - 1 for layer in layers] * int(match["times"] or 1)
    return found


def _layers(text: str, pattern: str) -> list[int]:
    layers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part)
        if match is None:
            raise ConfigError(f"pattern {pattern!r}: cannot read {part!r}; it takes {_SYNTAX}")
        first, last = int(match[1]), int(match[2] or match[1])
        layers += range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return layers
