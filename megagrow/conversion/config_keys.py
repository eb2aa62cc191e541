"""Reading a config.json so that nothing in it that changes the model goes unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megagrow.errors import CheckpointError

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Special tokens; no part of the model, but of what is exported again."""

_HARMLESS = frozenset({
    "_attn_implementation_autoset", "_name_or_path", "_num_labels", "architectures",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "do_sample", "dtype",
    "embd_layer", "finetuning_task", "gradient_checkpointing", "id2label",
    "initializer_range", "is_decoder", "label2id", "language", "length_penalty", "max_length",
    "model_type", "n_ctx", "num_return_sequences", "output_past", "prefix", "pretraining_tp",
    "problem_type", "repetition_penalty", "return_dict", "task_specific_params",
    "temperature", "tokenizer_class", "top_k", "top_p", "torch_dtype", "transformers_version",
    "unsloth_fixed", "unsloth_version", "use_cache", "use_return_dict", *TOKEN_IDS,
})  # fmt: skip
"""Keys that change no logit."""

_NO_DEFAULT: Any = object()


class ConfigKeys:
    """A config.json whose keys are asked for one by one; what nobody asked for is refused.

    Args:
        data: its content.
        where: its path, for messages.
    """

    def __init__(self, data: Mapping[str, Any], where: Path) -> None:
        self._data = data
        self._where = where
        self._asked: set[str] = set()

    def whole(self, key: str, default: Any = _NO_DEFAULT) -> int:
        """A positive whole number; a missing or null one is the default.

        Raises:
            CheckpointError: it is something else, or missing without a default.
        """
        value = self._get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(key, f"is {value!r}, and must be a whole number above 0")
        return value

    def wholes(self, key: str, count: int) -> tuple[int, ...]:
        """A list of positive whole numbers.

        Raises:
            CheckpointError: it is something else, missing, or not `count` long.
        """
        values = self._get(key, _NO_DEFAULT)
        if not isinstance(values, list) or len(values) != count:
            raise self.error(key, f"is {values!r}, and must be a list of {count}")
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise self.error(key, f"has {value!r}, and must have whole numbers above 0")
        return tuple(values)

    def number(self, key: str, default: Any = _NO_DEFAULT) -> float:
        """A number; a missing or null one is the default.

        Raises:
            CheckpointError: it is something else, or missing without a default.
        """
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(key, f"is {value!r}, and must be a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false; a missing or null one is the default."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"is {value!r}, and must be true or false")
        return value

    def value(self, key: str, default: Any = None) -> Any:
        """Anything; the default where the key is missing."""
        self._asked.add(key)
        return self._data.get(key, default)

    def only(self, key: str, *allowed: Any) -> None:
        """Refuses a value other than these; a missing or null one is the first."""
        value = self._get(key, allowed[0])
        if value not in allowed:
            listed = " or ".join(repr(each) for each in allowed)
            raise self.error(key, f"is {value!r}; only {listed} can be converted")

    def ignore(self, *keys: str) -> None:
        """Keys that do not matter here."""
        self._asked.update(keys)

    def finish(self) -> None:
        """Refuses keys that nobody asked for, unless they are null, false or known to be harmless.

        Raises:
            CheckpointError: there is one.
        """
        for key, value in self._data.items():
            if key in self._asked or key in _HARMLESS or value is None or value is False:
                continue
            raise self.error(
                key, f"is {value!r}, and what it does to the model is not known here. If it does "
                "nothing, remove it from that file"
            )  # fmt: skip

    def error(self, key: str, message: str) -> CheckpointError:
        """An error that names the file and the key."""
        return CheckpointError(f"{self._where}: {key} {message}.")

    def _get(self, key: str, default: Any) -> Any:
        value = self.value(key)
        if value is None and default is _NO_DEFAULT:
            raise self.error(key, "is missing; without it the model is not known")
        return default if value is None else value
