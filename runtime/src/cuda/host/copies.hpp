// Copies into the memory of a block that arrive when they are waited for; until then there are no numbers.
#pragma once

#include <cstddef>
#include <string>

namespace host {

// Of the thread that runs: `bytes` from `from`, or zeros where they are not `there`. Both ends are to be multiples of `bytes`.
void copy_later(void *to, const void *from, std::size_t bytes, bool there, const char *file, int line);

// Ends a group.
void end_copies();

// Waits for all groups but the last `left`.
void wait_copies(std::size_t left);

// Starts a block of so many threads.
void begin_copies(std::size_t threads);

// That nobody waited for a copy, or nothing.
std::string lost_copies();

} // namespace host
