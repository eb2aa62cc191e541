"""int8 on the CPU: exports a classifier to ONNX, quantises it, and runs it on onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.difficulty.distilbert import Run, quiet_transformers
from megagrow.difficulty.model_files import INT8_FILE, weight_files
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically

_INPUTS = ("input_ids", "attention_mask")
_NEEDS = "pip install 'megagrow[onnx]'"
# Largest difference of a logit between torch and the exported float32 model.
_TOLERANCE = 1e-3


def export(folder: Path) -> Path:
    """Writes `model.int8.onnx` beside a classifier's weights: dynamic int8, any batch and length.

    The float32 graph is compared with torch before it is quantised.

    Returns:
        The file written.

    Raises:
        DataError: a package is missing, there is no model, or the exported graph computes other
            values.
    """
    weight_files(folder, "torch")
    check_installed()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_transformers() as transformers, tempfile.TemporaryDirectory() as temporary:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, attn_implementation="eager"
        ).eval()
        plain, small = Path(temporary, "model.onnx"), Path(temporary, INT8_FILE)
        with _quiet():
            _to_onnx(model, plain)
            _compare(model, plain)
            graph = onnx.load(plain)
            # The quantiser infers shapes anew, and stumbles over those of the exporter.
            del graph.graph.value_info[:]
            onnx.save(graph, plain)
            quantize_dynamic(plain, small, weight_type=QuantType.QInt8)
        write_atomically(folder / INT8_FILE, small.read_bytes())
    return folder / INT8_FILE


def check_installed() -> None:
    """Looks for what `export` needs.

    Raises:
        DataError: a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime.quantization  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DataError(f"the int8 export needs {error.name}: {_NEEDS}") from None


def open_session(path: Path, threads: int | None) -> Run:
    """Opens an ONNX model on the CPU.

    Args:
        path: the file.
        threads: of one operator; None for all cores.

    Raises:
        DataError: onnxruntime is missing, or the file is damaged.
    """
    try:
        import onnxruntime
    except ImportError:
        raise DataError(f"the onnx backend needs onnxruntime: {_NEEDS}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the library raises its own, without a common base
        raise DataError(
            f"{path}: cannot be loaded ({str(error).splitlines()[0]}); export it again"
        ) from None

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(
            ["logits"], dict(zip(_INPUTS, (ids, mask), strict=True))
        )[0]
        return logits

    return run


def _to_onnx(model: Any, path: Path) -> None:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(
                input_ids=input_ids, attention_mask=attention_mask
            ).logits
            return logits

    ids = torch.ones((2, 16), dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    longest = int(model.config.max_position_embeddings)
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=longest)}
    torch.onnx.export(
        Logits(), (ids, mask), str(path), dynamo=True, verbose=False, opset_version=18,
        input_names=list(_INPUTS), output_names=["logits"], external_data=False,
        dynamic_shapes=dict.fromkeys(_INPUTS, shape),
    )  # fmt: skip


def _compare(model: Any, path: Path) -> None:
    import torch

    # Another batch and length than it was traced with, and padding.
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, size=(5, 13))
    mask = (np.arange(13) < np.array([[13], [1], [7], [12], [13]])).astype(np.int64)
    with torch.inference_mode():
        tensors = dict(zip(_INPUTS, map(torch.from_numpy, (ids, mask)), strict=True))
        expected = model(**tensors).logits.numpy()
    difference = float(np.abs(open_session(path, None)(ids, mask) - expected).max())
    if not difference <= _TOLERANCE:
        raise DataError(
            f"the exported model's logits are off by {difference:.2g}: this transformers and torch "
            "do not export it rightly; use the torch backend, or other versions"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's chatter."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
