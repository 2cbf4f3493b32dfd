#include "order.hpp"

#include <algorithm>

namespace host {

void join(Clock &to, const Clock &other) {
    for (const auto &[stream, number] : other) {
        to[stream] = std::max(to[stream], number);
    }
}

std::string Uses::note(std::uint64_t stream, const Clock &clock, const std::vector<Use> &uses) {
    for (const auto &[other, theirs] : last) {
        if (other == stream) {
            continue;
        }
        const auto known = clock.find(other);
        const std::uint64_t before = known == clock.end() ? 0 : known->second;
        for (const auto &[memory, number] : theirs) {
            const auto &[at, bytes, writes] = memory;
            if (number <= before) {
                continue;
            }
            for (const Use &use : uses) {
                if ((use.writes || writes) && use.at < at + bytes && at < use.at + use.bytes) {
                    return "uses memory that another stream " + std::string(writes ? "writes" : "reads") +
                           ", and neither waits for the other";
                }
            }
        }
    }
    for (const Use &use : uses) {
        last[stream][{use.at, use.bytes, use.writes}] = clock.at(stream);
    }
    return {};
}

void Uses::forget(std::uintptr_t at, std::size_t bytes) {
    for (auto &[stream, all] : last) {
        for (auto use = all.begin(); use != all.end();) {
            const auto &[begin, length, writes] = use->first;
            use = begin < at + bytes && at < begin + length ? all.erase(use) : std::next(use);
        }
    }
}

} // namespace host
