"""Names of a model's stored tensors, and where growth takes them from. Pure Python."""

from __future__ import annotations

import re
from collections.abc import Sequence

LAYER = re.compile(r"(?P<before>(?:^|\.)layers\.)(?P<layer>\d+)(?P<after>\.)")
"""The global number of the transformer layer that a tensor belongs to, in its key."""


def source_key(key: str, layer_map: Sequence[int]) -> str:
    """The stored tensor that tensor `key` of a grown model copies.

    Args:
        key: its key in a checkpoint, with its layer's number in the whole model.
        layer_map: the old layer of every new one.
    """

    def old(match: re.Match[str]) -> str:
        return f"{match['before']}{layer_map[int(match['layer'])]}{match['after']}"

    return LAYER.sub(old, key, count=1)
