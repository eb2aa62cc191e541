"""Builds csrc; everything static is in pyproject.toml.

The CPU module is built wherever there is a C++ compiler; where there is none, megagrow is installed
without it and copies with torch. The CUDA module is built where there is `nvcc`; MEGAGROW_CUDA=1
asks for it, MEGAGROW_CUDA=0 leaves it out. No GPU is needed to build it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
HEADERS = sorted(
    str(path) for pattern in ("*.hpp", "*.cuh", "*.inl") for path in CSRC.rglob(pattern)
)
# Sums and products are rounded one by one, as numpy does: the noise is then the same everywhere.
CXX_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
NVCC_FLAGS = [
    *("-std=c++17", "-O3", "-Xcompiler", "-fPIC"),
    *("-gencode", "arch=compute_90,code=sm_90", "-gencode", "arch=compute_90,code=compute_90"),
]
PROBE = "#include <Python.h>\n#include <thread>\nint main() { return 0; }\n"


class Build(build_ext):
    """Gives `.cu` files to nvcc, and builds both modules at once."""

    def finalize_options(self) -> None:
        """As setuptools does it, but in parallel unless a number was given."""
        super().finalize_options()
        self.parallel = self.parallel or True

    def build_extension(self, ext: Extension) -> None:
        """Builds one module."""
        cuda = [source for source in ext.sources if source.endswith(".cu")]
        if cuda:
            ext.sources = [source for source in ext.sources if source not in cuda]
            ext.extra_objects = [self._compile_cuda(source) for source in cuda]
        super().build_extension(ext)

    def _compile_cuda(self, source: str) -> str:
        target = Path(self.build_temp, source).with_suffix(".cu.o")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.spawn([_nvcc(), *NVCC_FLAGS, "-c", source, "-o", str(target)])
        return str(target)


def _nvcc() -> str:
    found = shutil.which("nvcc")
    if found is None:
        raise SystemExit("MEGAGROW_CUDA=1, but there is no nvcc on the path: add CUDA's bin folder")
    return found


def _cudart() -> tuple[str, str]:
    """Where nvcc keeps its headers and its static run-time library.

    Raises:
        SystemExit: the library is in none of the places where CUDA's packages put it.
    """
    # nvcc may be a script or a link: it knows best where it is.
    dry = subprocess.run(
        [_nvcc(), "--dryrun", "-E", "-x", "cu", "/dev/null"],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (line.partition("TOP=")[2].strip() for line in dry.stderr.splitlines())
    top = Path(next(filter(None, lines), str(Path(_nvcc()).resolve().parent.parent)))
    for folder in (top / "lib64", *sorted(top.glob("targets/*/lib")), top / "lib"):
        if (folder / "libcudart_static.a").exists():
            return str(top / "include"), str(folder)
    raise SystemExit(
        f"libcudart_static.a is not in {top}: install CUDA's runtime development package, or leave "
        "the CUDA module out with MEGAGROW_CUDA=0"
    )


def _compiler_fault() -> str:
    """Why no extension can be compiled here; empty if one can."""
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(PROBE, encoding="utf-8")
        include = sysconfig.get_paths()["include"]
        command = [*compiler.split(), "-std=c++17", f"-I{include}", "-fsyntax-only", str(source)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{compiler}: {error.strerror}"
    return result.stderr.strip()


def _wants_cuda() -> bool:
    choice = os.environ.get("MEGAGROW_CUDA", "")
    if choice not in {"", "0", "1"}:
        raise SystemExit(f"MEGAGROW_CUDA is {choice!r}: it must be 0, 1 or unset")
    if choice == "1":
        _nvcc()
    return choice == "1" or (choice == "" and shutil.which("nvcc") is not None)


def _extension(
    name: str, folder: str, patterns: tuple[str, ...], **options: list[str]
) -> Extension:
    import pybind11

    sources = sorted(str(path) for pattern in patterns for path in (CSRC / folder).glob(pattern))
    return Extension(
        name,
        sources,
        include_dirs=[pybind11.get_include(), *options.pop("include_dirs", [])],
        depends=HEADERS,
        extra_compile_args=CXX_FLAGS,
        extra_link_args=["-pthread"],
        language="c++",
        **options,
    )


def extensions() -> list[Extension]:
    """The modules that can be built here."""
    cuda = _wants_cuda()
    fault = _compiler_fault()
    if fault:
        if os.environ.get("MEGAGROW_CUDA") == "1":
            raise SystemExit(f"MEGAGROW_CUDA=1, but no C++ compiler with Python's headers: {fault}")
        print(
            "WARNING: csrc is not built, there is no C++ compiler with Python's headers:\n"
            f"{fault}\nmegagrow works without, and copies with torch.",
            file=sys.stderr,
        )
        return []
    found = [_extension("megagrow.kernels._cpu", "cpu", ("*.cpp",))]
    if cuda:
        include, library = _cudart()
        found.append(
            _extension(
                "megagrow.kernels._cuda",
                "cuda",
                ("*.cpp", "*.cu"),
                include_dirs=[include],
                library_dirs=[library],
                libraries=["cudart_static", "dl", "rt"],
            )
        )
    return found


setup(ext_modules=extensions(), cmdclass={"build_ext": Build})
