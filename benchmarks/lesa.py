"""What predicting layers with LESA costs, and what the Gram matrix saves over an SVD.

    python benchmarks/lesa.py [--quick] [--threads N] [--parts svd model] [--kinds KIND ...]
                              [--rows N] [--epochs N] [--svd-kind KIND] [--save NAME]

svd: `decompose` against what the authors' notebook does, `torch.linalg.svd(torch.cat(...))` in
float32, on one kind of matrix of Llama-3-8B with random weights, by default the smallest: an SVD of
the others takes too long on a CPU. They take turns in one process, in an order that is reversed
every round; a ratio is taken in every round. Before anything is timed, singular values are compared
and every layer is put together again: the run fails if they differ.

model: the seven kinds of matrices of Llama-3-8B (32 layers, random weights in bfloat16), one shape
at a time: seconds of summing the Gram matrix, of its eigenvectors, of V and of training a predictor
with the notebook's settings, and the peak memory beyond the weights. Processor seconds, of all
threads, say more where other programs run. Nothing is extrapolated: what
was left out or cut short is in the result (`kinds_left_out`, `rows_trained` of `rows`, `epochs`).
Gate and up have 14336 rows, so a Gram matrix of 1.6 GB whose eigenvectors take hours on a few
cores. On a CPU, k and v alone are measured by default, and training is cut to one epoch; on a GPU
nothing is.

The last line is one JSON object; the exit code is 0 if every target is met.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from _harness import Ratio, finish, print_ratios, print_table, ratio
from torch import Tensor

from megagrow.growth.lesa.decomposition import Decomposition, decompose
from megagrow.growth.lesa.predictor import fit
from megagrow.growth.lesa.settings import PRESETS
from megagrow.runtime import device

LAYERS = 32

KINDS = {"k,v": (1024, 4096), "q,o": (4096, 4096), "down": (4096, 14336), "gate,up": (14336, 4096)}
"""[out, in] of Llama-3-8B; what is named together has one shape and is measured once."""

QUICK_SCALE = 32
"""--quick divides widths by this."""

SPEED = 5.0
"""Target: times as fast as the SVD."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    _warm_up()
    ratios: dict[str, Ratio] = {}
    details: dict[str, Any] = {"threads": options.threads, "layers": LAYERS, "quick": options.quick}
    if "svd" in options.parts:
        ratios, details["svd"] = _against_svd(options)
        print_ratios(ratios)
    if "model" in options.parts:
        details["kinds_left_out"] = [kind for kind in KINDS if kind not in options.kinds]
        details["model"] = {kind: _measure(kind, options) for kind in options.kinds}
        _print_model(details["model"])
    return finish("lesa", ratios, details, options.save)


def _warm_up() -> None:
    """What torch loads at the first use of a solver or an optimizer is not measured."""
    v = decompose([torch.eye(2, device=device.device())] * 3).v
    fit(v, replace(PRESETS["notebook"], epochs=1))


def _against_svd(options: argparse.Namespace) -> tuple[dict[str, Ratio], dict[str, Any]]:
    """Ratios of speed and memory, and the figures behind them."""
    out, width = _size(options.svd_kind, options)
    matrices = _weights((out, width), torch.float32)
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: decompose(matrices),
        "svd": lambda: torch.linalg.svd(torch.cat(matrices, dim=1), full_matrices=False),
    }
    errors = _compare(matrices)
    measured: dict[str, list[tuple[float, float, int]]] = {name: [] for name in contenders}
    for turn in range(options.rounds):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            measured[name].append(_timed(contenders[name]))
    pairs = list(zip(measured["ours"], measured["svd"], strict=True))
    target = None if options.quick else SPEED
    ratios = {
        "svd/speed": ratio([svd[0] / ours[0] for ours, svd in pairs], at_least=target),
        "svd/peak memory": ratio([ours[2] / max(svd[2], 1) for ours, svd in pairs]),
    }
    if not device.is_cuda():
        ratios["svd/speed by CPU time"] = ratio([svd[1] / ours[1] for ours, svd in pairs])
    details = {
        "matrix": [out, LAYERS * width],
        "rounds": options.rounds,
        **{
            unit: {name: [round(each[at], 3) for each in found] for name, found in measured.items()}
            for at, unit in enumerate(("seconds", "cpu_seconds", "peak_bytes"))
        },
        "round_trip_error": errors,
    }
    return ratios, details


def _compare(matrices: Sequence[Tensor]) -> dict[str, float]:
    """Largest relative error with which each puts a layer together again.

    Raises:
        RuntimeError: it is not small, or the singular values differ.
    """
    found = decompose(matrices)
    u, sigma, vt = torch.linalg.svd(torch.cat(list(matrices), dim=1), full_matrices=False)
    parts = vt.split(matrices[0].shape[1], dim=1)
    theirs = Decomposition(u=u, sigma=sigma, v=torch.stack(parts))
    del vt, parts
    if not torch.allclose(found.sigma, sigma, rtol=1e-4, atol=0):
        raise RuntimeError("singular values differ from those of torch.linalg.svd")
    errors = {
        name: max(
            float((each.compose(v) - matrix).norm() / matrix.norm())
            for matrix, v in zip(matrices, each.v, strict=True)
        )
        for name, each in (("ours", found), ("svd", theirs))
    }
    if errors["ours"] > 1e-5:
        raise RuntimeError(f"a layer comes back with an error of {errors['ours']:.1e}")
    return {name: float(f"{error:.2g}") for name, error in errors.items()}


