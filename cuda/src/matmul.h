// Matrix products of strided operands, for matmul and the dual form: cuBLASLt where it can serve, else a tiled kernel.
#pragma once

#include "queue.h"
#include "views.h"

namespace dualform::cuda {

/// A batch of matrices: element (r, c) of matrix n is at batch.offset(n) + r row + c column. One of row and column is 1.
struct Matrix {
    Floats data;
    int64_t row = 0, column = 0;
};

/// out = a b (+ addend) (+ bias).  a (M,K), b (K,N), out (M,N); b may be the sum of two matrices, formed in float.
struct Product {
    Matrix out, a, b, b_plus, addend; /* b_plus and addend may be absent; addend may be out itself */
    Floats bias;
    int64_t m = 0, n = 0, k = 0;
    Walk<4> batch; /* offsets of out, a, b, addend */

    Product() { batch.finish(); }
};

Matrix matrix(const df_view* view, bool transposed = false);
Matrix matrix(float* data, int64_t columns, bool transposed = false);

int multiply(const Call& call, const Product& product);

/// out (M,O) = (x y^T) z without the M x N matrix.  x (M,I)  y (N,I)  z (N,O), all with contiguous rows.
int multiply_chain(const Call& call, const Matrix& out, const Matrix& x, const Matrix& y, const Matrix& z, int64_t m, int64_t n,
                   int64_t inner, int64_t o);

}  // namespace dualform::cuda
