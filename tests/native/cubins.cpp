// df_cubins: what the machine code in libdualform_cuda.so uses, read from the file itself: no GPU, driver or disassembler is needed.
//   df_cubins walk OBJECT                       finds in the object of cubins_probe.cu what was put there
//   df_cubins census LIBRARY                    opcodes: tensor-core products where a kernel's name promises them, no local memory
//   df_cubins registers LIBRARY TABLE COMPILER  registers and static shared memory against the table; 77 when another compiler wrote it
//   df_cubins write LIBRARY TABLE COMPILER      writes the table
// LIBRARY "" means that the plug-in was not built: skipped.
//
// A fatbin is a row of containers (magic 0xBA55ED50, header size, size of what follows) of entries (kind 1 PTX, 2 cubin; header size, size,
// architecture), a cubin an ELF file with one .text section a kernel: instructions of 16 bytes, whose low 12 bits are the opcode. Registers
// and stack frame are attributes in .nv.info. This layout is what nvcc 13.0 writes; it is published nowhere, so every size is checked.
#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using Bytes = std::string;

struct Kernel {
    unsigned registers = 0, shared = 0, frame = 0;
    int hgmma = 0, hmma = 0, local = 0; /* local: loads and stores of local memory */
};
/// By kernel and architecture, "attention_forward_tile<4>" and "sm_80".
using Kernels = std::map<std::pair<std::string, std::string>, Kernel>;

constexpr unsigned kHgmmaShared = 0x9f0, kHgmmaRegisters = 0xdf0, kHmma = 0x23c, kLocalLoad = 0x983, kLocalStore = 0x387;
constexpr uint32_t kContainer = 0xBA55ED50;
constexpr int kCubin = 2;
constexpr uint64_t kArchitectureSpecific = 0x100000; /* flag of an entry: the "a" of sm_90a */

/// Kernels that may use local memory, and why. Cuda.cmake lists their files.
struct Excuse {
    const char *kernel, *reason;
};
constexpr Excuse kLocalMemory[] = {
    {"unary_forward_elements", "sine and cosine of large arguments"},
    {"unary_backward_elements", "sine and cosine of large arguments"},
    {"random_normal_blocks", "sine and cosine of large arguments"},
};

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

template <class T>
T at(const Bytes& bytes, uint64_t offset) {
    if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) fail("a header reaches beyond its file");
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
}

Bytes part(const Bytes& bytes, uint64_t offset, uint64_t size) {
    if (offset > bytes.size() || bytes.size() - offset < size) fail("a section reaches beyond its file");
    return bytes.substr(offset, size);
}

bool is_elf(const Bytes& bytes) { return bytes.compare(0, 4, "\x7f" "ELF") == 0; }
bool starts_with(const std::string& text, const std::string& start) { return text.compare(0, start.size(), start) == 0; }

struct Section {
    std::string name;
    uint64_t size;
    Bytes bytes; /* empty where the file holds none */
};

std::vector<Section> sections(const Bytes& elf) {
    constexpr uint32_t kNoBits = 8;
    const uint64_t table = at<uint64_t>(elf, 40);
    const uint16_t entry = at<uint16_t>(elf, 58), count = at<uint16_t>(elf, 60), strings = at<uint16_t>(elf, 62);
    const uint64_t names = at<uint64_t>(elf, table + strings * uint64_t{entry} + 24);
    std::vector<Section> result;
    for (uint64_t i = 0; i < count; ++i) {
        const uint64_t header = table + i * entry, name = names + at<uint32_t>(elf, header), size = at<uint64_t>(elf, header + 32);
        if (name >= elf.size()) fail("the name of a section lies beyond its file");
        const bool held = i > 0 && at<uint32_t>(elf, header + 4) != kNoBits;
        result.push_back({elf.c_str() + name, size, held ? part(elf, at<uint64_t>(elf, header + 24), size) : Bytes()});
    }
    return result;
}

/// "attention_forward_tile<4>" of a mangled name: without namespaces, result and parameters. nvcc puts a hash into the name of an unnamed
/// namespace, so the mangled name differs from build to build.
std::string readable(const std::string& mangled) {
    int status = 0;
    char* const demangled = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
    std::string name = status == 0 ? demangled : mangled;
    std::free(demangled);
    for (const std::string noise : {"(anonymous namespace)::", "dualform::cuda::"})
        for (size_t i; (i = name.find(noise)) != std::string::npos;) name.erase(i, noise.size());
    if (starts_with(name, "void ")) name.erase(0, 5);
    int depth = 0;
    for (size_t i = 0; i < name.size(); ++i) {
        if (name[i] == '<') ++depth;
        if (name[i] == '>') --depth;
        if (name[i] == '(' && depth == 0) {
            name.erase(i);
            break;
        }
    }
    return name;
}

