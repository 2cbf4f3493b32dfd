// A driver of CUDA that computes on the processor: the functions that the program asks of NVIDIA's, on kernels that the C++
// compiler built. Memory lies between guard zones, starts as no numbers, and is checked after every launch.
//
// What is queued runs at once. `SIXPACK_HOST_ORDERS` says in how many orders of threads each kernel runs (1 if it does
// not), and `SIXPACK_HOST_DEVICES` how many devices there are (1).
#include "cuda.hpp"

#include "launch.hpp"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace host {
namespace {

constexpr std::size_t GUARD = 256;
constexpr unsigned char POISON = 0xff;

// Codes of CUDA's.
enum Code { OK = 0, BAD_VALUE = 1, NO_MEMORY = 2, NO_DEVICE = 101, NOT_FOUND = 500, LAUNCH_FAILED = 719, BAD_CAPTURE = 901 };

// Memory of a device; its guard zones are the same allocation.
struct Allocation {
    struct Free {
        void operator()(unsigned char *bytes) const {
            std::free(bytes);
        }
    };
    std::unique_ptr<unsigned char[], Free> bytes;
    std::size_t size;

    bool is_guarded() const {
        for (std::size_t i = 0; i < GUARD; ++i) {
            if (bytes[i] != POISON || bytes[GUARD + size + i] != POISON) {
                return false;
            }
        }
        return true;
    }
};

std::mutex turn;
// By their first address.
std::map<std::uintptr_t, Allocation> memory;
std::size_t used = 0;
// What went wrong last.
std::string reason = "no failure";

int failed(Code code, const std::string &why) {
    reason = why;
    return code;
}

// Where `address .. address + size` is all inside, or the end of all.
std::map<std::uintptr_t, Allocation>::iterator around(std::uintptr_t address, std::size_t size) {
    auto found = memory.upper_bound(address);
    if (found == memory.begin()) {
        return memory.end();
    }
    --found;
    return address + size <= found->first + found->second.size ? found : memory.end();
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

// Streams that this thread captures. Meanwhile what would wait for them, or change memory, fails as it does on a GPU.
thread_local int capturing = 0;

int refused(const char *what) {
    return failed(BAD_CAPTURE, std::string(what) + " while a stream is captured");
}

// A stream. While it is captured what is queued is written down instead.
struct Stream {
    std::unique_ptr<std::vector<std::function<int()>>> captured;
};

using Graph = std::vector<std::function<int()>>;

} // namespace

// Also of `blas.cpp`, which is a library of its own.
int queue(void *stream, std::function<int()> work) {
    auto *own = static_cast<Stream *>(stream);
    if (own && own->captured) {
        own->captured->push_back(std::move(work));
        return OK;
    }
    return work();
}

namespace {

int copy(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool to_device, bool from_device) {
    if ((to_device && around(to, bytes) == memory.end()) || (from_device && around(from, bytes) == memory.end())) {
        return failed(BAD_VALUE, "a copy of " + std::to_string(bytes) + " bytes outside of memory");
    }
    std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
    return OK;
}

} // namespace
} // namespace host

using namespace host;

#define LOCKED const std::lock_guard<std::mutex> locked(turn)

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

int cuGetErrorString(int, const char **text) {
    *text = reason.c_str();
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

int cuDeviceTotalMem_v2(std::size_t *bytes, int) {
    *bytes = std::size_t{1} << 32;
    return OK;
}

// Of all attributes only: multiprocessors, and the two parts of the compute capability.
int cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = attribute == 16 ? 1 : attribute == 75 ? 9 : 0;
    return OK;
}

int cuDevicePrimaryCtxRetain(void **context, int) {
    static int one;
    *context = &one;
    return OK;
}

int cuDevicePrimaryCtxRelease_v2(int) {
    return OK;
}

int cuCtxSetCurrent(void *) {
    return OK;
}

int cuStreamCreate(void **stream, unsigned) {
    *stream = new Stream;
    return OK;
}

int cuStreamDestroy_v2(void *stream) {
    delete static_cast<Stream *>(stream);
    return OK;
}

int cuStreamSynchronize(void *) {
    return capturing ? refused("waiting") : int{OK};
}

int cuMemGetInfo_v2(std::size_t *free, std::size_t *total) {
    LOCKED;
    cuDeviceTotalMem_v2(total, 0);
    *free = *total - used;
    return OK;
}

