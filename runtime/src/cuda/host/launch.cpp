#include "cuda.hpp"

#include "launch.hpp"

#include <cstring>
#include <map>

namespace host {
namespace {

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

} // namespace

void add(const char *name, Kernel kernel) {
    kernels()[name] = std::move(kernel);
}

const Kernel *find(const std::string &name) {
    const auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

} // namespace host

// The types of a kernel's arguments, or null where there is no such kernel.
extern "C" const char *sixpack_signature(const char *name) {
    const host::Kernel *kernel = host::find(name);
    return kernel ? kernel->signature.c_str() : nullptr;
}

// Runs a kernel that only writes, `blocks · threads` numbers. 0, or 1 with what went wrong in `message`, cut to `room` bytes.
extern "C" int sixpack_run(const char *name, unsigned blocks, unsigned threads, unsigned long long seed, float *to,
                           char *message, std::size_t room) {
    const host::Kernel &kernel = host::kernels().at(name);
    void *arguments[] = {&to};
    const std::string wrong = host::run({blocks, 1, 1}, threads, seed, [&] { kernel.call(arguments); });
    std::strncpy(message, wrong.c_str(), room - 1);
    message[room - 1] = 0;
    return wrong.empty() ? 0 : 1;
}
