package org.dualform.cuda;

import java.io.File;
import java.io.IOException;
import java.net.URISyntaxException;
import java.net.URL;
import java.util.LinkedHashMap;
import java.util.Map;
import org.bytedeco.javacpp.Loader;
import org.dualform.spi.BackendProvider;

/**
 * Tells the core where the CUDA plug-in lies, and where on the class path CUDA libraries lie that the plug-in opens when it needs them.
 *
 * <p>The redistributable jars of JavaCPP Presets for CUDA ({@code org.bytedeco:cuda-redist*}) carry cuBLASLt and NCCL as plain files. They
 * are unpacked from there, and no class of the presets is touched: those fail to load without a driver.
 *
 * <p>Threading: all methods may be called from any thread.
 */
public final class CudaBackend implements BackendProvider {
    /** Made by {@link java.util.ServiceLoader}. */
    public CudaBackend() {}

    @Override
    public String backend() {
        return "cuda";
    }

    /**
     * The plug-in, which lies beside this class.
     *
     * @return libdualform_cuda.so for this platform, or null when this build has none
     */
    @Override
    public URL library() {
        return CudaBackend.class.getResource(Loader.getPlatform() + "/libdualform_cuda.so");
    }

    /**
     * CUDA libraries found in jars of the presets.
     *
     * @return "cublaslt" and "nccl" to a file, each only if it was found
     */
    @Override
    public Map<String, String> options() {
        Map<String, String> found = new LinkedHashMap<>();
        // cuBLASLt needs cuBLAS beside it on some releases, so both are unpacked into one folder.
        unpack("libcublas.so.13");
        add(found, "cublaslt", unpack("libcublasLt.so.13"));
        add(found, "nccl", unpack("libnccl.so.2"));
        return found;
    }

    private static void add(Map<String, String> found, String key, File file) {
        if (file != null) {
            found.put(key, file.getAbsolutePath());
        }
    }

    /** The file, unpacked if it is in a jar; null when it is not on the class path or cannot be unpacked, as if it were not there. */
    private static File unpack(String library) {
        URL resource = CudaBackend.class.getClassLoader().getResource("org/bytedeco/cuda/" + Loader.getPlatform() + "/" + library);
        if (resource == null) {
            return null;
        }
        try {
            return "file".equals(resource.getProtocol()) ? new File(resource.toURI()) : Loader.cacheResource(resource);
        } catch (IOException | URISyntaxException e) {
            return null;
        }
    }
}
