from __future__ import annotations

import math

import pytest

from megagrow.errors import ConfigError
from megagrow.growth.ligo.settings import LIGO, PRTS, LigoSettings


def test_presets_start_as_the_two_public_codes_do() -> None:
    assert (PRTS.depth_init, PRTS.width_init) == ("stack", "identity")
    assert (LIGO.depth_init, LIGO.width_init) == ("stack_noisy", "rand")
    assert PRTS.steps == LIGO.steps == 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("depth_init", "interleave"),
        ("width_init", "sel"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        LigoSettings(**{name: value})  # type: ignore[arg-type]