/// name -> index in .symtab, as .nv.info counts.
std::map<uint32_t, std::string> symbols(const std::vector<Section>& all) {
    std::map<uint32_t, std::string> result;
    Bytes table, strings;
    for (const Section& s : all) {
        if (s.name == ".symtab") table = s.bytes;
        if (s.name == ".strtab") strings = s.bytes;
    }
    for (uint32_t i = 0; (i + 1) * uint64_t{24} <= table.size(); ++i) {
        const uint32_t name = at<uint32_t>(table, i * uint64_t{24});
        if (name < strings.size()) result[i] = strings.c_str() + name;
    }
    return result;
}

void read_cubin(const Bytes& elf, const std::string& architecture, bool reserves_shared, Kernels& kernels) {
    const std::vector<Section> all = sections(elf);
    std::map<std::string, Kernel> found;
    for (const Section& s : all) {
        if (!starts_with(s.name, ".text.")) continue;
        Kernel& k = found[s.name.substr(6)];
        if (s.size % 16 != 0) fail(s.name + ": not a whole number of instructions");
        for (uint64_t i = 0; i < s.size; i += 16) {
            const unsigned opcode = at<uint16_t>(s.bytes, i) & 0xfff;
            k.hgmma += opcode == kHgmmaShared || opcode == kHgmmaRegisters;
            k.hmma += opcode == kHmma;
            k.local += opcode == kLocalLoad || opcode == kLocalStore;
        }
    }
    for (const Section& s : all)
        if (starts_with(s.name, ".nv.shared.") && found.count(s.name.substr(11)) != 0) {
            // From compute capability 9.0 the first KiB of a block is the system's, and ptxas does not report it.
            const uint64_t reserved = reserves_shared ? 1024 : 0;
            if (s.size < reserved) fail(s.name + ": smaller than what the system reserves");
            found[s.name.substr(11)].shared = static_cast<unsigned>(s.size - reserved);
        }
    // Attributes: format, name, then a value of two bytes, or with format 4 a size and that many bytes.
    const std::map<uint32_t, std::string> names = symbols(all);
    for (const Section& s : all) {
        if (s.name != ".nv.info") continue;
        for (uint64_t i = 0; i + 4 <= s.size;) {
            const unsigned format = at<uint8_t>(s.bytes, i), attribute = at<uint8_t>(s.bytes, i + 1), size = at<uint16_t>(s.bytes, i + 2);
            constexpr unsigned kSized = 4, kFrameSize = 0x11, kRegisters = 0x2f;
            if (format == kSized && (attribute == kFrameSize || attribute == kRegisters)) {
                const auto name = names.find(at<uint32_t>(s.bytes, i + 4));
                const auto kernel = name == names.end() ? found.end() : found.find(name->second);
                if (kernel != found.end())
                    (attribute == kRegisters ? kernel->second.registers : kernel->second.frame) = at<uint32_t>(s.bytes, i + 8);
            }
            i += format == kSized ? 4 + uint64_t{size} : 4;
        }
    }
    for (const auto& [mangled, kernel] : found) {
        const std::string name = readable(mangled);
        if (kernel.registers == 0) fail(name + ": no register count found for " + architecture);
        // A kernel in a header exists in every file that uses it: the largest numbers count.
        Kernel& k = kernels[{name, architecture}];
        k.registers = std::max(k.registers, kernel.registers);
        k.shared = std::max(k.shared, kernel.shared);
        k.frame = std::max(k.frame, kernel.frame);
        k.hgmma = std::max(k.hgmma, kernel.hgmma);
        k.hmma = std::max(k.hmma, kernel.hmma);
        k.local = std::max(k.local, kernel.local);
    }
}

