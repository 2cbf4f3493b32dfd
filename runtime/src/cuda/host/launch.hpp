// Kernels by name, started with pointers to their arguments as the driver starts them.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "../storage.cuh"
#include "fibers.hpp"

namespace host {

// How an argument is written in a signature.
template <typename T>
struct Name;
template <>
struct Name<int> {
    static constexpr const char *text = "int";
};
template <>
struct Name<float> {
    static constexpr const char *text = "float";
};
template <>
struct Name<bf16> {
    static constexpr const char *text = "bf16";
};

template <typename T>
struct Signature {
    static std::string text() {
        return Name<T>::text;
    }
};
template <typename T>
struct Signature<const T *> {
    static std::string text() {
        return std::string("const ") + Name<T>::text + " *";
    }
};
template <typename T>
struct Signature<T *> {
    static std::string text() {
        return std::string(Name<T>::text) + " *";
    }
};

struct Kernel {
    std::string signature;
    std::function<void(void **)> call;
};

void add(const char *name, Kernel kernel);

// A kernel, or null where there is none of this name.
const Kernel *find(const std::string &name);

template <typename... A, std::size_t... I>
void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(arguments[I])...);
}

// Registers a kernel.
template <typename... A>
struct Registered {
    Registered(const char *name, void (*kernel)(A...)) {
        std::string signature;
        ((signature += (signature.empty() ? "" : ", ") + Signature<A>::text()), ...);
        add(name, Kernel{signature, [kernel](void **arguments) {
                             call(kernel, arguments, std::index_sequence_for<A...>{});
                         }});
    }
};

} // namespace host

// One instance of a kernel, by the name it is asked for.
#define KERNEL(name, ...) static const host::Registered name(#__VA_ARGS__, __VA_ARGS__)
