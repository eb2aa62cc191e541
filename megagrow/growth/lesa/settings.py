"""How the predictor of LESA is trained. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from megagrow.config.schema import LesaConfig
from megagrow.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class LesaSettings:
    """How one predictor is trained. The defaults are those of the authors' public notebook.

    Raises:
        ConfigError: a value that nothing can be trained with.
    """

    norm_weight: float = 5e-4
    """Lambda, from 0 to 1: share of the norm term in the loss; the mean squared error has the rest.
    The norm term keeps predictions from shrinking towards 0."""

    epochs: int = 10
    """Passes over the rows of all triples of layers."""

    learning_rate: float = 1e-3
    """Of AdamW, constant."""

    weight_decay: float = 0.01
    """Of AdamW, on all parameters of the predictor; the notebook leaves torch's default."""

    batch_rows: int = 64
    """Rows in a mini-batch, over which both terms of the loss are taken."""

    hidden_width: int = 256
    """Width of both hidden layers of the predictor."""

    seed: int = 0
    """Of the predictor's first weights, of the order of rows and of the held-out triples."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_rows", "hidden_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"LESA: {name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.norm_weight <= 1:
            raise ConfigError(f"LESA: norm_weight is {self.norm_weight}; it must be from 0 to 1")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"LESA: learning_rate is {self.learning_rate}; it must be above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"LESA: weight_decay is {self.weight_decay}; it must be 0 or more")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"LESA: seed is {self.seed}; it must be from 0 to 2^63 - 1")


PRESETS: Mapping[str, LesaSettings] = MappingProxyType(
    {
        "paper": LesaSettings(norm_weight=5e-5, epochs=5),
        "notebook": LesaSettings(),
    }
)
"""The two published sets, which differ. `paper`: lambda, epochs and width of arXiv 2502.13794; its
optimizer and batch are not known here, so the notebook's stand in. `notebook`: train_LESA.ipynb of
yangyifei729/LESA. Neither publishes a seed."""


def lesa_settings(asked: LesaConfig | None, seed: int) -> LesaSettings:
    """How the operator `lesa` predicts, in a run with this seed."""
    chosen = LesaConfig() if asked is None else asked
    settings = replace(PRESETS[chosen.preset], seed=seed)
    return settings if chosen.epochs is None else replace(settings, epochs=chosen.epochs)
