"""Plain data -> frozen dataclasses, strictly: every key known, every value of its field's type."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from megagrow.config.source import KeyPath, Source
from megagrow.errors import ConfigError

T = TypeVar("T")


def build(kind: type[T], data: Any, source: Source, path: KeyPath = ()) -> T:
    """An instance of dataclass `kind` from a mapping.

    Raises:
        ConfigError: an unknown key (the nearest valid one is named), a missing key, or a value of
            the wrong type; the message names file, line and key.
    """
    if not isinstance(data, dict):
        raise source.error(path, f"expected a mapping{_keys(kind)}, got {data!r}")
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise source.error((*path, str(key)), _unknown(str(key), list(known)))
    hints = get_type_hints(kind, include_extras=True)
    for name, entry in known.items():
        if name not in data and _required(entry):
            raise source.error(path, f"the key `{name}` is missing ({_describe(hints[name])})")
    return kind(
        **{key: convert(hints[key], value, source, (*path, key)) for key, value in data.items()}
    )


def _required(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _unknown(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean `{close[0]}`?" if close else f"valid keys: {', '.join(sorted(known))}"
    return f"unknown key; {hint}"


def _keys(kind: type) -> str:
    return " with the keys " + ", ".join(entry.name for entry in fields(kind))


def _describe(hint: Any) -> str:
    """What a value of type `hint` is called in an error."""
    if get_origin(hint) is Annotated:
        return "a number of tokens such as 20M" if get_args(hint)[0] is int else "a duration"
    if get_origin(hint) is Literal:
        return f"one of: {', '.join(map(str, get_args(hint)))}"
    if is_dataclass(hint) or get_origin(hint) is dict:
        return "a mapping"
    if get_origin(hint) is tuple:
        return "a list"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, str(hint))


def convert(hint: Any, value: Any, source: Source, path: KeyPath) -> Any:
    """`value` as the type `hint`; tuples from lists, quantities from text, never lossy."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _quantity(arguments[1], value, source, path)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        inner = next(option for option in arguments if option is not type(None))
        return convert(inner, value, source, path)
    if origin is Literal:
        return _choice(arguments, value, source, path)
    if origin is tuple:
        return _sequence(arguments[0], value, source, path)
    if origin is dict:
        return _mapping(arguments[1], value, source, path)
    if is_dataclass(hint):
        return build(hint, value, source, path)  # type: ignore[arg-type]
    return _scalar(hint, value, source, path)


def _quantity(parse: Callable[[object], Any], value: Any, source: Source, path: KeyPath) -> Any:
    try:
        return parse(value)
    except ConfigError as error:
        raise source.error(path, str(error)) from None


def _choice(options: tuple[Any, ...], value: Any, source: Source, path: KeyPath) -> Any:
    if value in options:
        return value
    close = get_close_matches(str(value), [str(option) for option in options], n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"one of: {', '.join(map(str, options))}"
    raise source.error(path, f"{value!r} is not a choice here; {hint}")


def _sequence(inner: Any, value: Any, source: Source, path: KeyPath) -> tuple[Any, ...]:
    if isinstance(value, str) and inner is str:  # one prefix needs no brackets
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise source.error(path, f"expected a list, got {value!r}")
    return tuple(convert(inner, item, source, (*path, i)) for i, item in enumerate(value))


def _mapping(inner: Any, value: Any, source: Source, path: KeyPath) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise source.error(path, f"expected a mapping, got {value!r}")
    return {str(k): convert(inner, item, source, (*path, str(k))) for k, item in value.items()}


def _scalar(hint: Any, value: Any, source: Source, path: KeyPath) -> Any:
    if hint is bool or not isinstance(value, bool):  # to Python, True is an int
        if hint is float:
            number = _number(value)
            if number is not None:
                return number
        elif isinstance(value, hint):
            return value
    raise source.error(path, f"expected {_describe(hint)}, got {value!r}")


def _number(value: Any) -> float | None:
    try:
        number = float(value)  # text too: YAML 1.1 reads `3e-4` as text
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