/// Every kernel of every machine code in a library or an object.
Kernels read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail(path + ": cannot be read");
    const Bytes library((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (!is_elf(library)) fail(path + ": not an ELF file");
    Kernels kernels;
    for (const Section& s : sections(library)) {
        if (s.name != ".nv_fatbin") continue;
        for (uint64_t container = 0; container + 16 <= s.size;) {
            if (at<uint32_t>(s.bytes, container) != kContainer) { /* padding between the containers of two objects */
                container += 8;
                continue;
            }
            const uint64_t begin = container + at<uint16_t>(s.bytes, container + 6), end = begin + at<uint64_t>(s.bytes, container + 8);
            for (uint64_t entry = begin; entry < end;) {
                const uint32_t header = at<uint32_t>(s.bytes, entry + 4), architecture = at<uint32_t>(s.bytes, entry + 28);
                const uint64_t size = at<uint64_t>(s.bytes, entry + 8), flags = at<uint64_t>(s.bytes, entry + 40);
                if (header == 0) fail("an entry of a fatbin has no size");
                if (at<uint16_t>(s.bytes, entry) == kCubin) {
                    const Bytes cubin = part(s.bytes, entry + header, size);
                    if (!is_elf(cubin)) fail("compressed machine code: this program reads what --compress-mode leaves uncompressed");
                    read_cubin(cubin, "sm_" + std::to_string(architecture) + (flags & kArchitectureSpecific ? "a" : ""), architecture >= 90,
                               kernels);
                }
                entry += header + size;
            }
            container = end;
        }
    }
    if (kernels.empty()) fail(path + ": no machine code found");
    return kernels;
}

int failures = 0;

void require(bool holds, const std::string& what) {
    if (holds) return;
    ++failures;
    std::printf("FAILED: %s\n", what.c_str());
}

int finish(size_t checked, const char* what) {
    std::printf("%zu %s\n%d passed, %d failed, 0 skipped\n", checked, what, failures == 0, failures);
    return failures == 0 ? 0 : 1;
}

int walk(const Kernels& kernels) {
    for (const std::string architecture : {"sm_80", "sm_90a"}) {
        const auto kernel = [&](const std::string& name) {
            const auto found = kernels.find({name, architecture});
            if (found == kernels.end()) fail("no kernel " + name + " for " + architecture);
            return found->second;
        };
        const Kernel plain = kernel("probe_plain<7, (Kind)1>"), local = kernel("probe_local"), mma = kernel("probe_mma"),
                     wgmma = kernel("probe_wgmma");
        require(plain.local == 0 && plain.frame == 0 && plain.hmma == 0 && plain.hgmma == 0, architecture + ": the plain kernel is plain");
        require(plain.shared == 400, architecture + ": the plain kernel has 400 bytes of shared memory");
        require(local.local > 0 && local.frame >= 256, architecture + ": the local kernel uses local memory");
        require(mma.hmma == 2 && mma.hgmma == 0, architecture + ": the mma kernel has two mma");
        require(wgmma.hgmma == (architecture == "sm_90a" ? 2 : 0), architecture + ": the wgmma kernel has two wgmma");
        require(kernel("probe_registers").registers > 128, architecture + ": more than 128 registers are counted");
    }
    return finish(kernels.size(), "kernels of the probe");
}

int census(const Kernels& kernels) {
    int tensor = 0;
    for (const auto& [key, k] : kernels) {
        const auto& [name, architecture] = key;
        const std::string which = name + ", " + architecture;
        const char* reason = nullptr;
        for (const Excuse& e : kLocalMemory)
            if (name == e.kernel) reason = e.reason;
        if (reason == nullptr)
            require(k.local == 0 && k.frame == 0, which + ": " + std::to_string(k.local) + " instructions on local memory, " +
                                                      std::to_string(k.frame) + " bytes of stack");
        else
            require(k.frame > 0, which + ": uses no local memory any more; take it out of kLocalMemory");
        // A kernel without products does not take the scheme's name.
        const bool mma = name.find("_mma") != std::string::npos, wgmma = name.find("_wgmma") != std::string::npos;
        if (mma) require(k.hmma > 0, which + ": no HMMA");
        if (wgmma && architecture == "sm_90a") require(k.hgmma > 0, which + ": no HGMMA");
        tensor += k.hmma > 0 || k.hgmma > 0;
    }
    std::printf("%d kernels with tensor-core products\n", tensor);
    return finish(kernels.size(), "kernels");
}

constexpr const char* kTitle = "kernel\tarchitecture\tregisters\tshared\tHGMMA\tHMMA";

int write(const Kernels& kernels, const std::string& path, const std::string& compiler) {
    std::ofstream file(path);
    file << "# nvcc " << compiler << "\n" << kTitle << "\n";
    for (const auto& [key, k] : kernels)
        file << key.first << '\t' << key.second << '\t' << k.registers << '\t' << k.shared << '\t' << k.hgmma << '\t' << k.hmma << '\n';
    if (!file.flush()) fail(path + ": cannot be written");
    std::printf("%s: %zu rows\n", path.c_str(), kernels.size());
    return 0;
}

int compare(const Kernels& kernels, const std::string& path, const std::string& compiler) {
    std::ifstream file(path);
    std::string line;
    if (!std::getline(file, line)) fail(path + ": cannot be read");
    if (line != "# nvcc " + compiler) {
        std::printf("SKIPPED: registers: %s says \"%s\", this build's compiler is nvcc %s\n", path.c_str(), line.c_str(), compiler.c_str());
        return 77;
    }
    if (!std::getline(file, line) || line != kTitle) fail(path + ": the second line is not the title");
    constexpr const char* kAdvice = "; if that is meant: cmake --build BUILD --target cuda_registers";
    std::map<std::string, bool> built, tabled; /* architectures */
    for (const auto& [key, k] : kernels) built[key.second] = true;
    Kernels table;
    while (std::getline(file, line)) {
        std::vector<std::string> fields(1);
        for (const char c : line) {
            if (c == '\t')
                fields.emplace_back();
            else
                fields.back() += c;
        }
        if (fields.size() != 6) fail(path + ": not six fields: " + line);
        tabled[fields[1]] = true;
        const auto number = [&](int i) { return static_cast<unsigned>(std::stoul(fields[i])); };
        Kernel k;
        k.registers = number(2);
        k.shared = number(3);
        k.hgmma = static_cast<int>(number(4));
        k.hmma = static_cast<int>(number(5));
        const auto found = kernels.find({fields[0], fields[1]});
        if (built.count(fields[1]) != 0) require(found != kernels.end(), fields[0] + ", " + fields[1] + ": in the table, not in the build" + kAdvice);
        table[{fields[0], fields[1]}] = k;
    }
    for (const auto& [architecture, yes] : built) {
        if (tabled.count(architecture) == 0) std::printf("SKIPPED: registers: no rows for %s\n", architecture.c_str());
    }
    size_t compared = 0;
    for (const auto& [key, k] : kernels) {
        if (tabled.count(key.second) == 0) continue;
        const std::string which = key.first + ", " + key.second;
        const auto row = table.find(key);
        require(row != table.end(), which + ": not in the table" + kAdvice);
        if (row == table.end()) continue;
        const Kernel& t = row->second;
        const auto from_to = [](unsigned from, unsigned to) { return std::to_string(from) + " -> " + std::to_string(to); };
        require(k.registers <= t.registers, which + ": registers " + from_to(t.registers, k.registers) + kAdvice);
        require(k.shared <= t.shared, which + ": shared memory " + from_to(t.shared, k.shared) + kAdvice);
        require((k.hgmma > 0) == (t.hgmma > 0) && (k.hmma > 0) == (t.hmma > 0), which + ": tensor-core products came or went" + kAdvice);
        if (k.registers < t.registers || k.shared < t.shared) std::printf("%s: less than in the table%s\n", which.c_str(), kAdvice);
        ++compared;
    }
    if (compared == 0 && failures == 0) return 77;
    return finish(compared, "kernels compared");
}

}  // namespace

int main(int argc, char** argv) {
    const std::string mode = argc > 1 ? argv[1] : "", library = argc > 2 ? argv[2] : "";
    if (library == "none") {
        std::printf("SKIPPED: %s: the CUDA plug-in is not built here\n", mode.c_str());
        return 77;
    }
    const int expected = mode == "walk" || mode == "census" ? 3 : mode == "registers" || mode == "write" ? 5 : 0;
    if (argc != expected) {
        std::fprintf(stderr, "df_cubins walk OBJECT | census LIBRARY | registers LIBRARY TABLE COMPILER | write LIBRARY TABLE COMPILER\n");
        return 2;
    }
    try {
        const Kernels kernels = read(library);
        if (mode == "walk") return walk(kernels);
        if (mode == "census") return census(kernels);
        return mode == "write" ? write(kernels, argv[3], argv[4]) : compare(kernels, argv[3], argv[4]);
    } catch (const std::exception& e) {
        std::printf("FAILED: %s\n", e.what());
        return 1;
    }
}
