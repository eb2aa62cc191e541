// The CUDA module. The table is in device memory already: torch's allocators own it, and keep it
// until the kernel queued here is done. megagrow/kernels checks it before.
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "launch.hpp"

namespace py = pybind11;
using namespace megagrow;

namespace {

DType dtype(int number) {
    if (number < 0 || number >= dtype_count) throw std::invalid_argument("no such dtype");
    return static_cast<DType>(number);
}

cuda::Target target(std::uint64_t stream, int device) {
    return cuda::Target{reinterpret_cast<void*>(stream), device};
}

void copy(std::uint64_t table, std::int64_t runs, std::int64_t members, bool scaled,
          std::int64_t tiles, int from, int to, std::uint64_t stream, int device) {
    const cuda::Table columns{reinterpret_cast<const void*>(table), runs, members, tiles};
    const DType source = dtype(from);
    const DType destination = dtype(to);
    const py::gil_scoped_release released;
    cuda::copy_segments(columns, scaled, source, destination, target(stream, device));
}

void combine(std::uint64_t table, std::int64_t runs, std::int64_t members, std::int64_t tiles,
             std::uint64_t seed, int from, int to, std::uint64_t stream, int device) {
    const cuda::Table columns{reinterpret_cast<const void*>(table), runs, members, tiles};
    const DType source = dtype(from);
    const DType destination = dtype(to);
    const py::gil_scoped_release released;
    cuda::combine_segments(columns, seed, source, destination, target(stream, device));
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
    module.doc() = "csrc on CUDA devices; used through megagrow.kernels.";
    module.attr("TILE") = cuda::tile;
    module.def("copy", &copy, py::arg("table"), py::arg("runs"), py::arg("members"),
               py::arg("scaled"), py::arg("tiles"), py::arg("from_dtype"), py::arg("to_dtype"),
               py::arg("stream"), py::arg("device"));
    module.def("combine", &combine, py::arg("table"), py::arg("runs"), py::arg("members"),
               py::arg("tiles"), py::arg("seed"), py::arg("from_dtype"), py::arg("to_dtype"),
               py::arg("stream"), py::arg("device"));
}
