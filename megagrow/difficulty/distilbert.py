"""A transformer classifier of Hugging Face's library as a scorer: the expected level of a text.

DistilBERT (Sanh et al. 2019), as in CGLS (arXiv 2506.11389), or another model that
`AutoModelForSequenceClassification` loads without code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from megagrow.difficulty.model_files import fingerprints, is_hub_id, model_folder, weight_files
from megagrow.difficulty.segments import digest_of
from megagrow.errors import DataError
from megagrow.tokenization.formats.codec import first_line

Backend = Literal["torch", "onnx"]
Run = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]

# Of a text, so many characters for each id that is kept are tokenized: English has 4 to 5.
_CHARACTERS_PER_ID = 16
_LONGEST = 512


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DistilBert:
    """score = sum of k * p(level k); make one with `open_model`.

    Scores of the same text differ in their last digits with the batch it came in, as the kernels
    add up in another order, and between float32 on CPU and bfloat16 on GPU.
    """

    source: str
    """Folder or hub id of the model."""

    levels: tuple[str, ...]
    """Names of the levels, easiest first: the model's labels in the order of their ids."""

    max_length: int
    """Ids of a text that are read, [CLS] and [SEP] included."""

    batch_size: int
    """Texts in a batch."""

    backend: Backend
    """`torch`, or `onnx` for the int8 model on onnxruntime."""

    digest: str
    """sha256 of everything that decides a score but the device and its rounding."""

    tokenizer: Any
    """The model's own tokenizer."""

    run: Run
    """Ids and attention mask, both [texts, length], to logits, [texts, levels]."""

    kind: ClassVar[str] = "distilbert"
    unit: ClassVar[str] = "level"
    tokenizer_hash: ClassVar[str | None] = None

    def score(self, texts: Sequence[str], tokens: object = None) -> NDArray[np.float32]:
        """Expected level of each text, from 0 to the number of levels less one; shape [documents].

        Raises:
            DataError: the model gives something that is no number.
        """
        probabilities = self.probabilities(texts)
        return (probabilities @ np.arange(len(self.levels))).astype(np.float32)

    def probabilities(
        self, texts: Sequence[str], progress: Callable[[int], object] | None = None
    ) -> NDArray[np.float64]:
        """Probability of each level, shape [documents, levels].

        Args:
            texts: documents.
            progress: told after each batch how many texts it had.

        Raises:
            DataError: the model gives something that is no number.
        """
        logits = np.zeros((len(texts), len(self.levels)))
        ids = encode(self.tokenizer, texts, self.max_length)
        # Texts of like length share a batch, so that little of it is padding.
        order = np.argsort([len(each) for each in ids], kind="stable")
        for start in range(0, len(texts), self.batch_size):
            batch = order[start : start + self.batch_size]
            padded, mask = pad([ids[index] for index in batch], self.tokenizer.pad_token_id or 0)
            logits[batch] = self.run(padded, mask)
            if progress is not None:
                progress(batch.size)
        if not np.isfinite(logits).all():
            raise DataError(
                f"{self.source}: the model's output is not finite; its weights are damaged, or its "
                "training diverged: train it again with a lower --learning-rate"
            )
        powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def save(self, folder: Path) -> dict[str, Any]:
        """Says where the model is; its weights stay there."""
        settings = {"max_length": self.max_length, "backend": self.backend}
        if is_hub_id(self.source):
            return {"hub": self.source, **settings}
        model = Path(self.source).resolve()
        inside = model.is_relative_to(folder.resolve())
        return {
            "folder": str(model.relative_to(folder.resolve()) if inside else model), **settings,
        }  # fmt: skip


