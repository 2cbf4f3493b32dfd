#include "shared.hpp"

#include <cstring>
#include <vector>

#include "fibers.hpp"

namespace host {
namespace {

// What a block may declare on any GPU.
constexpr std::size_t LIMIT = 48 << 10;
constexpr std::size_t GUARD = 256;
// All bytes of it: a number that is none, in f32 and in bf16.
constexpr unsigned char POISON = 0xff;

// With room for the guards of many pieces.
std::vector<unsigned char> memory(2 * LIMIT);
// Guard zones end here, each `GUARD` bytes long.
std::vector<std::size_t> guards;
std::size_t used = 0, taken = 0;
unsigned long block = 0;

} // namespace

void begin_block() {
    ++block;
    std::memset(memory.data(), POISON, memory.size());
    guards.assign(1, GUARD);
    used = GUARD;
    taken = 0;
}

void *piece(Piece &piece, std::size_t bytes) {
    if (piece.block != block) {
        piece.block = block;
        piece.at = memory.data() + used;
        taken += bytes;
        if (taken > LIMIT) {
            fail("shared memory", 0, std::to_string(taken) + " bytes of " + std::to_string(LIMIT) + " that there are");
        }
        // Every piece is aligned to 16 bytes; what rounds up stays unguarded.
        used = ((used + bytes + 15) & ~std::size_t{15}) + GUARD;
        guards.push_back(used);
    }
    return piece.at;
}

std::string end_block() {
    for (const std::size_t guard : guards) {
        for (std::size_t i = guard - GUARD; i < guard; ++i) {
            if (memory[i] != POISON) {
                return "a write outside of shared memory";
            }
        }
    }
    return {};
}

} // namespace host
