// The inner loops over a vector type, included once for each instruction set. The including file
// defines MEGAGROW_TARGET (the function attribute that switches the instruction set on) and Vector:
//
//   width               floats in a vector
//   load(const T*)      any address; float, BFloat16 or Float16
//   store(T*, Float)    any address
//   store_pair(T*, Float, Float)    two vectors, one behind the other
//   add, mul
//   Line, load_line, stream_line    64 bytes; streamed to an address aligned to 64
//
// Tails are done element by element with the scalar conversions, which give the same bits.

template <class From, class To, bool scaled>
MEGAGROW_TARGET void convert(const void* source, void* destination, std::int64_t count,
                             float scale) {
    const From* from = static_cast<const From*>(source);
    To* to = static_cast<To*>(destination);
    const auto factor = Vector::broadcast(scale);
    std::int64_t i = 0;
    for (; i + 2 * Vector::width <= count; i += 2 * Vector::width) {
        auto one = Vector::load(from + i);
        auto two = Vector::load(from + i + Vector::width);
        if (scaled) {
            one = Vector::mul(one, factor);
            two = Vector::mul(two, factor);
        }
        Vector::store_pair(to + i, one, two);
    }
    for (; i < count; ++i) {
        const float value = to_float(from[i]);
        from_float(scaled ? value * scale : value, to[i]);
    }
}

template <class From>
MEGAGROW_TARGET void accumulate(const void* source, float* total, std::int64_t count, float weight,
                                bool overwrite) {
    const From* from = static_cast<const From*>(source);
    const auto factor = Vector::broadcast(weight);
    std::int64_t i = 0;
    for (; i + Vector::width <= count; i += Vector::width) {
        auto value = Vector::mul(Vector::load(from + i), factor);
        if (!overwrite) value = Vector::add(Vector::load(total + i), value);
        Vector::store(total + i, value);
    }
    for (; i < count; ++i) {
        const float value = to_float(from[i]) * weight;
        total[i] = overwrite ? value : total[i] + value;
    }
}

MEGAGROW_TARGET inline void stream(const void* source, void* destination, std::int64_t bytes) {
    const char* from = static_cast<const char*>(source);
    char* to = static_cast<char*>(destination);
    const std::int64_t head = std::min<std::int64_t>(
        bytes, static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(to) & 63));
    if (head > 0) std::memcpy(to, from, static_cast<std::size_t>(head));
    std::int64_t i = head;
    for (; i + 64 <= bytes; i += 64) Vector::stream_line(to + i, Vector::load_line(from + i));
    if (i < bytes) std::memcpy(to + i, from + i, static_cast<std::size_t>(bytes - i));
}

MEGAGROW_TARGET inline void bound(const char* source, std::int64_t read, char* const* destinations,
                                  std::int64_t count, std::int64_t written, std::int64_t block) {
    const std::int64_t ratio = read / written;
    for (std::int64_t begin = 0; begin < written; begin += block) {
        const std::int64_t end = std::min(begin + block, written);
        for (std::int64_t k = 0; k < count; ++k) {
            for (std::int64_t at = begin; at < end; at += 64) {
                auto line = Vector::load_line(source + at * ratio);
                for (std::int64_t i = 1; i < ratio; ++i) {
                    line = Vector::either(line, Vector::load_line(source + at * ratio + 64 * i));
                }
                Vector::stream_line(destinations[k] + at, line);
            }
        }
    }
}

template <class From, class To>
constexpr void fill(Convert (&cell)[2]) {
    cell[0] = convert<From, To, false>;
    cell[1] = convert<From, To, true>;
}

template <class From>
constexpr void fill_row(Convert (&row)[dtype_count][2]) {
    fill<From, float>(row[0]);
    fill<From, BFloat16>(row[1]);
    fill<From, Float16>(row[2]);
}

constexpr Kernels make_kernels(const char* name) {
    Kernels made{};
    made.name = name;
    fill_row<float>(made.convert[0]);
    fill_row<BFloat16>(made.convert[1]);
    fill_row<Float16>(made.convert[2]);
    made.accumulate[0] = accumulate<float>;
    made.accumulate[1] = accumulate<BFloat16>;
    made.accumulate[2] = accumulate<Float16>;
    made.stream = stream;
    made.bound = bound;
    return made;
}
