"""How long a plan takes on named hardware, at a stated share of its peak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from megagrow.errors import ConfigError

ASSUMED_MFU = 0.4
"""Share of the peak that an estimate assumes: usual for dense models on well-connected GPUs."""

PeakLookup = Callable[[str, str | None], "tuple[float | None, str]"]
"""Dense TFLOP/s of (precision, device name) and their source, as `runtime.device.peak_tflops`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Devices a run could use."""

    name: str
    """Product name."""

    devices: int
    """How many."""

    peak_tflops: float
    """Dense TFLOP/s of one of them."""

    source: str
    """Where that number is from."""

    mfu: float = ASSUMED_MFU
    """Share of the peak that training is assumed to reach."""

    def seconds(self, flops: float) -> float:
        """Time for `flops` model FLOPs."""
        return flops / (self.devices * self.peak_tflops * 1e12 * self.mfu)


def parse_hardware(text: str, precision: str, lookup: PeakLookup) -> Hardware:
    """Hardware from `NAME:COUNT`, such as `H100:64`; instead of a name, TFLOP/s of one device.

    Args:
        text: what the user wrote.
        precision: precision of the run.
        lookup: knows the peak of a device by name.

    Raises:
        ConfigError: another form, a count below 1, or a device whose peak is not known.
    """
    name, _, count = text.rpartition(":")
    if not name.strip() or not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"hardware {text!r}: write NAME:COUNT, for example H100:64")
    name = name.strip()
    try:
        peak: float | None = float(name)
        source = "as given"
        label = f"{name}-TFLOP/s device"
    except ValueError:
        peak, source = lookup(precision, name)
        label = name
    if peak is not None and 0 < peak < float("inf"):
        return Hardware(name=label, devices=int(count), peak_tflops=peak, source=source)
    reason = source if peak is None else f"no device has {name} TFLOP/s"
    raise ConfigError(
        f"hardware {text!r}: {reason}; write the device's dense TFLOP/s instead of its name, for "
        f"example 989:{count}"
    )