def _measure(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of one shape of matrix."""
    out, width = _size(kind, options)
    print(f"{kind}: {LAYERS} matrices of {out} x {width}", file=sys.stderr)
    matrices = _weights((out, width), torch.bfloat16)
    held = device.memory_bytes()
    device.reset_memory_peak()
    marks, cpu = [_now()], time.process_time()

    def mark(share: float) -> None:
        if round(3 * share, 6) in (1, 2, 3):  # all Gram matrices, eigenvectors, V
            marks.append(_now())

    parts = decompose(matrices, mark)
    decomposition_cpu = time.process_time() - cpu
    decomposition_peak = device.memory_peak_bytes() - held
    device.reset_memory_peak()
    settings = PRESETS["notebook"]
    if options.epochs:
        settings = replace(settings, epochs=options.epochs)
    rows = parts.v[:, : options.rows] if options.rows else parts.v
    begun, cpu = _now(), time.process_time()
    fitted = fit(rows.contiguous(), settings)
    training, training_cpu = _now() - begun, time.process_time() - cpu
    gram, eigenvectors, v = (after - before for before, after in itertools.pairwise(marks))
    return {
        "matrix": [out, width],
        "gram_seconds": round(gram, 2),
        "eigenvectors_seconds": round(eigenvectors, 2),
        "v_seconds": round(v, 2),
        "training_seconds": round(training, 2),
        "decomposition_cpu_seconds": round(decomposition_cpu, 2),
        "training_cpu_seconds": round(training_cpu, 2),
        "rows": parts.v.shape[1],
        "rows_trained": rows.shape[1],
        "epochs": settings.epochs,
        "epochs_of_the_notebook": PRESETS["notebook"].epochs,
        "decomposition_peak_bytes": decomposition_peak,
        "training_peak_bytes": device.memory_peak_bytes() - held,
        "final_loss": fitted.losses[-1],
    }


def _print_model(measured: dict[str, dict[str, Any]]) -> None:
    rows = [
        (
            kind,
            f"{found['matrix'][0]} x {found['matrix'][1]}",
            f"{found['gram_seconds']:.1f}",
            f"{found['eigenvectors_seconds']:.1f}",
            f"{found['v_seconds']:.1f}",
            f"{found['training_seconds']:.1f}",
            f"{found['decomposition_cpu_seconds'] + found['training_cpu_seconds']:.1f}",
            f"{found['rows_trained']} of {found['rows']}",
            f"{found['epochs']} of {found['epochs_of_the_notebook']}",
            f"{found['decomposition_peak_bytes'] / 2**30:.2f}",
            f"{found['training_peak_bytes'] / 2**30:.2f}",
        )
        for kind, found in measured.items()
    ]
    head = ("kind", "matrix", "Gram s", "eigen s", "V s", "training s", "CPU s", "rows", "epochs")
    peaks = ("peak GiB", "training GiB")
    print_table("Kinds of Llama-3-8B; memory beyond the weights", head + peaks, rows)


def _size(kind: str, options: argparse.Namespace) -> tuple[int, int]:
    """[out, in] of a kind of matrix."""
    out, width = KINDS[kind]
    return (out // QUICK_SCALE, width // QUICK_SCALE) if options.quick else (out, width)


def _weights(shape: tuple[int, int], dtype: torch.dtype) -> list[Tensor]:
    """Random weights of all layers."""
    where = device.device()
    generator = torch.Generator(where).manual_seed(0)
    return [
        torch.randn(shape, generator=generator, device=where, dtype=torch.float32)
        .mul_(0.02)
        .to(dtype)
        for _ in range(LAYERS)
    ]


def _timed(work: Callable[[], object]) -> tuple[float, float, int]:
    """Seconds, processor seconds of all threads, and peak memory beyond what was in use."""
    held = device.memory_bytes()
    device.reset_memory_peak()
    begun, cpu = _now(), time.process_time()
    work()
    ended = _now()
    return ended - begun, time.process_time() - cpu, device.memory_peak_bytes() - held


def _now() -> float:
    if device.is_cuda():
        torch.cuda.synchronize()
    return time.perf_counter()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    cuda = device.is_cuda()
    parser = argparse.ArgumentParser(description="What predicting layers with LESA costs.")
    parser.add_argument("--quick", action="store_true", help="small, no targets: does it run?")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parts = ("svd", "model")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument(
        "--kinds", nargs="+", choices=tuple(KINDS), help="default: all on a GPU, k,v on a CPU"
    )
    parser.add_argument(
        "--rows", type=int, default=0, help="rows of V that training is cut to; 0: all"
    )
    parser.add_argument(
        "--epochs", type=int, help="default: the notebook's on a GPU (0), 1 on a CPU"
    )
    parser.add_argument(
        "--svd-kind", choices=tuple(KINDS), default="k,v", help="what the SVD is taken of"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each with the SVD")
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    options = parser.parse_args(arguments)
    if options.kinds is None:
        options.kinds = list(KINDS) if cuda or options.quick else ["k,v"]
    if options.epochs is None:
        options.epochs = 0 if cuda else 1
    return options


if __name__ == "__main__":
    sys.exit(main())
