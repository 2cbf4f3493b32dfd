// A block of threads on one thread of the host: fibers that run until they wait for others, in an order that a seed
// shuffles. What the order changes is a race; what waits for ever is a barrier that not all reach.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace host {

struct Dim3 {
    unsigned x, y, z;
};

// The grid that runs.
struct Grid {
    Dim3 blocks;
    Dim3 threads;
    // The block that runs.
    Dim3 block;
};

// The thread that runs.
struct Fiber {
    static constexpr int WARP = 32;
    Dim3 number;

    int lane() const {
        return static_cast<int>(number.x) % WARP;
    }
};

extern Grid grid;
extern const Fiber *thread;

// Waits for all threads of the block at this place.
void sync_block(const char *file, int line);

// Waits for all lanes of the warp at this place.
void sync_warp(const char *file, int line);

// Gives `bits` to the lanes of the warp and takes those of `lane`.
unsigned exchange(unsigned bits, int lane, const char *file, int line);

// Ends the launch, as a GPU does, where numbers are read or written at once at what is no multiple of their bytes.
void check_alignment(const void *at, std::size_t bytes, const char *file, int line);

// What a lane may give to its warp at once.
constexpr int WORDS = 6;

// Gives words to the lanes of the warp and takes those of all, by lane; they are there until the next time.
const unsigned (*share(const unsigned *words, int count, const char *file, int line))[WORDS];

// The same with an address, which is to be a multiple of `alignment`.
std::array<const void *, Fiber::WARP> share_address(const void *at, std::size_t alignment, const char *file, int line);

// Ends the launch with a message; from a thread of a kernel, to which it does not return.
[[noreturn]] void fail(const char *file, int line, const std::string &what);

// Runs `body` for each thread of each block. Seed 0 is the order of their numbers, each other seed an order of its own.
// What went wrong, or nothing.
std::string run(Dim3 blocks, unsigned threads, std::uint64_t seed, const std::function<void()> &body);

} // namespace host
