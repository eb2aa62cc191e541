from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.kernels.normal import normals, philox

ULP = 4.0


def test_philox_known_answer() -> None:
    """That of Random123 for key and counter 0."""
    found = philox(0, np.zeros(1, dtype=np.uint64))
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert [int(word[0]) for word in found] == words


def slow_philox(seed: int, block: int) -> list[int]:
    """Straight from the paper, in Python integers."""
    words, key = [block % 2**32, block >> 32, 0, 0], [seed % 2**32, seed >> 32]
    for _ in range(10):
        one, two = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = [
            (two >> 32) ^ words[1] ^ key[0],
            two % 2**32,
            (one >> 32) ^ words[3] ^ key[1],
            one % 2**32,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return words


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**62 - 1))
def test_philox_for_any_key_and_counter(seed: int, block: int) -> None:
    found = philox(seed, np.array([block], dtype=np.uint64))
    assert [int(word[0]) for word in found] == slow_philox(seed, block)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 40), st.integers(0, 40))
def test_a_stretch_is_part_of_any_longer_one(seed: int, start: int, skip: int, count: int) -> None:
    whole = normals(seed, start, skip + count)
    part = normals(seed, (start + skip) % 2**64, count)
    assert np.array_equal(whole[skip:], part)


def test_close_to_the_exact_formula() -> None:
    count = 200_000
    words = np.stack(philox(11, np.arange(count // 4, dtype=np.uint64)), axis=1)
    # By definition the uniform number is one of float32.
    uniform = words[:, ::2].astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
    radius = np.sqrt(-2 * np.log(uniform.astype(np.float64)))
    angle = words[:, 1::2].astype(np.float64) * (2 * np.pi * 2.0**-32)
    exact = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2).reshape(-1)
    found = normals(11, 0, count)
    # In units of the last place of the radius: near the axes a cosine is small, its error is not.
    place = np.spacing(np.repeat(radius.reshape(-1), 2).astype(np.float32))
    assert np.max(np.abs(found - exact) / place) < ULP


def test_is_standard_normal() -> None:
    drawn = normals(1234, 17, 2_000_000).astype(np.float64)
    assert drawn.mean() == pytest.approx(0, abs=3e-3)
    assert drawn.std() == pytest.approx(1, abs=3e-3)
    assert (drawn**4).mean() == pytest.approx(3, abs=0.03)
    assert (np.abs(drawn) > 1.959964).mean() == pytest.approx(0.05, abs=1e-3)
    assert np.corrcoef(drawn[:-1], drawn[1:])[0, 1] == pytest.approx(0, abs=3e-3)
    assert np.corrcoef(drawn[:-1] ** 2, drawn[1:] ** 2)[0, 1] == pytest.approx(0, abs=3e-3)
    assert np.isfinite(drawn).all()


def test_seeds_are_independent() -> None:
    assert not np.any(normals(1, 0, 1000) == normals(2, 0, 1000))
