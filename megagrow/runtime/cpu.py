"""The one place where a CPU stands in for a GPU.

megatron-core names CUDA directly: ``device="cuda"``, ``torch.cuda.current_device()``, streams,
the CUDA generator. :func:`install` gives those names a CPU meaning, so that the same training
code runs, with gloo, where there is no GPU. With CUDA present it does nothing.

Named functions are patched; there is no global ``TorchFunctionMode``. A mode runs Python at
*every* torch call (measured: 1.2 us more for each), lives in one thread only (a saver thread
would not have it) and breaks the graphs of ``torch.compile``. The patches cost 0.2 us, on tensor
factories and ``Tensor.to`` alone, and hold in all threads.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

_MARK = "_megagrow_cpu_stand_in"

#: The functions of the ``torch`` namespace that take ``device=`` and that megatron-core calls.
FACTORIES = (
    "arange",
    "as_tensor",
    "empty",
    "empty_like",
    "empty_strided",
    "eye",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
    "zeros_like",
)


class Stream:
    """A CUDA stream with nothing to order: the CPU runs one operation after another."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self.device = torch.device("cpu")
        self.cuda_stream = 0

    def synchronize(self) -> None:
        """Return at once; all work is done."""

    def query(self) -> bool:
        """True: all work is done."""
        return True

    def wait_stream(self, stream: Any) -> None:
        """Return at once; ``stream`` has no pending work."""

    def wait_event(self, event: Any) -> None:
        """Return at once; ``event`` has happened."""

    def record_event(self, event: Event | None = None) -> Event:
        """Record ``event`` (a new one if None) and return it."""
        event = event or Event()
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_exc: object) -> None:
        return None


class Event:
    """A CUDA event: it has happened when it is recorded."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self._seconds: float = 0.0

    def record(self, stream: Any = None) -> None:
        """Take the time."""
        self._seconds = time.perf_counter()

    def wait(self, stream: Any = None) -> None:
        """Return at once; the event has happened."""

    def synchronize(self) -> None:
        """Return at once; the event has happened."""

    def query(self) -> bool:
        """True: the event has happened."""
        return True

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to ``end_event``."""
        return (end_event._seconds - self._seconds) * 1e3


def is_installed() -> bool:
    """Whether :func:`install` has patched this process."""
    return hasattr(torch.cuda.current_device, _MARK)


def install() -> None:
    """Let CUDA names mean the CPU in this process; a no-op with CUDA, or when done before."""
    if torch.cuda.is_available() or is_installed():
        return
    _patch_factories()
    _patch_tensor_methods()
    _patch_cuda_namespace()
    _patch_megatron_rng()
    _patch_parameter_gather()


def _stand_in(owner: Any, name: str, replacement: Any) -> None:
    if callable(replacement) and not isinstance(replacement, type):
        setattr(replacement, _MARK, True)
    setattr(owner, name, replacement)


def _is_cuda_name(device: object) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(factory)
    def call(*args: Any, **kwargs: Any) -> Any:
        device = kwargs.get("device")
        if device is not None and _is_cuda_name(device):
            kwargs["device"] = "cpu"
        return factory(*args, **kwargs)

    return call


def _patch_factories() -> None:
    # torch.device("meta") as a context recognises factories by identity, in a cached set:
    # fill the cache with the real ones, or the context would no longer know them.
    from torch.utils import _device

    _device._device_constructors()
    for name in FACTORIES:
        _stand_in(torch, name, _on_cpu(getattr(torch, name)))


