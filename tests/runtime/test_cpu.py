"""The CPU stand-in: each name it gives a meaning to, and what it must leave alone."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.distributed import World, run_distributed


def _names() -> dict[str, Any]:
    import torch
    from megatron.core.tensor_parallel import random

    from megagrow.runtime import cpu

    seen: dict[str, Any] = {"installed": cpu.is_installed()}
    before = torch.zeros
    cpu.install()
    seen["idempotent"] = torch.zeros is before

    like = torch.ones(2)
    arguments: dict[str, tuple[Any, ...]] = {
        "arange": (3,),
        "as_tensor": ([1.0],),
        "empty_strided": ((2,), (1,)),
        "full": ((2,), 1.0),
        "full_like": (like, 1.0),
        "linspace": (0, 1, 3),
        "randint": (3, (2,)),
        "tensor": ([1.0],),
        "tril_indices": (2, 2),
        "triu_indices": (2, 2),
    }
    devices = ("cuda", "cuda:0", torch.device("cuda"), torch.cuda.current_device())
    for name in cpu.FACTORIES:
        args = arguments.get(name, (like,) if name.endswith("_like") else (2,))
        made = [getattr(torch, name)(*args, device=device) for device in devices]
        seen[name] = all(each.device.type == "cpu" for each in made)

    seen["cuda"] = like.cuda() is like and like.cuda(torch.cuda.current_device()) is like
    layer = torch.nn.Linear(2, 2)
    seen["module"] = layer.cuda() is layer and layer.cuda(0) is layer
    seen["to"] = [
        like.to("cuda") is like,
        like.to(device="cuda", dtype=torch.bfloat16).dtype == torch.bfloat16,
        like.to(torch.device("cuda:0")) is like,
        like.to(torch.float64).dtype == torch.float64,
    ]
    seen["type"] = [like.to(kind).type() for kind in (torch.float32, torch.float16, torch.bfloat16)]
    seen["type cast"] = like.type(torch.float64).dtype == torch.float64
    with torch.device("meta"):
        seen["meta"] = torch.empty(2).device.type
    seen["cpu"] = torch.zeros(2, device="cpu").device.type

    stream = torch.cuda.Stream(device="cuda")
    stream.wait_stream(torch.cuda.current_stream())
    event = stream.record_event()
    torch.cuda.default_stream().wait_event(event)
    with torch.cuda.stream(stream), torch.cuda.stream(None):
        torch.cuda.set_stream(stream)
        torch.cuda.synchronize()
        torch.cuda.synchronize(torch.cuda.current_device())
    torch.cuda.set_device(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.Event(enable_timing=True)
    start.record()
    event.record()
    seen["stream"] = stream.query() and event.query() and start.elapsed_time(event) >= 0

    torch.cuda.manual_seed(5)
    state = torch.cuda.get_rng_state()
    first = torch.rand(3)
    torch.cuda.set_rng_state(state, device="cuda")
    seen["rng"] = torch.equal(torch.rand(3), first)
    random._set_cuda_rng_state(state)
    seen["megatron rng"] = torch.equal(torch.rand(3), first) and torch.equal(
        state, _after_seed(random, 5)
    )

    in_thread: list[str] = []
    thread = threading.Thread(
        target=lambda: in_thread.append(torch.empty(1, device="cuda").device.type)
    )
    thread.start()
    thread.join()
    seen["thread"] = in_thread
    return seen


def _after_seed(random: Any, seed: int) -> Any:
    import torch

    torch.cuda.manual_seed(seed)
    return random._get_cuda_rng_state()


def _forks_quietly() -> tuple[list[str], bool]:
    import logging

    import torch
    from megatron.core import tensor_parallel

    from megagrow.runtime import groups, seeds

    groups.set_up()
    seeds.seed_step(1, 1)
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    before = torch.get_rng_state()
    with tensor_parallel.get_cuda_rng_tracker().fork():
        torch.rand(10)
    logging.getLogger().removeHandler(handler)
    return messages, torch.equal(before, torch.get_rng_state())


def _with_cuda() -> bool:
    import torch

    from megagrow.runtime import cpu

    # The worker has the stand-in; ask what a machine with CUDA would do from a clean torch.
    names = {name: getattr(torch.cuda, name) for name in ("current_device", "synchronize")}
    marked = torch.cuda.current_device
    available = torch.cuda.is_available
    try:
        torch.cuda.is_available = lambda: True
        torch.cuda.current_device = lambda: 0
        cpu.install()
        return not cpu.is_installed()
    finally:
        torch.cuda.is_available = available
        torch.cuda.current_device = marked
        assert all(getattr(torch.cuda, name) is value for name, value in names.items())


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What one process sees after processes.start()."""
    pytest.importorskip("torch")
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU: nothing stands in")
    return run_distributed(_names, 1)[0]


def test_every_factory_makes_cpu_tensors(seen: dict[str, Any]) -> None:
    from megagrow.runtime.cpu import FACTORIES

    assert seen["installed"]
    assert seen["idempotent"]
    assert [name for name in FACTORIES if not seen[name]] == []


def test_tensor_methods(seen: dict[str, Any]) -> None:
    assert seen["cuda"]
    assert seen["module"]
    assert all(seen["to"])
    assert seen["type"] == [
        "torch.cuda.FloatTensor",
        "torch.cuda.HalfTensor",
        "torch.cuda.BFloat16Tensor",
    ]
    assert seen["type cast"]


def test_streams_and_generators(seen: dict[str, Any]) -> None:
    assert seen["stream"]
    assert seen["rng"]
    assert seen["megatron rng"]


def test_other_devices_and_threads(seen: dict[str, Any]) -> None:
    assert seen["meta"] == "meta"
    assert seen["cpu"] == "cpu"
    assert seen["thread"] == ["cpu"]


def test_generator_forks_restore_and_do_not_warn(world2: World) -> None:
    assert world2.run(_forks_quietly) == [([], True)] * 2


def test_nothing_is_patched_with_cuda(world2: World) -> None:
    assert world2.run(_with_cuda) == [True, True]
