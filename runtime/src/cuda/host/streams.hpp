// Streams, events and graphs: work is done late, when something waits for it, and never in an order that nobody asked for.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "order.hpp"

namespace host {

// Codes of CUDA's.
enum Code {
    OK = 0,
    BAD_VALUE = 1,
    NO_MEMORY = 2,
    NO_DEVICE = 101,
    BAD_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
    NOT_PERMITTED = 800,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_MERGE = 902,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

using Lock = std::unique_lock<std::mutex>;

// Of all that the driver has: one call at a time, but for work that is apart.
extern std::mutex &turn;

// Notes why, for who asks for the error's words.
int failed(int code, const std::string &why);

// Why nothing works any more, once queued work has failed, or 0; refuses a host function's calls.
int refusal();

// That this thread captures, which what would wait or change memory must not find; 0 where it does not.
int refused_in_capture(const char *what);

// Something to do on a stream.
struct Work {
    std::function<int()> run;
    std::vector<Use> uses = {};
    // It waits for others than this driver: the lock is open meanwhile.
    bool apart = false;
    // Never before something waits for it.
    bool late = false;
    // Pinned memory that it reads: who writes there before the host has waited for it is told.
    Use source = {0, 0, false};
    // Pinned memory that it writes: until then there are no numbers.
    Use target = {0, 0, true};
};

// Queues work, or writes it down where the stream is captured. With the lock.
int push(void *stream, Work work);

// The same without the lock, for other libraries of this host, whose `work` may wait for other processes.
int queue(void *stream, std::function<int()> work);
int queue_apart(void *stream, std::function<int()> work, std::vector<Use> uses);

// Work moves on without being waited for, but late, from now on: for ranks that wait for one another.
void keep_moving();

// The device that is this thread's.
int current_device();

// Does all that is queued on a stream; on all streams of this thread's device.
int finish(Lock &lock, void *stream);
int finish_all(Lock &lock);

bool is_captured(void *stream);

// Forgets memory that is given back; whether queued work still has it pinned.
bool forget(std::uintptr_t at, std::size_t bytes);

} // namespace host
