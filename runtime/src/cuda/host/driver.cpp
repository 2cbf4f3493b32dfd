// A driver of CUDA that computes on the processor: the functions that the program asks of NVIDIA's, on kernels that the C++
// compiler built. Memory lies between guard zones, starts as no numbers, and is checked after every launch.
//
// Streams are in `streams.cpp`. `SIXPACK_HOST_ORDERS` says in how many orders of threads each kernel runs (1 if it does
// not), and `SIXPACK_HOST_DEVICES` how many devices there are (1).
#include "cuda.hpp"

#include "launch.hpp"
#include "line.hpp"

#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace host {
namespace {

constexpr std::size_t GUARD = 256;
constexpr unsigned char POISON = 0xff;

// Memory of a device; its guard zones are the same allocation.
struct Allocation {
    struct Free {
        void operator()(unsigned char *bytes) const {
            std::free(bytes);
        }
    };
    std::unique_ptr<unsigned char[], Free> bytes;
    std::size_t size;
    int device;

    bool is_guarded() const {
        for (std::size_t i = 0; i < GUARD; ++i) {
            if (bytes[i] != POISON || bytes[GUARD + size + i] != POISON) {
                return false;
            }
        }
        return true;
    }
};

// By their first address. Never destroyed: threads of the program may still be here when it ends.
std::map<std::uintptr_t, Allocation> &memory = *new std::map<std::uintptr_t, Allocation>;
// Pinned memory of the host.
std::map<std::uintptr_t, std::size_t> &pinned = *new std::map<std::uintptr_t, std::size_t>;
// Bytes that are taken, by device.
std::map<int, std::size_t> &used = *new std::map<int, std::size_t>;

// Where `address .. address + size` is all inside, or the end of all.
std::map<std::uintptr_t, Allocation>::iterator around(std::uintptr_t address, std::size_t size) {
    auto found = memory.upper_bound(address);
    if (found == memory.begin()) {
        return memory.end();
    }
    --found;
    return address + size <= found->first + found->second.size ? found : memory.end();
}

bool is_pinned(std::uintptr_t address, std::size_t size) {
    auto found = pinned.upper_bound(address);
    return found != pinned.begin() && address + size <= std::prev(found)->first + std::prev(found)->second;
}

int orders() {
    const char *text = std::getenv("SIXPACK_HOST_ORDERS");
    return text ? std::atoi(text) : 1;
}

// The type of each argument, as a signature has it.
std::vector<std::string> types(const std::string &signature) {
    std::vector<std::string> all;
    for (std::size_t at = 0; at < signature.size();) {
        const std::size_t end = std::min(signature.find(", ", at), signature.size());
        all.push_back(signature.substr(at, end - at));
        at = end + 2;
    }
    return all;
}

bool is_pointer(const std::string &type) {
    return type.back() == '*';
}

bool is_written(const std::string &type) {
    return is_pointer(type) && type.rfind("const ", 0) != 0;
}

struct Function {
    std::string name;
    const Kernel *kernel;
};

int launch(const Function &function, Dim3 blocks, unsigned threads, std::vector<std::uint64_t> slots) {
    const std::vector<std::string> all = types(function.kernel->signature);
    std::vector<void *> arguments;
    std::map<std::uintptr_t, Allocation *> written;
    for (std::size_t i = 0; i < all.size(); ++i) {
        arguments.push_back(&slots[i]);
        if (is_pointer(all[i]) && slots[i] != 0) {
            const auto found = around(slots[i], 1);
            if (found == memory.end()) {
                return failed(BAD_VALUE, function.name + ": argument " + std::to_string(i) + " points to no memory");
            }
            if (is_written(all[i])) {
                written[found->first] = &found->second;
            }
        }
    }
    std::map<std::uintptr_t, std::vector<unsigned char>> before, first;
    const int count = orders();
    for (int order = 0; order < count; ++order) {
        for (const auto &[at, allocation] : written) {
            const unsigned char *bytes = allocation->bytes.get() + GUARD;
            if (count > 1 && order == 0) {
                before[at].assign(bytes, bytes + allocation->size);
            } else if (order > 0) {
                std::memcpy(allocation->bytes.get() + GUARD, before[at].data(), allocation->size);
            }
        }
        const std::string wrong = run(blocks, threads, order, [&] { function.kernel->call(arguments.data()); });
        if (!wrong.empty()) {
            return failed(LAUNCH_FAILED, function.name + ": " + wrong);
        }
        for (const auto &[at, allocation] : written) {
            const unsigned char *bytes = allocation->bytes.get() + GUARD;
            if (!allocation->is_guarded()) {
                return failed(LAUNCH_FAILED, function.name + " wrote outside of its memory");
            }
            if (count > 1 && order == 0) {
                first[at].assign(bytes, bytes + allocation->size);
            } else if (order > 0 && std::memcmp(bytes, first[at].data(), allocation->size) != 0) {
                return failed(LAUNCH_FAILED, function.name + ": the order of its threads changes what it gives");
            }
        }
    }
    return OK;
}

// Queues a copy between a device and a device or the host, or within a device.
int copy(void *stream, Use to, Use from, bool to_device, bool from_device, Work work) {
    if ((to_device && around(to.at, to.bytes) == memory.end()) || (from_device && around(from.at, from.bytes) == memory.end())) {
        return failed(BAD_VALUE, "a copy of " + std::to_string(to.bytes) + " bytes outside of memory");
    }
    if (to_device) {
        work.uses.push_back(to);
    }
    if (from_device) {
        work.uses.push_back(from);
    }
    if (!work.run) {
        work.run = [=] {
            std::memmove(reinterpret_cast<void *>(to.at), reinterpret_cast<void *>(from.at), to.bytes);
            return int{OK};
        };
    }
    return push(stream, std::move(work));
}

} // namespace
} // namespace host