int cuMemAlloc_v2(std::uint64_t *address, std::size_t bytes) {
    LOCKED;
    std::size_t total;
    cuDeviceTotalMem_v2(&total, 0);
    if (capturing) {
        return refused("allocating");
    }
    if (bytes == 0 || used + bytes > total) {
        return failed(NO_MEMORY, "no room for " + std::to_string(bytes) + " bytes");
    }
    // Aligned as a GPU's is; the guard zones are as long.
    const std::size_t whole = (bytes + 3 * GUARD - 1) / GUARD * GUARD;
    Allocation allocation{{static_cast<unsigned char *>(std::aligned_alloc(GUARD, whole)), {}}, bytes};
    std::memset(allocation.bytes.get(), POISON, bytes + 2 * GUARD);
    *address = reinterpret_cast<std::uintptr_t>(allocation.bytes.get()) + GUARD;
    used += bytes;
    memory.emplace(*address, std::move(allocation));
    return OK;
}

int cuMemFree_v2(std::uint64_t address) {
    LOCKED;
    if (capturing) {
        return refused("freeing");
    }
    const auto found = memory.find(address);
    if (found == memory.end()) {
        return failed(BAD_VALUE, "freed what is no memory");
    }
    used -= found->second.size;
    memory.erase(found);
    return OK;
}

int cuMemAllocHost_v2(void **at, std::size_t bytes) {
    *at = std::malloc(bytes);
    return OK;
}

int cuMemFreeHost(void *at) {
    std::free(at);
    return OK;
}

int cuMemcpyHtoDAsync_v2(std::uint64_t to, const void *from, std::size_t bytes, void *stream) {
    LOCKED;
    if (capturing) {
        return refused("copying pages that are not pinned");
    }
    return queue(stream, [=] { return copy(to, reinterpret_cast<std::uintptr_t>(from), bytes, true, false); });
}

int cuMemcpyDtoHAsync_v2(void *to, std::uint64_t from, std::size_t bytes, void *stream) {
    LOCKED;
    if (capturing) {
        return refused("copying to pages that are not pinned");
    }
    return queue(stream, [=] { return copy(reinterpret_cast<std::uintptr_t>(to), from, bytes, false, true); });
}

int cuMemcpyDtoDAsync_v2(std::uint64_t to, std::uint64_t from, std::size_t bytes, void *stream) {
    LOCKED;
    return queue(stream, [=] { return copy(to, from, bytes, true, true); });
}

int cuMemsetD8Async(std::uint64_t to, unsigned char value, std::size_t bytes, void *stream) {
    LOCKED;
    return queue(stream, [=] {
        if (around(to, bytes) == memory.end()) {
            return failed(BAD_VALUE, "a fill outside of memory");
        }
        std::memset(reinterpret_cast<void *>(to), value, bytes);
        return int{OK};
    });
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
    LOCKED;
    if (threads_y != 1 || threads_z != 1 || x == 0 || y == 0 || z == 0 || y > 65535 || z > 65535 || threads > 1024) {
        return failed(BAD_VALUE, "a grid that no GPU takes");
    }
    const auto &own = *static_cast<Function *>(function);
    std::vector<std::uint64_t> slots;
    for (const std::string &type : types(own.kernel->signature)) {
        slots.push_back(0);
        std::memcpy(&slots.back(), arguments[slots.size() - 1], is_pointer(type) ? 8 : 4);
    }
    return queue(stream, [=] { return launch(own, Dim3{x, y, z}, threads, slots); });
}

int cuStreamBeginCapture_v2(void *stream, int) {
    static_cast<Stream *>(stream)->captured = std::make_unique<Graph>();
    ++capturing;
    return OK;
}

int cuStreamEndCapture(void *stream, void **graph) {
    auto *own = static_cast<Stream *>(stream);
    if (!own->captured) {
        return failed(BAD_CAPTURE, "no capture to end");
    }
    *graph = own->captured.release();
    --capturing;
    return OK;
}

int cuGraphInstantiateWithFlags(void **instance, void *graph, unsigned long long) {
    *instance = new Graph(*static_cast<Graph *>(graph));
    return OK;
}

int cuGraphLaunch(void *instance, void *) {
    LOCKED;
    for (const auto &work : *static_cast<Graph *>(instance)) {
        if (const int code = work()) {
            return code;
        }
    }
    return OK;
}

int cuGraphDestroy(void *graph) {
    delete static_cast<Graph *>(graph);
    return OK;
}

int cuGraphExecDestroy(void *instance) {
    delete static_cast<Graph *>(instance);
    return OK;
}

using Instant = std::chrono::steady_clock::time_point;

int cuEventCreate(void **event, unsigned) {
    *event = new Instant;
    return OK;
}

int cuEventRecord(void *event, void *) {
    *static_cast<Instant *>(event) = std::chrono::steady_clock::now();
    return OK;
}

int cuEventSynchronize(void *) {
    return capturing ? refused("waiting") : int{OK};
}

int cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
    const auto passed = *static_cast<Instant *>(end) - *static_cast<Instant *>(start);
    *milliseconds = std::chrono::duration<float, std::milli>(passed).count();
    return OK;
}

int cuEventDestroy_v2(void *event) {
    delete static_cast<Instant *>(event);
    return OK;
}
}
