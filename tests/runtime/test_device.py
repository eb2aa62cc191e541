"""The device's memory mark and named peaks."""

from __future__ import annotations

import pytest
import torch

from megagrow.runtime import device

needs_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@needs_cpu
def test_the_device_is_the_cpu_with_gloo() -> None:
    assert not device.is_cuda()
    assert device.device() == torch.device("cpu")
    assert device.backend() == "gloo"


def test_memory_in_use_goes_up_and_down() -> None:
    before = device.memory_bytes()
    size = 200_000_000
    tensor = torch.ones(size, dtype=torch.uint8)
    assert device.memory_bytes() > before + 0.5 * size
    del tensor
    assert device.memory_bytes() < before + 0.5 * size


def test_memory_peak_sees_memory_that_is_gone_again() -> None:
    device.reset_memory_peak()
    before = device.memory_peak_bytes()
    size = 256 << 20
    big = torch.ones(size, dtype=torch.uint8, device=device.device())
    del big
    high = device.memory_peak_bytes()
    assert high - before > 0.9 * size
    device.reset_memory_peak()
    assert device.memory_peak_bytes() < high - 0.5 * size


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GB200", 2500.0),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_peaks_by_product_name(name: str, tflops: float) -> None:
    value, source = device.peak_tflops("bf16", name)
    assert value == tflops
    assert "data sheet" in source


@pytest.mark.parametrize(
    ("precision", "name"),
    [
        ("bf16", "CPU"),
        ("bf16", "NVIDIA H1000"),
        ("bf16", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"),
        ("bf16", "NVIDIA GeForce RTX 3090 Ti"),
        ("fp32", "NVIDIA H100"),
    ],
)
def test_no_peak_is_made_up(precision: str, name: str) -> None:
    value, reason = device.peak_tflops(precision, name)
    assert value is None
    assert reason
