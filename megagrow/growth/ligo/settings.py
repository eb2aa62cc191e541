"""How the matrices of LiGO start and are trained. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

from megagrow.config.schema import LearnedConfig
from megagrow.errors import ConfigError

DepthInit = Literal["stack", "stack_noisy"]
WidthInit = Literal["identity", "rand"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LigoSettings:
    """How one operator is trained, on the loss of the grown model.

    Raises:
        ConfigError: a value that nothing can be trained with.
    """

    steps: int = 100
    """Optimizer steps (arXiv 2303.00980; VITA-Group/LiGO)."""

    learning_rate: float = 1e-3
    """Of Adam, constant. The default is ours, for small models; as many channels of a wide one add
    up, it wants less. VITA-Group/LiGO sets 2e-4, the top of a warm-up of 10,000 steps of which it
    takes 100."""

    depth_init: DepthInit = "stack"
    """Rows of D. `stack`: 1 at `i mod l`, 0 elsewhere (tongxuluo/prts). `stack_noisy`: 1 there and
    U(0, 0.03) elsewhere, divided by their sum (`stackbert_noisy` of VITA-Group/LiGO)."""

    width_init: WidthInit = "identity"
    """Rows of B for added channels; a row of an old channel is 1 at that channel and 0 elsewhere.
    `identity`: N(0, 1 / rows of B) (tongxuluo/prts). `rand`: U(0, 1) divided by their sum
    (VITA-Group/LiGO)."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"LiGO: steps is {self.steps}; it must be 1 or more")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"LiGO: learning_rate is {self.learning_rate}; it must be above 0")
        for name, choices in (("depth_init", DepthInit), ("width_init", WidthInit)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(
                    f"LiGO: {name} is {getattr(self, name)!r}; one of: "
                    f"{', '.join(get_args(choices))}"
                )


PRTS = LigoSettings(depth_init="stack", width_init="identity")
"""The matrices of tongxuluo/prts, the code of G_stack (arXiv 2405.15319), start like this. How it
trains them is not known here: the steps are LiGO's, the learning rate is ours."""

LIGO = LigoSettings(learning_rate=2e-4, depth_init="stack_noisy", width_init="rand")
"""The commands in the README of VITA-Group/LiGO, but for the warm-up, weight decay (0.1) and
gradient clipping (1.0) there; and there rows of old channels in B stay as they are."""

PRESETS: Mapping[str, LigoSettings] = MappingProxyType({"prts": PRTS, "ligo": LIGO})
"""The two public sets, by the name they have in a configuration."""


def ligo_settings(asked: LearnedConfig | None) -> LigoSettings:
    """How the operator `learned` of a transition is trained.

    Raises:
        ConfigError: a value that nothing can be trained with.
    """
    chosen = LearnedConfig() if asked is None else asked
    given = {"steps": chosen.steps, "learning_rate": chosen.learning_rate}
    changed = {key: value for key, value in given.items() if value is not None}
    return replace(PRESETS[chosen.preset], **changed)  # type: ignore[arg-type]