using namespace host;

// Nothing that would wait or change memory while this thread captures.
#define OUTSIDE_CAPTURE(what)                                                                                                  \
    if (const int code = refused_in_capture(what)) {                                                                           \
        return code;                                                                                                           \
    }

extern "C" {

int cuInit(unsigned) {
    return OK;
}

int cuDriverGetVersion(int *version) {
    *version = 12090;
    return OK;
}

int cuGetErrorName(int, const char **name) {
    *name = "failure";
    return OK;
}

int cuDeviceGetCount(int *count) {
    const char *text = std::getenv("SIXPACK_HOST_DEVICES");
    *count = text ? std::atoi(text) : 1;
    return OK;
}

int cuDeviceGet(int *device, int ordinal) {
    int count;
    cuDeviceGetCount(&count);
    *device = ordinal;
    return ordinal >= 0 && ordinal < count ? OK : failed(NO_DEVICE, "no such device");
}

int cuDeviceGetName(char *name, int room, int) {
    std::strncpy(name, "the processor, as a GPU", static_cast<std::size_t>(room) - 1);
    name[room - 1] = 0;
    return OK;
}

int cuDeviceGetUuid_v2(char *uuid, int device) {
    std::memset(uuid, 0, 16);
    uuid[0] = static_cast<char>(device);
    return OK;
}

int cuDeviceTotalMem_v2(std::size_t *bytes, int) {
    *bytes = std::size_t{1} << 32;
    return OK;
}

// Of all attributes only: multiprocessors, and the two parts of the compute capability.
int cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = attribute == 16 ? 1 : attribute == 75 ? 9 : 0;
    return OK;
}

// A context is the number of its device.
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = new int{device};
    return OK;
}

int cuDevicePrimaryCtxRelease_v2(int) {
    return OK;
}

int cuMemGetInfo_v2(std::size_t *free, std::size_t *total) {
    const Lock lock(turn);
    cuDeviceTotalMem_v2(total, 0);
    *free = *total - used[current];
    return OK;
}

int cuMemAlloc_v2(std::uint64_t *address, std::size_t bytes) {
    ENTER
    OUTSIDE_CAPTURE("allocating")
    std::size_t total;
    cuDeviceTotalMem_v2(&total, 0);
    if (bytes == 0 || used[current] + bytes > total) {
        return failed(NO_MEMORY, "no room for " + std::to_string(bytes) + " bytes");
    }
    // Aligned as a GPU's is; the guard zones are as long.
    const std::size_t whole = (bytes + 3 * GUARD - 1) / GUARD * GUARD;
    Allocation allocation{{static_cast<unsigned char *>(std::aligned_alloc(GUARD, whole)), {}}, bytes, current};
    std::memset(allocation.bytes.get(), POISON, bytes + 2 * GUARD);
    *address = reinterpret_cast<std::uintptr_t>(allocation.bytes.get()) + GUARD;
    used[current] += bytes;
    memory.emplace(*address, std::move(allocation));
    return OK;
}

// Waits for all of the device.
int cuMemFree_v2(std::uint64_t address) {
    ENTER
    OUTSIDE_CAPTURE("freeing")
    if (const int code = finish_all(lock)) {
        return code;
    }
    const auto found = memory.find(address);
    if (found == memory.end()) {
        return failed(BAD_VALUE, "freed what is no memory");
    }
    used[found->second.device] -= found->second.size;
    forget(address, found->second.size);
    memory.erase(found);
    return OK;
}

int cuMemHostAlloc(void **at, std::size_t bytes, unsigned) {
    ENTER
    OUTSIDE_CAPTURE("allocating")
    *at = std::malloc(bytes);
    std::memset(*at, POISON, bytes);
    pinned.emplace(reinterpret_cast<std::uintptr_t>(*at), bytes);
    return OK;
}

