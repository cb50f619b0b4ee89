package org.dualform.jmh;

import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DST;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SRC;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_WEIGHTS;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import org.bytedeco.dnnl.IntMemoryMap;
import org.bytedeco.dnnl.engine;
import org.bytedeco.dnnl.matmul;
import org.bytedeco.dnnl.memory;
import org.bytedeco.dnnl.stream;
import org.bytedeco.javacpp.BytePointer;
import org.dualform.DType;
import org.dualform.Ops;

/** The same product against oneDNN's matmul primitive, made once, on plain matrices: nothing is packed ahead of time. */
final class OneDnnDuel extends Duel {
    private final Ours ours;
    private final MatmulDuel.Form form;
    private final stream queue;
    private final matmul primitive;
    private final IntMemoryMap arguments = new IntMemoryMap();
    private final BytePointer a;
    private final BytePointer b;
    private final BytePointer out;

    OneDnnDuel(String name, Ours ours, MatmulDuel.Form form, long m, long n, long k) {
        super(name, "oneDNN");
        this.ours = ours;
        this.form = form;
        ours.draw("a", 1, form.a(m, n, k));
        ours.draw("b", 1, form.b(m, n, k));
        ours.room("out", form.out(m, n, k));
        a = bytes("a");
        b = bytes("b");
        out = bytes("out");
        engine cpu = new engine(engine.kind.cpu, 0);
        queue = new stream(cpu);
        memory.desc source = description(form.a(m, n, k), form.transA());
        memory.desc weights = description(form.b(m, n, k), form.transB());
        memory.desc destination = description(form.out(m, n, k), false);
        primitive = new matmul(new matmul.primitive_desc(cpu, source, weights, destination));
        arguments.put(DNNL_ARG_SRC, new memory(source, cpu, a));
        arguments.put(DNNL_ARG_WEIGHTS, new memory(weights, cpu, b));
        arguments.put(DNNL_ARG_DST, new memory(destination, cpu, out));
    }

    private BytePointer bytes(String name) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(Math.toIntExact(ours.get(name).byteSize())).order(ByteOrder.nativeOrder());
        ours.get(name).read(buffer);
        BytePointer copy = new BytePointer(buffer.capacity());
        copy.put(new BytePointer(buffer.rewind()).limit(buffer.capacity()));
        return copy;
    }

    /** Of a stored row-major matrix, seen transposed or as it is. */
    private memory.desc description(long[] shape, boolean transposed) {
        long[] dimensions = transposed ? new long[] {shape[1], shape[0]} : shape;
        long[] strides = transposed ? new long[] {1, shape[1]} : new long[] {shape[1], 1};
        return new memory.desc(dimensions, ours.dtype() == DType.BF16 ? memory.data_type.bf16 : memory.data_type.f32, strides);
    }

    @Override
    void runOurs() {
        Ops.matmul(ours.get("out"), ours.get("a"), ours.get("b"), null, form.transA(), form.transB(), false);
    }

    @Override
    void runPeer() {
        primitive.execute(queue, arguments);
        queue._wait();
    }

    @Override
    List<float[]> ourResults() {
        return List.of(ours.floats("out"));
    }

    @Override
    List<float[]> peerResults() {
        runPeer();
        ByteBuffer buffer = out.asByteBuffer().order(ByteOrder.nativeOrder());
        float[] values = new float[Math.toIntExact(ours.get("out").numel())];
        for (int i = 0; i < values.length; i++) {
            values[i] = ours.dtype() == DType.BF16 ? Float.intBitsToFloat(buffer.getShort(2 * i) << 16) : buffer.getFloat(4 * i);
        }
        return List.of(values);
    }

    @Override
    double tolerance() {
        return Torch.tolerance(ours.dtype());
    }

    @Override
    public void close() {
        ours.close();
    }
}
