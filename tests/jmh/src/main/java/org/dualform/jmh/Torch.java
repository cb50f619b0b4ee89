package org.dualform.jmh;

import java.io.IOException;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.openblas.presets.openblas;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.dualform.DType;

/** PyTorch, as far as the works need it. What it makes belongs to the innermost PointerScope. */
final class Torch {
    private Torch() {}

    static ScalarType type(DType dtype) {
        return dtype == DType.BF16 ? ScalarType.BFloat16 : ScalarType.Float;
    }

    static Tensor of(DType dtype, float[] values, long... shape) {
        return torch.tensor(values).reshape(shape).to(type(dtype));
    }

    /** A tensor whose gradient is wanted. */
    static Tensor leaf(DType dtype, float[] values, long... shape) {
        Tensor tensor = of(dtype, values, shape);
        tensor.requires_grad_(true);
        return tensor;
    }

    static Tensor of(int[] values, long... shape) {
        long[] wide = new long[values.length];
        for (int i = 0; i < wide.length; i++) {
            wide[i] = values[i];
        }
        return torch.tensor(wide).reshape(shape);
    }

    static Tensor room(DType dtype, long... shape) {
        return torch.zeros(shape).to(type(dtype));
    }

    static float[] floats(Tensor tensor) {
        try (PointerScope scope = new PointerScope()) {
            Tensor plain = tensor.detach().to(ScalarType.Float).contiguous();
            float[] values = new float[Math.toIntExact(plain.numel())];
            plain.data_ptr_float().get(values);
            return values;
        }
    }

    /** Causal attention over tensors (B,T,NH,HS), as a GPT has them; the result is a view of the same order. */
    static Tensor attention(Tensor q, Tensor k, Tensor v) {
        Tensor out = torch.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), new TensorOptional(), 0,
                true, new DoubleOptional(), false);
        return out.transpose(1, 2);
    }

    static TensorVector gradients(Tensor out, Tensor dout, Tensor... leaves) {
        return torch.grad(new TensorVector(out), new TensorVector(leaves), new TensorVector(dout), new BoolOptional(), false, false);
    }

    /** Threads of PyTorch's own loops, and of the BLAS it calls. */
    static void threads(int own, int blas) {
        torch.set_num_threads(own);
        openblas.blas_set_num_threads(blas);
    }

    static double tolerance(DType dtype) {
        return dtype == DType.BF16 ? 3e-2 : 1e-4;
    }

    static String version() {
        try {
            return Loader.getVersion("org.bytedeco", "pytorch");
        } catch (IOException e) {
            return "unknown";
        }
    }
}
