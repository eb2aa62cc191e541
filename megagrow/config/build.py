"""Plain data -> frozen dataclasses, strictly: every key known, every value of its field's type."""

from __future__ import annotations

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
        raise source.error(path, f"expected a mapping with the keys of {kind.__name__}, got {data!r}")
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise source.error((*path, str(key)), _unknown(str(key), list(known)))
    hints = get_type_hints(kind, include_extras=True)
    values = {key: convert(hints[key], value, source, (*path, key)) for key, value in data.items()}
    for name, entry in known.items():
        if name not in values and _required(entry):
            raise source.error(path, f"the key `{name}` is missing{_purpose(kind, name)}")
    return kind(**values)


def _required(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _unknown(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean `{close[0]}`?" if close else f"valid keys: {', '.join(sorted(known))}"
    return f"unknown key; {hint}"


def _purpose(kind: type, name: str) -> str:
    hint = get_type_hints(kind).get(name)
    return f" ({getattr(hint, '__name__', hint)})"


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
    if hint is float and not isinstance(value, bool):
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, str):  # YAML 1.1 reads `3e-4` as text
            try:
                return float(value)
            except ValueError:
                pass
    elif hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif hint in (str, bool) and isinstance(value, hint):
        return value
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    raise source.error(path, f"expected {names.get(hint, hint)}, got {value!r}")
