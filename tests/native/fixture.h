// A case's tensors on a device, each inside a larger buffer whose surroundings are NaN and must not change.
#pragma once

#include <string>
#include <vector>

#include "case.h"

namespace dualform::test {

/// Thrown when the harness itself cannot go on (a call that must succeed did not).
struct Failure {
    std::string sentence;
};
void require_ok(df_status status, const char* what);

enum class Placement {
    kPadded,     // odd offsets and gaps between rows, NaN all around
    kAligned,    // the same in units of 16 bytes, for kernels that serve nothing less
    kExactHeap,  // memory of exactly the tensor's reach, so that a sanitizer sees a stray read (CPU)
    kPlain       // contiguous tensors of the device
};

class Fixture {
public:
    Fixture(df_device* device, const Case& c, const Values& values, Placement placement, uint64_t seed);
    ~Fixture();
    Fixture(const Fixture&) = delete;
    Fixture& operator=(const Fixture&) = delete;

    df_tensor* tensor(const char* name) const;
    Handles handles() const {
        return [this](const char* name) { return tensor(name); };
    }
    /// Everything as before the first call.
    void restore();
    std::vector<double> read(const std::string& name) const;
    /// Replaces the values of an input.
    void write(const std::string& name, const std::vector<double>& values);
    /// What the calls changed that they must not, or nothing.
    std::string damage() const;
    /// Bits of every output, in order.
    std::vector<unsigned char> output_bits() const;

private:
    struct Block {
        df_tensor* base = nullptr;
        void* heap = nullptr;
        int dtype = 0;
        int64_t elements = 0;
        std::vector<unsigned char> image;
        std::vector<char> writable;
        std::string names;
    };
    struct Placed {
        const Tensor* of;
        size_t block;
        df_tensor* handle = nullptr;
        Shape stride;
        int64_t offset;
    };
    const Placed* placed(const std::string& name) const;
    template <class F>
    void for_elements(const Placed& p, F&& f) const;
    std::vector<unsigned char> block_bytes(const Block& b) const;
    void encode(const Placed& p, const std::vector<double>& values);

    df_device* device_;
    std::vector<Block> blocks_;
    std::vector<Placed> placed_;
};

size_t element_size(int dtype);
void encode(int dtype, double value, unsigned char* to);
double decode(int dtype, const unsigned char* from);

}  // namespace dualform::test
