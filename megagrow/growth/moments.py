"""What growth does to Adam's moments. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass

from megagrow.config.schema import TransitionConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class MomentPolicy:
    """What a grown weight's moments are."""

    kept: bool
    """Whether weights that live on keep theirs; otherwise all are zero."""

    copied: bool
    """Whether a layer that is a further copy of an old one takes that one's; otherwise zero."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Factors of the first and the second moment."""


RESET = MomentPolicy(kept=False, copied=False)
COPY = MomentPolicy(kept=True, copied=True)


def moment_policy(transition: TransitionConfig) -> MomentPolicy:
    """The policy of a transition.

    Sources: `reset` G_stack and most others; `copy` Staged Training's depth growth;
    `keep_old_zero_new` MSG and SPARKLING. Staged Training's growth in width halves and quarters
    them, which `copy` does for it (`width.double.moment_factors`).
    """
    if transition.optimizer == "reset":
        return RESET
    if transition.optimizer == "keep_old_zero_new":
        return MomentPolicy(kept=True, copied=False)
    first, second = transition.moment_scale or (1.0, 1.0)
    return MomentPolicy(kept=True, copied=True, scale=(first, second))