def _patch_tensor_methods() -> None:
    tensor_type: Callable[..., Any] = torch.Tensor.type
    tensor_to: Callable[..., Any] = torch.Tensor.to

    def cuda(self: Any, *_args: Any, **_kwargs: Any) -> Any:
        return self

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args and _is_cuda_name(args[0]):
            args = ("cpu", *args[1:])
        if kwargs and _is_cuda_name(kwargs.get("device")):
            kwargs["device"] = "cpu"
        return tensor_to(self, *args, **kwargs)

    def type_name(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        # The optimizers sort parameters by the names of CUDA tensor types.
        result = tensor_type(self, *args, **kwargs)
        if isinstance(result, str) and self.device.type == "cpu":
            return result.replace("torch.", "torch.cuda.", 1)
        return result

    _stand_in(torch.Tensor, "cuda", cuda)
    _stand_in(torch.Tensor, "to", to)
    _stand_in(torch.Tensor, "type", type_name)
    _stand_in(torch.nn.Module, "cuda", cuda)


@contextmanager
def _stream_context(_stream: Any) -> Iterator[None]:
    yield


def _patch_cuda_namespace() -> None:
    only_stream = Stream()

    def nothing(*_args: Any, **_kwargs: Any) -> None:
        return None

    def the_stream(_device: Any = None) -> Stream:
        return only_stream

    def current_device() -> torch.device:
        # A device, not the index that CUDA returns: it is only ever handed on as device=.
        return torch.device("cpu")

    def manual_seed(seed: int) -> None:
        # The CPU has one generator, so the default one is also "the CUDA generator".
        torch.default_generator.manual_seed(int(seed))

    def get_rng_state(_device: Any = "cuda") -> torch.Tensor:
        return torch.default_generator.get_state()

    def set_rng_state(new_state: torch.Tensor, _device: Any = "cuda") -> None:
        torch.default_generator.set_state(new_state)

    for name in ("synchronize", "empty_cache", "set_device", "set_stream", "ipc_collect"):
        _stand_in(torch.cuda, name, _named(nothing, name))
    for name in ("reset_peak_memory_stats", "reset_max_memory_allocated"):
        _stand_in(torch.cuda, name, _named(nothing, name))
    for name in ("current_stream", "default_stream"):
        _stand_in(torch.cuda, name, _named(the_stream, name))
    _stand_in(torch.cuda, "Stream", Stream)
    _stand_in(torch.cuda, "Event", Event)
    _stand_in(torch.cuda, "stream", _stream_context)
    for owner in (torch.cuda, torch.cuda.random):
        _stand_in(owner, "manual_seed", manual_seed)
        _stand_in(owner, "get_rng_state", _device_keyword(get_rng_state))
        _stand_in(owner, "set_rng_state", _device_keyword(set_rng_state))
    _stand_in(torch.cuda, "current_device", current_device)


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__name__ = name
    return call


def _device_keyword(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, device: Any = "cuda") -> Any:
        return function(*args)

    return call


def _patch_megatron_rng() -> None:
    from megatron.core.tensor_parallel import random

    def get_state(
        device: Any = "cuda", clone: bool = False, graph_safe: bool = False
    ) -> torch.Tensor:
        return torch.default_generator.get_state()

    def set_state(new_state: torch.Tensor, device: Any = -1, graph_safe: bool = False) -> None:
        torch.default_generator.set_state(new_state)

    _stand_in(random, "_get_cuda_rng_state", get_state)
    _stand_in(random, "_set_cuda_rng_state", set_state)
    # A fork of the "CUDA" generator moves the CPU's and puts it back: here that is no accident.
    logging.getLogger(random.__name__).addFilter(_is_not_rng_warning)


def _patch_parameter_gather() -> None:
    """megatron-core's gather of weights after an update: in place, where gloo's own is not.

    Gloo gathers into memory of its own, as large as all weights, and copies them out of it.
    """
    from megatron.core.distributed import param_and_grad_buffer

    gather = param_and_grad_buffer.dist_all_gather_func

    def in_place(
        output: torch.Tensor, mine: torch.Tensor, *, group: dist.ProcessGroup, async_op: bool
    ) -> Any:
        shards = output.chunk(group.size())
        if async_op or shards[group.rank()].data_ptr() != mine.data_ptr():
            return gather(output, mine, group=group, async_op=async_op)
        for rank, shard in enumerate(shards):
            dist.broadcast(shard, dist.get_global_rank(group, rank), group=group)
        return None

    _stand_in(param_and_grad_buffer, "dist_all_gather_func", in_place)


def _is_not_rng_warning(record: logging.LogRecord) -> bool:
    return "CPU RNG state changed" not in record.getMessage()
