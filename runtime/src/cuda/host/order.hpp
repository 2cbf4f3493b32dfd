// What comes before what, as streams, events and the host's waits say, and who uses memory without it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace host {

// Of each stream, by its number, how far it has come. Work comes before other work whose clock has its number.
using Clock = std::map<std::uint64_t, std::uint64_t>;

// After both.
void join(Clock &to, const Clock &other);

// Memory that work reads or writes, on a device or pinned.
struct Use {
    std::uintptr_t at;
    std::size_t bytes;
    bool writes;
};

// Uses of all memory.
class Uses {
    // Of each stream and memory, the number of the last work that did so.
    std::map<std::uint64_t, std::map<std::tuple<std::uintptr_t, std::size_t, bool>, std::uint64_t>> last;

public:
    // Notes what work of a stream uses, whose clock is this one. Says what is wrong, or nothing: another stream writes what
    // it uses, or uses what it writes, and neither waits for the other.
    std::string note(std::uint64_t stream, const Clock &clock, const std::vector<Use> &uses);

    // Of memory that is given back.
    void forget(std::uintptr_t at, std::size_t bytes);
};

} // namespace host
