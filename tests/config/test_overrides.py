from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config.overrides import apply
from megagrow.config.source import Source
from megagrow.errors import ConfigError

keys = st.text("abcdefgh_", min_size=1, max_size=6)
values = st.one_of(
    st.integers(-1000, 1000), st.booleans(), st.sampled_from(["text", "20M", "a b"]),
    st.lists(st.integers(0, 9), max_size=3),
)  # fmt: skip
trees = st.recursive(
    st.dictionaries(keys, values, max_size=3),
    lambda inner: st.dictionaries(keys, st.one_of(values, inner), max_size=3),
    max_leaves=6,
)


def source(data: dict[str, Any]) -> Source:
    return Source(file="run.yaml", data=data, lines={})


def get(data: Any, path: list[str]) -> Any:
    for part in path:
        data = data[part]
    return data


def reachable(data: Any, path: list[str]) -> bool:
    """Whether everything above the last key is a mapping, or not there yet."""
    for part in path[:-1]:
        if part not in data:
            return True
        data = data[part]
        if not isinstance(data, dict):
            return False
    return True


def as_yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(trees, st.lists(keys, min_size=1, max_size=3), values)
def test_sets_exactly_one_value(data: dict[str, Any], path: list[str], value: Any) -> None:
    before = copy.deepcopy(data)
    text = f"{'.'.join(path)}={as_yaml(value)}"
    if not reachable(data, path):
        with pytest.raises(ConfigError, match=r"holds no keys|no item"):
            apply(source(data), [text])
        assert data == before
        return
    changed = apply(source(data), [text]).data
    assert data == before
    assert get(changed, path) == value
    outside = {key: item for key, item in changed.items() if key != path[0]}
    assert outside == {key: item for key, item in data.items() if key != path[0]}


@given(trees, keys, values, values)
def test_the_last_one_counts(data: dict[str, Any], key: str, first: Any, second: Any) -> None:
    texts = [f"{key}={as_yaml(first)}", f"{key}={as_yaml(second)}"]
    assert apply(source(data), texts).data[key] == second


def test_list_items_by_index_and_by_name() -> None:
    data = {"stages": [{"name": "a", "layers": 1}, {"name": "b", "layers": 2}]}
    changed = apply(source(data), ["stages.b.layers=3", "stages.0.layers=9"]).data
    assert [stage["layers"] for stage in changed["stages"]] == [9, 3]


def test_null_removes_a_key() -> None:
    assert apply(source({"a": {"b": 1, "c": 2}}), ["a.b=null"]).data == {"a": {"c": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden_size", "write key.path=value, for example model.hidden_size=512"),
        ("=5", "write key.path=value"),
        ("a..b=5", "write key.path=value"),
        ("a=[1", "the value is not YAML"),
        ("a.b=1", "`a` holds no keys"),
        ("stages.larg.layers=1", "no item 'larg'; did you mean `large`?"),
        ("stages.7.layers=1", "no item '7'; there are 2 items, from 0"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    data = {"a": 1, "stages": [{"name": "small"}, {"name": "large"}]}
    with pytest.raises(ConfigError) as error:
        apply(source(data), [text])
    assert str(error.value).startswith(f"override {text!r}: ")
    assert message in str(error.value)
