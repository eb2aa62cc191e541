// The CPU module. Arrays come from numpy and are only read; addresses are those of tensors that the
// caller holds meanwhile. megagrow/kernels checks the tables before.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "operations.hpp"
#include "stream_bound.hpp"

namespace py = pybind11;
using namespace megagrow;

namespace {

template <class T>
using Column = py::array_t<T, py::array::c_style>;

template <class T>
const T* column(const Column<T>& values, py::ssize_t length, const char* name) {
    if (values.ndim() != 1 || values.size() != length) {
        throw std::invalid_argument(std::string(name) + " has the wrong length");
    }
    return values.data();
}

DType dtype(int number) {
    if (number < 0 || number >= dtype_count) throw std::invalid_argument("no such dtype");
    return static_cast<DType>(number);
}

void copy(const Column<std::uint64_t>& source, const Column<std::int64_t>& length,
          const Column<std::int64_t>& first, const Column<std::uint64_t>& destination,
          const std::optional<Column<float>>& scale, int from, int to, int threads,
          const std::string& instructions, std::optional<bool> streamed) {
    const py::ssize_t count = source.size();
    const cpu::CopyTable table{
        count,
        source.data(),
        column(length, count, "length"),
        column(first, count + 1, "first"),
        destination.data(),
        scale ? column(*scale, destination.size(), "scale") : nullptr,
        dtype(from),
        dtype(to),
    };
    const cpu::Kernels& kernels = cpu::kernels(instructions);
    const py::gil_scoped_release released;
    cpu::copy_segments(table, kernels, threads, streamed);
}

void combine(const Column<std::uint64_t>& destination, const Column<std::int64_t>& length,
             const Column<std::int64_t>& first, const Column<std::uint64_t>& source,
             const Column<float>& weight, const Column<float>& deviation,
             const Column<std::uint64_t>& counter, std::uint64_t seed, int from, int to,
             int threads, const std::string& instructions) {
    const py::ssize_t count = destination.size();
    const cpu::CombineTable table{
        count,
        destination.data(),
        column(length, count, "length"),
        column(first, count + 1, "first"),
        source.data(),
        column(weight, source.size(), "weight"),
        column(deviation, count, "deviation"),
        column(counter, count, "counter"),
        seed,
        dtype(from),
        dtype(to),
    };
    const cpu::Kernels& kernels = cpu::kernels(instructions);
    const py::gil_scoped_release released;
    cpu::combine_segments(table, kernels, threads);
}

void bound(std::uint64_t source, std::int64_t read, const Column<std::uint64_t>& destination,
           std::int64_t written, std::int64_t block, int threads, const std::string& instructions) {
    if (written <= 0 || read % written != 0 || block <= 0 || block % 64 != 0) {
        throw std::invalid_argument("written must divide read, and block be a multiple of 64");
    }
    const std::vector<std::uint64_t> places(destination.data(),
                                            destination.data() + destination.size());
    const cpu::Kernels& kernels = cpu::kernels(instructions);
    const py::gil_scoped_release released;
    cpu::stream_bound(source, read, places, written, block, kernels, threads);
}

}  // namespace

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "csrc on the CPU; used through megagrow.kernels.";
    module.def("instruction_sets", &cpu::instruction_sets,
               "Those that this processor has, the best one first.");
    module.def("copy", &copy, py::arg("source").noconvert(), py::arg("length").noconvert(),
               py::arg("first").noconvert(), py::arg("destination").noconvert(),
               py::arg("scale").noconvert(), py::arg("from_dtype"), py::arg("to_dtype"),
               py::arg("threads"), py::arg("instructions") = "",
               py::arg("streamed") = std::nullopt);
    module.def("combine", &combine, py::arg("destination").noconvert(),
               py::arg("length").noconvert(), py::arg("first").noconvert(),
               py::arg("source").noconvert(), py::arg("weight").noconvert(),
               py::arg("deviation").noconvert(), py::arg("counter").noconvert(), py::arg("seed"),
               py::arg("from_dtype"), py::arg("to_dtype"), py::arg("threads"),
               py::arg("instructions") = "");
    module.def("stream_bound", &bound, py::arg("source"), py::arg("read"),
               py::arg("destination").noconvert(), py::arg("written"), py::arg("block"),
               py::arg("threads"), py::arg("instructions") = "",
               "Reads `read` bytes, writes `written` of them to each destination: the yardstick "
               "of benchmarks/growth.py. All addresses are multiples of 64.");
}
