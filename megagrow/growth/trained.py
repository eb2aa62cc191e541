"""Which weights a stage trains. Pure Python."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

from megagrow.growth.keys import layer_of

Trainable = Literal["all", "new", "new_and_head"]

_HEAD = ("decoder.final_layernorm.", "output_layer.")
_TIED_HEAD = (*_HEAD, "embedding.word_embeddings.")


def trains(trainable: Trainable, added: Collection[int], *, tied: bool) -> Callable[[str], bool]:
    """Whether a weight is trained, by its key in a checkpoint.

    Args:
        trainable: what the stage trains.
        added: the layers that the last growth added.
        tied: whether the output layer is the token embedding.
    """
    head = _TIED_HEAD if tied else _HEAD

    def trained(key: str) -> bool:
        if trainable == "all" or layer_of(key) in added:
            return True
        return trainable == "new_and_head" and key.startswith(head)

    return trained
