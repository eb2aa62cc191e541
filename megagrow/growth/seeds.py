"""Seeds of what a growth draws, the same in flight and on disk."""

from __future__ import annotations

from collections.abc import Callable

from megagrow.runtime.seeds import seed_for


def draw_seed(seed: int, stage: int) -> int:
    """Seed of the layers that are drawn where a stage begins.

    A layer drawn in a growth is not what the layer of its number was at the start.

    Args:
        seed: the run's.
        stage: index of the stage; the first one's layers are drawn with the run's own seed.
    """
    return seed_for(seed, f"stage {stage}") if stage else seed


def noise_seed(seed: int, stage: int) -> Callable[[str], int]:
    """Seeds of the noise mixed in where a stage begins, by the tensors' keys."""
    return lambda key: seed_for(seed, f"noise before stage {stage}: {key}")
