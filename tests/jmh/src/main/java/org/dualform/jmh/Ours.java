package org.dualform.jmh;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;

/** Our tensors of one work, by name, and the values they were made of. */
final class Ours implements AutoCloseable {
    private final Device device;
    private final DType dtype;
    private final Map<String, Tensor> tensors = new LinkedHashMap<>();
    private final Random random = new Random(20221220);

    Ours(Device device, DType dtype) {
        this.device = device;
        this.dtype = dtype;
    }

    Device device() {
        return device;
    }

    DType dtype() {
        return dtype;
    }

    /** Normal draws; the values as they were rounded. */
    float[] draw(String name, double deviation, long... shape) {
        room(name, dtype, shape);
        float[] values = new float[Math.toIntExact(get(name).numel())];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (deviation * random.nextGaussian());
        }
        get(name).write(values);
        return get(name).toFloats();
    }

    /** Whole numbers from 0 to less than a bound. */
    int[] drawIntegers(String name, int bound, long... shape) {
        room(name, DType.I32, shape);
        int[] values = random.ints(get(name).numel(), 0, bound).toArray();
        get(name).write(values);
        return values;
    }

    void room(String name, long... shape) {
        room(name, dtype, shape);
    }

    void room(String name, DType type, long... shape) {
        tensors.put(name, Tensor.empty(device, type, shape));
    }

    void put(String name, Tensor tensor) {
        tensors.put(name, tensor);
    }

    Tensor get(String name) {
        return tensors.get(name);
    }

    float[] floats(String name) {
        return get(name).toFloats();
    }

    @Override
    public void close() {
        tensors.values().forEach(Tensor::close);
        tensors.clear();
    }
}
