// The registry of backends: the CPU, and plug-ins loaded with dlopen. Loading only ever adds; nothing is unloaded, because a driver's
// threads may still run when the JVM exits.
#include <dlfcn.h>
#include <string.h>

#include <map>
#include <mutex>
#include <string>

#include "core/device.h"
#include "cpu/backend.h"

namespace dualform {

namespace {

struct Registry {
    std::mutex mutex;
    std::map<std::string, const df_backend*> by_name{{"cpu", cpu::backend()}};
    std::map<std::string, const df_backend*> by_path;
};

// Never destroyed: threads may outlive static destructors.
Registry& registry() {
    static Registry* r = new Registry;
    return *r;
}

}  // namespace

const df_backend* find_backend(const char* name) {
    if (name == nullptr) raise(DF_INVALID_ARGUMENT, "backend: null, expected \"cpu\" or \"cuda\"");
    Registry& r = registry();
    std::lock_guard<std::mutex> lock(r.mutex);
    const auto found = r.by_name.find(name);
    if (found == r.by_name.end()) raise(DF_UNAVAILABLE, "backend: %s is not loaded", name);
    return found->second;
}

void load_backend(const char* path) {
    if (path == nullptr || *path != '/') raise(DF_INVALID_ARGUMENT, "path: %s, expected the absolute path of a plug-in", path ? path : "null");
    Registry& r = registry();
    std::lock_guard<std::mutex> lock(r.mutex);
    if (r.by_path.count(path) != 0) return;
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) raise(DF_UNAVAILABLE, "%s", dlerror());
    try {
        const auto entry = reinterpret_cast<df_backend_entry_fn>(dlsym(library, "df_backend_entry"));
        if (entry == nullptr) raise(DF_UNAVAILABLE, "%s: no df_backend_entry in it, not a dualform plug-in", path);
        const df_backend* backend = entry(DF_BACKEND_ABI);
        if (backend == nullptr || backend->struct_size != sizeof(df_backend) || backend->abi != DF_BACKEND_ABI)
            raise(DF_UNAVAILABLE, "%s: backend interface %u, expected %u", path, backend ? backend->abi : 0u, unsigned(DF_BACKEND_ABI));
        if (strcmp(backend->build_id, kBuildId) != 0)
            raise(DF_UNAVAILABLE, "%s: build id %s, expected %s (the core's)", path, backend->build_id, kBuildId);
        r.by_path.emplace(path, backend);
        r.by_name[backend->name] = backend;
    } catch (...) {
        dlclose(library);
        throw;
    }
}

}  // namespace dualform
