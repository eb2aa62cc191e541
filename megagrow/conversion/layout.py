"""How a format stores a model: keys, fused tensors, transposed ones; and from one to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from megagrow.errors import CheckpointError
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName, tensor_shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WEIGHT_DTYPES = ("float64", "float32", "float16", "bfloat16")
"""Dtypes that weights may have, by their names in torch."""


class TensorSource(Protocol):
    """Named tensors that are read one by one, whole, on the CPU."""

    def keys(self) -> Iterable[str]:
        """Their names."""

    def shape(self, key: str) -> tuple[int, ...]:
        """The size of one, without reading it."""

    def dtype(self, key: str) -> torch.dtype:
        """The dtype of one, without reading it."""

    def tensor(self, key: str) -> Tensor:
        """One of them."""


class StoredSource(TensorSource, Protocol):
    """Tensors that are stored."""

    def dtype_name(self, key: str) -> str:
        """The dtype of one, by its name in torch: known without importing torch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """One tensor of a format."""

    key: str
    """Its name in the files."""

    parts: tuple[TensorName, ...]
    """What it is made of, joined along the first dimension."""

    interleaved: bool = False
    """Whether the parts are queries, keys and values dealt by key/value group: the queries of the
    first group, its key, its value, then the second group's (megatron-core's `linear_qkv`)."""

    transposed: bool = False
    """Whether it is `[in features, out features]` (GPT-2's `Conv1D`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """All tensors of one model in one format."""

    shape: ModelShape
    """The model; its `padded_vocab_size` is the number of embedding rows that the format stores."""

    tensors: tuple[StoredTensor, ...]
    """What is stored, from input to output."""

    by_key: dict[str, StoredTensor] = field(init=False)
    """The same, by key."""

    by_name: dict[TensorName, StoredTensor] = field(init=False)
    """Where each tensor of the model is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_key", {stored.key: stored for stored in self.tensors})
        places = {name: stored for stored in self.tensors for name in stored.parts}
        object.__setattr__(self, "by_name", places)

    def stored_shape(self, key: str) -> tuple[int, ...]:
        """Size of a tensor as it is stored."""
        stored = self.by_key[key]
        shapes = [tensor_shape(name, self.shape) for name in stored.parts]
        size = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return size[::-1] if stored.transposed else size

    def join(self, stored: StoredTensor, parts: Sequence[Tensor]) -> Tensor:
        """The stored tensor made of its parts."""
        import torch

        if stored.interleaved:
            groups = self._groups(stored)
            dealt = [part.unflatten(0, (groups, -1)) for part in parts]
            tensor = torch.cat(dealt, dim=1).flatten(0, 1)
        else:
            tensor = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
        return tensor.t().contiguous() if stored.transposed else tensor

    def split(self, stored: StoredTensor, tensor: Tensor) -> dict[TensorName, Tensor]:
        """The parts of a stored tensor."""
        if stored.transposed:
            tensor = tensor.t()
        rows = [tensor_shape(name, self.shape)[0] for name in stored.parts]
        if not stored.interleaved:
            return dict(zip(stored.parts, tensor.split(rows), strict=True))
        groups = self._groups(stored)
        dealt = tensor.unflatten(0, (groups, -1)).split([count // groups for count in rows], dim=1)
        return {name: part.flatten(0, 1) for name, part in zip(stored.parts, dealt, strict=True)}

    def _groups(self, stored: StoredTensor) -> int:
        layer = stored.parts[0].layer
        assert layer is not None
        return self.shape.layers[layer].num_query_groups


class Converted:
    """The tensors of one source in another layout, made as they are asked for.

    Embedding rows that the source has not are zeros, those that the target has not are left out:
    rows are padding of the vocabulary, or positions beyond the sequence length. The stored tensor
    last read is kept, so ask in the target's order.

    Args:
        source: the tensors.
        stored_as: how the source stores them.
        wanted: the layout to give them in.
        dtype: what to cast to; None: as they are stored.
    """

    def __init__(
        self,
        source: TensorSource,
        stored_as: Layout,
        wanted: Layout,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._source = source
        self._stored_as = stored_as
        self._wanted = wanted
        self._dtype = dtype
        self._key = ""
        self._parts: dict[TensorName, Tensor] = {}

    def keys(self) -> Iterable[str]:
        """Names in the target layout, from input to output."""
        return self._wanted.by_key.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        """Size in the target layout."""
        return self._wanted.stored_shape(key)

    def dtype(self, key: str) -> torch.dtype:
        """The dtype it will have."""
        if self._dtype is not None:
            return self._dtype
        name = self._wanted.by_key[key].parts[0]
        return self._source.dtype(self._stored_as.by_name[name].key)

    def dtype_name(self, key: str) -> str:
        """The same, by its name in torch."""
        return str(self.dtype(key)).removeprefix("torch.")

    def tensor(self, key: str) -> Tensor:
        """One tensor in the target layout."""
        import torch

        stored = self._wanted.by_key[key]
        parts = [self._fit(name, self._part(name)) for name in stored.parts]
        tensor = self._wanted.join(stored, parts)
        cast = tensor.to(self.dtype(key))
        if cast.dtype == torch.float16 and not cast.isfinite().all() and tensor.isfinite().all():
            raise CheckpointError(
                f"{key}: its largest value, {float(tensor.abs().max()):g}, does not fit into fp16. "
                "Choose bf16 or fp32."
            )
        return cast

    def _part(self, name: TensorName) -> Tensor:
        stored = self._stored_as.by_name[name]
        if stored.key != self._key:
            self._parts = self._stored_as.split(stored, self._source.tensor(stored.key))
            self._key = stored.key
        return self._parts[name]

    def _fit(self, name: TensorName, tensor: Tensor) -> Tensor:
        rows = tensor_shape(name, self._wanted.shape)[0]
        missing = rows - tensor.size(0)
        if missing <= 0:
            return tensor[:rows]
        import torch

        assert name.role in (Role.TOKEN_EMBEDDING, Role.OUTPUT), name
        return torch.cat((tensor, tensor.new_zeros(missing, *tensor.shape[1:])))


def check(
    source: StoredSource,
    layout: Layout,
    where: str,
    ignored: Callable[[str], bool] = lambda key: False,
) -> None:
    """Holds the tensors of a source against what its layout expects.

    Args:
        source: the tensors.
        layout: what they should be.
        where: the folder, for the message.
        ignored: whether a key that the layout does not know does no harm.

    Raises:
        CheckpointError: a tensor is missing, of another size or of no floating-point dtype, or
            there is one too many.
    """
    found = set(source.keys())
    missing = [key for key in layout.by_key if key not in found]
    if missing:
        raise CheckpointError(
            f"{where}: no tensor {_list(missing)}. The configuration beside it asks for it: the "
            "folder is incomplete, or of another model."
        )
    extra = sorted(key for key in found if key not in layout.by_key and not ignored(key))
    if extra:
        raise CheckpointError(
            f"{where}: the tensor {_list(extra)} has no place in this model. A folder with "
            "adapters or quantised weights has to be merged or dequantised first (PEFT: "
            "`merge_and_unload`)."
        )
    for key in layout.by_key:
        if source.shape(key) != layout.stored_shape(key):
            raise CheckpointError(
                f"{where}: {key} is {list(source.shape(key))}, and by its configuration it should "
                f"be {list(layout.stored_shape(key))}: configuration and weights are of two models."
            )
        if source.dtype_name(key) not in WEIGHT_DTYPES:
            raise CheckpointError(
                f"{where}: {key} is torch.{source.dtype_name(key)}: quantised weights cannot be "
                "converted; dequantise them first."
            )


def _list(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
