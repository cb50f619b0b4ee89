// cuBLASLt by dlopen: found where the machine has it, never needed.
#pragma once

#include "matmul.h"

namespace dualform::cuda {

/// Where cuBLASLt was found, without creating anything on a device.
struct CublasltSearch {
    bool found;
    char path[256];   /* of the library that serves */
    char reason[256]; /* why none does */
    size_t version;
};
CublasltSearch find_cublaslt();

/// The absolute path to look at first; null or "" restores the search. False when it is too long or not absolute.
bool set_cublaslt_path(const char* path);

/// A handle for one queue; null when cuBLASLt is not there or refuses, with the reason in `reason`.
Cublaslt* open_cublaslt(char* provider, size_t n);
void close_cublaslt(Cublaslt*);

/// The tanh GELU of a product, or the product times the slope of the GELU at pre. pre has out's dtype and lies at a multiple of 16 bytes.
struct GeluEpilogue {
    bool gradient = false;
    Floats pre; /* written forward unless absent, read by the gradient */
    int64_t pre_row = 0;
};

/// Serves the product when cuBLASLt is there and the dtypes and strides are ones it takes; otherwise leaves *served false and does nothing.
int multiply_with_cublaslt(const Call& call, const Product& product, bool* served, const GeluEpilogue* gelu = nullptr);

}  // namespace dualform::cuda
