from __future__ import annotations

import pytest

from megagrow.errors import ConfigError
from megagrow.plan.hardware import parse_hardware


def lookup(precision: str, name: str | None) -> tuple[float | None, str]:
    return (1000.0, "its data sheet") if name == "H100" else (None, f"no peak is listed for {name}")


def test_named() -> None:
    hardware = parse_hardware("H100:64", "bf16", lookup)
    assert (hardware.name, hardware.devices, hardware.peak_tflops) == ("H100", 64, 1000.0)
    assert hardware.source == "its data sheet"
    assert hardware.seconds(64 * 1000e12 * 0.4) == pytest.approx(1.0)


def test_given_as_a_number() -> None:
    hardware = parse_hardware("0.5:2", "fp32", lookup)
    assert (hardware.peak_tflops, hardware.devices, hardware.source) == (0.5, 2, "as given")


@pytest.mark.parametrize("text", ["H100", "H100:", ":8", "H100:0", "H100:-1", "H100:x", "", "8"])
def test_refuses_another_form(text: str) -> None:
    with pytest.raises(ConfigError, match="write NAME:COUNT, for example H100:64"):
        parse_hardware(text, "bf16", lookup)


@pytest.mark.parametrize("text", ["Abacus:8", "nan:8", "inf:8", "0:8", "-3:8"])
def test_refuses_an_unknown_peak(text: str) -> None:
    with pytest.raises(ConfigError, match="TFLOP/s instead of its name, for example 989:8"):
        parse_hardware(text, "bf16", lookup)
