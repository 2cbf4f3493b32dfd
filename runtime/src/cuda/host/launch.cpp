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

} // namespace host

// The types of a kernel's arguments, or null where there is no such kernel.
extern "C" const char *sixpack_signature(const char *name) {
    const auto found = host::kernels().find(name);
    return found == host::kernels().end() ? nullptr : found->second.signature.c_str();
}

// Runs a kernel that is there. 0, or 1 with what went wrong in `message`, cut to `room` bytes.
extern "C" int sixpack_launch(const char *name, const unsigned *blocks, unsigned threads, void **arguments,
                              unsigned long long seed, char *message, std::size_t room) {
    const host::Kernel &kernel = host::kernels().at(name);
    const std::string wrong =
        host::run({blocks[0], blocks[1], blocks[2]}, threads, seed, [&] { kernel.call(arguments); });
    std::strncpy(message, wrong.c_str(), room - 1);
    message[room - 1] = 0;
    return wrong.empty() ? 0 : 1;
}
