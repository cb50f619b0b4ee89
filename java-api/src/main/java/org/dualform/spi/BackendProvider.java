package org.dualform.spi;

import java.net.URL;
import java.util.Map;

/**
 * A backend plug-in on the class path, found through {@link java.util.ServiceLoader}.
 *
 * <p>Threading: called from any thread, one call at a time.
 */
public interface BackendProvider {
    /**
     * The backend it brings.
     *
     * @return the id of a {@link org.dualform.Backend}: "cuda"
     */
    String backend();

    /**
     * Where the plug-in library lies.
     *
     * @return a resource or file, or null when this build of the plug-in has none
     */
    URL library();

    /**
     * Settings handed to the plug-in once it is loaded, for example where a library it opens later was found.
     *
     * @return key to value, none by default
     */
    default Map<String, String> options() {
        return Map.of();
    }
}
