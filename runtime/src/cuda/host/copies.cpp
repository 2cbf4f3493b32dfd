#include "copies.hpp"

#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "fibers.hpp"

namespace host {
namespace {

struct Copy {
    void *to;
    const void *from;
    std::size_t bytes;
    bool there;
};

// Of a thread: the groups that are under way, and the one that is not ended.
struct Copies {
    std::deque<std::vector<Copy>> groups;
    std::vector<Copy> open;
};

std::vector<Copies> all;

Copies &own() {
    return all[thread->number.x];
}

} // namespace

void copy_later(void *to, const void *from, std::size_t bytes, bool there, const char *file, int line) {
    if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % bytes != 0) {
        fail(file, line, "a copy from or to what is no multiple of " + std::to_string(bytes) + " bytes");
    }
    // Who reads what was there before, or reads too early, sees no number.
    std::memset(to, 0xff, bytes);
    own().open.push_back(Copy{to, from, bytes, there});
}

void end_copies() {
    own().groups.push_back(std::move(own().open));
    own().open.clear();
}

void wait_copies(std::size_t left) {
    auto &groups = own().groups;
    for (; groups.size() > left; groups.pop_front()) {
        for (const Copy &copy : groups.front()) {
            if (copy.there) {
                std::memcpy(copy.to, copy.from, copy.bytes);
            } else {
                std::memset(copy.to, 0, copy.bytes);
            }
        }
    }
}

void begin_copies(std::size_t threads) {
    all.assign(threads, Copies{});
}

std::string lost_copies() {
    for (const Copies &copies : all) {
        bool under_way = !copies.open.empty();
        for (const auto &group : copies.groups) {
            under_way |= !group.empty();
        }
        if (under_way) {
            return "a copy that nobody waits for";
        }
    }
    return {};
}

} // namespace host