def open_model(
    source: str | Path,
    *,
    max_length: int | None = None,
    batch_size: int = 32,
    device: str = "auto",
    backend: Backend = "torch",
    threads: int | None = None,
) -> DistilBert:
    """Opens a classifier from a folder or from the Hugging Face hub.

    Args:
        source: folder or hub id; its weights must be safetensors.
        max_length: ids of a text to read; None for 512, or all the model can where that is less.
        batch_size: texts in a batch.
        device: `auto` for CUDA where there is one, or a torch device. bfloat16 on CUDA.
        backend: `torch`, or `onnx` for the folder's int8 model on onnxruntime.
        threads: CPU threads of the whole process to use; None leaves them as they are.

    Raises:
        DataError: a package is missing, or the model is, or it is no trained classifier.
    """
    folder = model_folder(str(source))
    weight_files(folder, backend)  # says what is missing before the slow imports
    with quiet_transformers() as transformers:
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder}: {first_line(error)}; is this a classifier?") from None
        longest = getattr(config, "max_position_embeddings", None) or max_length or _LONGEST
        if max_length is None:
            max_length = min(longest, _LONGEST)
        if not 3 <= max_length <= longest:
            raise DataError(f"{source}: reads from 3 to {longest} ids, not {max_length}")
        levels = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
        if len(levels) < 2:
            raise DataError(f"{source}: has {len(levels)} label; a classifier of levels has more")
        run = (_onnx_run if backend == "onnx" else _torch_run)(folder, device, threads)
    description = {
        "kind": DistilBert.kind, "version": 1, "backend": backend, "max_length": max_length,
        "characters": _CHARACTERS_PER_ID * max_length, "files": fingerprints(folder, backend),
    }  # fmt: skip
    return DistilBert(
        source=str(source),
        levels=levels,
        max_length=max_length,
        batch_size=batch_size,
        backend=backend,
        digest=digest_of(description),
        tokenizer=tokenizer,
        run=run,
    )


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Ids of each text, cut to `max_length`."""
    if not texts:
        return []
    heads = [text[: _CHARACTERS_PER_ID * max_length] for text in texts]
    ids: list[list[int]] = tokenizer(heads, truncation=True, max_length=max_length)["input_ids"]
    return ids


def pad(ids: Sequence[Sequence[int]], value: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids filled up with `value` to the longest, and the mask of what is text; [texts, length]."""
    lengths = np.array([len(each) for each in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(mask.shape, value, dtype=np.int64)
    padded[mask] = np.concatenate([np.asarray(each, dtype=np.int64) for each in ids])
    return padded, mask.astype(np.int64)


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """The transformers library without its progress bars and advice; needs torch, too.

    Raises:
        DataError: one of them is not installed.
    """
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise DataError(
            f"classifiers need {error.name}, which is not installed: "
            "pip install 'megagrow[classifier]'"
        ) from None
    settings = transformers.utils.logging
    shown, verbosity = settings.is_progress_bar_enabled(), settings.get_verbosity()
    settings.disable_progress_bar()
    settings.set_verbosity_error()
    try:
        yield transformers
    finally:
        settings.set_verbosity(verbosity)
        if shown:
            settings.enable_progress_bar()


def _torch_run(folder: Path, device: str, threads: int | None) -> Run:
    import torch
    import transformers

    if threads is not None:
        torch.set_num_threads(threads)
    where = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    )
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    try:
        model, loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, dtype=dtype,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{folder}: cannot be loaded: {first_line(error)}") from None
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise DataError(f"{folder}: its weights are damaged ({first_line(error)})") from None
    if loaded["missing_keys"] or loaded["mismatched_keys"]:
        lacking = sorted(map(str, loaded["missing_keys"] or loaded["mismatched_keys"]))
        raise DataError(
            f"{folder}: has no weights for {', '.join(lacking[:3])}: it is no trained classifier; "
            "train one with tools/train_difficulty_classifier.py --init"
        )
    model.to(where).eval()

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            tensors = (torch.from_numpy(each).to(where) for each in (ids, mask))
            logits = model(
                **dict(zip(("input_ids", "attention_mask"), tensors, strict=True))
            ).logits
            values: NDArray[np.float32] = logits.float().cpu().numpy()
        return values

    return run


def _onnx_run(folder: Path, device: str, threads: int | None) -> Run:
    from megagrow.difficulty.onnx_int8 import open_session

    if device not in ("auto", "cpu"):
        raise DataError(f"the onnx backend is int8 on the CPU, not on {device}: use backend torch")
    return open_session(weight_files(folder, "onnx")[0], threads)