int cuMemFreeHost(void *at) {
    ENTER
    OUTSIDE_CAPTURE("freeing")
    const auto found = pinned.find(reinterpret_cast<std::uintptr_t>(at));
    if (found == pinned.end()) {
        return failed(BAD_VALUE, "freed what is not pinned");
    }
    if (forget(found->first, found->second)) {
        return failed(BAD_VALUE, "freed pinned memory that a copy under way uses");
    }
    pinned.erase(found);
    std::free(at);
    return OK;
}

// From pages that are not pinned the driver takes what is there now.
int cuMemcpyHtoDAsync_v2(std::uint64_t to, const void *from, std::size_t bytes, void *stream) {
    ENTER
    const Use read{reinterpret_cast<std::uintptr_t>(from), bytes, false}, written{to, bytes, true};
    Work work;
    if (is_pinned(read.at, bytes)) {
        work.source = read;
        work.uses.push_back(read);
        return copy(stream, written, read, true, false, work);
    }
    OUTSIDE_CAPTURE("copying pages that are not pinned")
    const auto *first = static_cast<const unsigned char *>(from);
    work.run = [to, kept = std::vector<unsigned char>(first, first + bytes)] {
        std::memcpy(reinterpret_cast<void *>(to), kept.data(), kept.size());
        return int{OK};
    };
    return copy(stream, written, read, true, false, work);
}

// To pages that are not pinned it waits.
int cuMemcpyDtoHAsync_v2(void *to, std::uint64_t from, std::size_t bytes, void *stream) {
    ENTER
    const Use written{reinterpret_cast<std::uintptr_t>(to), bytes, true}, read{from, bytes, false};
    Work work;
    if (is_pinned(written.at, bytes)) {
        work.target = written;
        work.uses.push_back(written);
        work.late = true;
        return copy(stream, written, read, false, true, work);
    }
    OUTSIDE_CAPTURE("copying to pages that are not pinned")
    const int code = copy(stream, written, read, false, true, work);
    return code ? code : finish(lock, stream);
}

int cuMemcpyDtoDAsync_v2(std::uint64_t to, std::uint64_t from, std::size_t bytes, void *stream) {
    ENTER
    return copy(stream, Use{to, bytes, true}, Use{from, bytes, false}, true, true, Work{});
}

int cuMemsetD8Async(std::uint64_t to, unsigned char value, std::size_t bytes, void *stream) {
    ENTER
    if (around(to, bytes) == memory.end()) {
        return failed(BAD_VALUE, "a fill outside of memory");
    }
    Work work;
    work.run = [=] {
        std::memset(reinterpret_cast<void *>(to), value, bytes);
        return int{OK};
    };
    work.uses.push_back(Use{to, bytes, true});
    return push(stream, std::move(work));
}

int cuModuleLoadData(void **module, const void *) {
    static int one;
    *module = &one;
    return OK;
}

int cuModuleUnload(void *) {
    return OK;
}

// By a kernel's name as C++ writes it, or mangled as NVIDIA's compiler and this one do.
int cuModuleGetFunction(void **function, void *, const char *name) {
    std::string plain = name;
    int status = 0;
    char *full = abi::__cxa_demangle(name, nullptr, nullptr, &status);
    if (status == 0) {
        // `void name<types>(arguments)`; what is no template has no result.
        plain = full;
        plain = plain.substr(0, plain.rfind('('));
        plain = plain.substr(plain.rfind("void ", 0) == 0 ? 5 : 0);
    }
    std::free(full);
    const Kernel *kernel = find(plain);
    if (!kernel) {
        return failed(NOT_FOUND, std::string("no kernel ") + name);
    }
    *function = new Function{plain, kernel};
    return OK;
}

int cuFuncSetAttribute(void *, int, int) {
    return OK;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned, void *stream, void **arguments, void **) {
    ENTER
    if (threads_y != 1 || threads_z != 1 || x == 0 || y == 0 || z == 0 || y > 65535 || z > 65535 || threads > 1024) {
        return failed(BAD_VALUE, "a grid that no GPU takes");
    }
    const auto &own = *static_cast<Function *>(function);
    std::vector<std::uint64_t> slots;
    Work work;
    for (const std::string &type : types(own.kernel->signature)) {
        slots.push_back(0);
        std::memcpy(&slots.back(), arguments[slots.size() - 1], is_pointer(type) ? 8 : 4);
        // How far it goes is not known: what it begins with is used at least.
        if (is_pointer(type) && slots.back() != 0) {
            work.uses.push_back(Use{slots.back(), 1, is_written(type)});
        }
    }
    work.run = [=] { return launch(own, Dim3{x, y, z}, threads, slots); };
    return push(stream, std::move(work));
}
}
