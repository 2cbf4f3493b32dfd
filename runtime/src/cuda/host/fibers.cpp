#include "fibers.hpp"

#include <algorithm>
#include <csetjmp>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include <ucontext.h>

#include "copies.hpp"
#include "shared.hpp"

namespace host {

Grid grid;
const Fiber *thread = nullptr;

namespace {

constexpr std::size_t STACK = 64 << 10;

enum class State { Ready, AtBlock, AtWarp, Done };

struct Thread : Fiber {
    State state = State::Ready;
    // Where it waits.
    const char *file = "";
    int line = 0;
    // Of the two buffers of its warp the next one.
    unsigned turn = 0;
    bool started = false;
    std::jmp_buf resume;
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK]};
};

// What the lanes of a warp give each other. A lane is at most one exchange ahead, so two buffers are enough.
struct Warp {
    unsigned words[2][Fiber::WARP][WORDS];
    int waiting, done;
};

Thread *running = nullptr;
const std::function<void()> *work = nullptr;
std::jmp_buf scheduler;
std::vector<std::unique_ptr<Thread>> threads;
std::vector<Warp> warps;
std::string failure;
std::uint64_t seed = 0;

// Below `n`; splitmix64.
std::size_t random(std::size_t n) {
    std::uint64_t x = seed += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return (x ^ x >> 31) % n;
}

std::string place(const Thread &thread) {
    return "thread " + std::to_string(thread.number.x) + " at " + thread.file + ":" + std::to_string(thread.line);
}

// Back to the scheduler. `_setjmp` and `_longjmp` change stacks without a system call, which `swapcontext` makes.
void leave() {
    if (_setjmp(running->resume) == 0) {
        _longjmp(scheduler, 1);
    }
}

void wait(State state, const char *file, int line) {
    running->state = state;
    running->file = file;
    running->line = line;
    leave();
}

void begin() {
    for (;;) {
        (*work)();
        running->state = State::Done;
        leave();
    }
}

// Runs a thread until it waits or ends.
void enter(Thread &thread) {
    running = &thread;
    host::thread = &thread;
    if (_setjmp(scheduler) != 0) {
        return;
    }
    if (thread.started) {
        _longjmp(thread.resume, 1);
    }
    thread.started = true;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = STACK;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, begin, 0);
    setcontext(&thread.context);
}

bool same_place(const Thread &a, const Thread &b) {
    return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

// Lets the waiting threads `first .. first + count` go on, if they wait at the same place.
void release(std::size_t first, std::size_t count, std::vector<std::size_t> &ready) {
    for (std::size_t i = first; i < first + count; ++i) {
        if (!same_place(*threads[first], *threads[i])) {
            failure = "a barrier that not all reach: " + place(*threads[first]) + ", " + place(*threads[i]);
            return;
        }
        threads[i]->state = State::Ready;
    }
    // In order they are taken from the end.
    for (std::size_t i = first + count; i-- > first;) {
        ready.push_back(i);
    }
}

void run_block(std::size_t count, bool shuffled) {
    std::vector<std::size_t> ready;
    std::size_t done = 0, at_block = 0;
    for (std::size_t i = count; i-- > 0;) {
        threads[i]->state = State::Ready;
        ready.push_back(i);
    }
    for (Warp &warp : warps) {
        warp.waiting = warp.done = 0;
    }
    while (failure.empty()) {
        if (ready.empty()) {
            if (done == count) {
                return;
            }
            if (at_block == count) {
                at_block = 0;
                release(0, count, ready);
                continue;
            }
            for (std::size_t i = 0; i < count; ++i) {
                if (threads[i]->state != State::Done) {
                    failure = "a barrier that not all reach: " + place(*threads[i]) + ", and others elsewhere or ended";
                }
            }
            return;
        }
        if (shuffled) {
            std::swap(ready[random(ready.size())], ready.back());
        }
        Thread &thread = *threads[ready.back()];
        ready.pop_back();
        enter(thread);
        const std::size_t number = thread.number.x / Fiber::WARP;
        Warp &warp = warps[number];
        switch (thread.state) {
        case State::AtBlock:
            ++at_block;
            break;
        case State::AtWarp:
            ++warp.waiting;
            break;
        default:
            ++done;
            ++warp.done;
        }
        if (warp.waiting == Fiber::WARP) {
            warp.waiting = 0;
            release(number * Fiber::WARP, Fiber::WARP, ready);
        }
    }
}

} // namespace

