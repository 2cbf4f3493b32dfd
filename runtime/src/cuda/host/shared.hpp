// Memory of a block: for each declaration that a block reaches a piece of its own, between guard zones. All of it starts
// as no numbers.
#pragma once

#include <cstddef>
#include <string>

namespace host {

// Of one declaration: where its piece is, and for which block.
struct Piece {
    void *at = nullptr;
    unsigned long block = 0;
};

// The piece of the block that runs; taken by the first thread that asks.
void *piece(Piece &piece, std::size_t bytes);

// Starts a block with nothing taken.
void begin_block();

// That something was written outside of all pieces, or nothing.
std::string end_block();

// `Site` is the type of a lambda, which is another one for each declaration and each of its instances.
template <typename T, typename Site>
T &shared(Site) {
    static Piece own;
    return *static_cast<T *>(piece(own, sizeof(T)));
}

} // namespace host
