#include "core/tensor.h"

namespace dualform {

size_t element_size(int dtype) {
    switch (dtype) {
        case DF_BF16: return 2;
        case DF_F64: return 8;
        default: return 4;
    }
}

const char* dtype_name(int dtype) {
    switch (dtype) {
        case DF_F32: return "F32";
        case DF_BF16: return "BF16";
        case DF_F64: return "F64";
        case DF_I32: return "I32";
        default: return "unknown";
    }
}

}  // namespace dualform