void sync_block(const char *file, int line) {
    wait(State::AtBlock, file, line);
}

void sync_warp(const char *file, int line) {
    wait(State::AtWarp, file, line);
}

unsigned exchange(unsigned bits, int lane, const char *file, int line) {
    return share(&bits, 1, file, line)[lane][0];
}

const unsigned (*share(const unsigned *words, int count, const char *file, int line))[WORDS] {
    Warp &warp = warps[running->number.x / Fiber::WARP];
    const unsigned turn = running->turn++ % 2;
    std::copy(words, words + count, warp.words[turn][running->lane()]);
    wait(State::AtWarp, file, line);
    return warp.words[turn];
}

std::array<const void *, Fiber::WARP> share_address(const void *at, std::size_t alignment, const char *file, int line) {
    const auto address = reinterpret_cast<std::uintptr_t>(at);
    if (address % alignment != 0) {
        fail(file, line, "a row at what is no multiple of " + std::to_string(alignment) + " bytes");
    }
    unsigned words[2];
    std::memcpy(words, &address, sizeof address);
    const auto all = share(words, 2, file, line);
    std::array<const void *, Fiber::WARP> rows;
    for (int i = 0; i < Fiber::WARP; ++i) {
        std::memcpy(&rows[i], all[i], sizeof address);
    }
    return rows;
}

void fail(const char *file, int line, const std::string &what) {
    failure = what + ": " + file + ":" + std::to_string(line);
    leave();
    std::abort();
}

void check_alignment(const void *at, std::size_t bytes, const char *file, int line) {
    if (reinterpret_cast<std::uintptr_t>(at) % bytes != 0) {
        fail(file, line, std::to_string(bytes) + " bytes at once at what is no multiple of them");
    }
}

std::string run(Dim3 blocks, unsigned count, std::uint64_t order, const std::function<void()> &body) {
    if (count == 0 || count % Fiber::WARP != 0) {
        return "a block of " + std::to_string(count) + " threads, which is no number of warps";
    }
    failure.clear();
    seed = order;
    work = &body;
    grid = Grid{blocks, Dim3{count, 1, 1}, Dim3{0, 0, 0}};
    warps.resize(count / Fiber::WARP);
    while (threads.size() < count) {
        threads.push_back(std::make_unique<Thread>());
    }
    for (unsigned i = 0; i < count; ++i) {
        threads[i]->number = Dim3{i, 0, 0};
    }
    std::vector<std::size_t> numbers(static_cast<std::size_t>(blocks.x) * blocks.y * blocks.z);
    std::iota(numbers.begin(), numbers.end(), 0);
    for (std::size_t i = numbers.size(); order != 0 && i > 1; --i) {
        std::swap(numbers[i - 1], numbers[random(i)]);
    }
    for (const std::size_t number : numbers) {
        grid.block.x = static_cast<unsigned>(number % blocks.x);
        grid.block.y = static_cast<unsigned>(number / blocks.x % blocks.y);
        grid.block.z = static_cast<unsigned>(number / blocks.x / blocks.y);
        for (unsigned i = 0; i < count; ++i) {
            threads[i]->turn = 0;
        }
        begin_block();
        begin_copies(count);
        run_block(count, order != 0);
        for (const std::string &wrong : {end_block(), lost_copies()}) {
            if (failure.empty()) {
                failure = wrong;
            }
        }
        if (!failure.empty()) {
            // Their stacks hold threads that will never go on.
            threads.clear();
            return failure;
        }
    }
    return {};
}

} // namespace host
