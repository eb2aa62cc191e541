"""Standard normal numbers as a pure function of a seed and a counter, in numpy.

Counter c takes number `c % 4` of block `c // 4` of Philox4x32-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011), keyed by the seed; two of its 32-bit integers make two
normals (Box and Muller, 1958). Logarithm, sine and cosine are polynomials spelled out in float32
additions, multiplications, one division and one square root, each rounded to nearest: csrc does
the same operations in the same order, so the bits are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Words = NDArray[np.uint32]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_BLOCK = 4


def philox(seed: int, block: NDArray[np.uint64]) -> tuple[Words, Words, Words, Words]:
    """The four words of each block: Philox4x32-10 of counter `(block, 0)` and key `seed`."""
    words = [block & _LOW, block >> _HALF, np.zeros_like(block), np.zeros_like(block)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(_ROUNDS):
        first, second = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = [
            (second >> _HALF) ^ words[1] ^ np.uint64(key[0]),
            second & _LOW,
            (first >> _HALF) ^ words[3] ^ np.uint64(key[1]),
            first & _LOW,
        ]
        key = [(part + step) & 0xFFFFFFFF for part, step in zip(key, _WEYL, strict=True)]
    one, two, three, four = (word.astype(np.uint32) for word in words)
    return one, two, three, four


def normals(seed: int, start: int, count: int) -> Floats:
    """The normals of the counters `start` to `start + count - 1`, which wrap at 2^64.

    Args:
        seed: key of the generator, from 0 to 2^64 - 1.
        start: first counter, in the same range.
        count: how many.
    """
    lane = start % _BLOCK
    blocks = (lane + count + _BLOCK - 1) // _BLOCK
    # Unsigned sums wrap; a block that begins past 2^64 is block 0 again.
    block = np.uint64(start // _BLOCK) + np.arange(blocks, dtype=np.uint64)
    one, two, three, four = philox(seed, block & np.uint64(2**62 - 1))
    found = np.stack([*_box_muller(one, two), *_box_muller(three, four)], axis=1)
    return found.reshape(-1)[lane : lane + count]


def _box_muller(radius: Words, angle: Words) -> tuple[Floats, Floats]:
    """`sqrt(-2 ln u) cos` and the same with sin; u = radius / 2^32 + 2^-33 is never 0."""
    uniform = radius.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
    length = np.sqrt(np.float32(-2.0) * _log(uniform))
    sine, cosine = _sine_cosine(angle)
    return length * cosine, length * sine


def _log(x: Floats) -> Floats:
    """Natural logarithm of normal positive numbers: FreeBSD's e_logf.c, below 1 ulp."""
    bits = x.view(np.int32)
    exponent = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    f = (bits - (exponent << np.int32(23))).view(np.float32) - np.float32(1.0)
    k = exponent.astype(np.float32)
    s = f / (np.float32(2.0) + f)
    z = s * s
    w = z * z
    odd = w * (np.float32(0.40000972152) + w * np.float32(0.24279078841))
    even = z * (np.float32(0.66666662693) + w * np.float32(0.28498786688))
    half = np.float32(0.5) * f * f
    tail = s * (half + (even + odd)) + k * np.float32(9.0580006145e-06)
    result: Floats = ((tail - half) + f) + k * np.float32(6.9313812256e-01)
    return result


def _sine_cosine(angle: Words) -> tuple[Floats, Floats]:
    """Sine and cosine of `angle / 2^32` turns: Cephes' sinf.c on an eighth of a turn."""
    quadrant = (angle + np.uint32(0x20000000)) >> np.uint32(30)
    rest = (angle - (quadrant << np.uint32(30))).view(np.int32).astype(np.float32)
    x = rest * np.float32(1.4629180792671596e-09)  # pi / 2 / 2^30
    z = x * x
    sine = (np.float32(-1.9515295891e-4) * z + np.float32(8.3321608736e-3)) * z
    sine = (sine - np.float32(1.6666654611e-1)) * z * x + x
    cosine = (np.float32(2.443315711809948e-5) * z - np.float32(1.388731625493765e-3)) * z
    cosine = (cosine + np.float32(4.166664568298827e-2)) * z * z
    cosine = (cosine - np.float32(0.5) * z) + np.float32(1.0)
    swap = (quadrant & 1) == 1
    sine, cosine = np.where(swap, cosine, sine), np.where(swap, sine, cosine)
    sine = np.where(quadrant >= 2, -sine, sine)
    cosine = np.where((quadrant == 1) | (quadrant == 2), -cosine, cosine)
    return sine, cosine
