// What streams, events and graphs are made of, for `streams.cpp`, `events.cpp` and `graphs.cpp`.
#pragma once

#include <chrono>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "streams.hpp"

namespace host {

using Instant = std::chrono::steady_clock::time_point;

struct Stream;

// A place in a stream's line.
struct Mark {
    Stream *stream;
    bool done = false;
    Instant time = {};
    Clock clock = {};
};

// What waits in line.
struct Task {
    Work work;
    // Of the pinned memory that it reads; 0 where that is not known.
    std::uint64_t digest = 0;
    // What it waits for, and what is marked by it.
    std::shared_ptr<Mark> after = nullptr, mark = nullptr;
};

// Work that was captured, after that of these numbers. The branch is that of its stream, the first one 0.
struct Node {
    Work work;
    std::set<std::size_t> after;
    std::size_t branch;
    // What is marked each time that it runs.
    struct Event *event = nullptr;
};

struct Capture {
    Stream *origin;
    std::thread::id thread;
    std::vector<Node> nodes = {};
    std::vector<Stream *> joined = {};
    bool broken = false, ended = false;
};

struct Stream {
    std::uint64_t number;
    int device;
    Clock clock = {};
    std::deque<Task> waiting = {};
    // Whether work of it is under way, apart.
    bool busy = false;
    std::shared_ptr<Capture> capture = nullptr;
    // What its next work comes after in the capture.
    std::set<std::size_t> tails = {};
};

struct Event {
    bool timed;
    std::shared_ptr<Mark> mark = nullptr;
    bool asked = false;
    std::shared_ptr<Capture> capture = nullptr;
    std::set<std::size_t> tails = {};
};

struct Graph {
    std::vector<Node> nodes;
    // Numbers of branches as streams, from when it was made ready; the first one is the stream it runs on.
    std::vector<std::uint64_t> streams = {};
};

// Pinned memory that was read by queued work, of which the host does not know that it is done.
struct Source {
    std::uint64_t stream, number, digest;
    Use memory;
    int device;
};

// Never destroyed: threads of the program may still be here when it ends.
struct All {
    std::mutex turn;
    std::condition_variable moved;
    std::string reason = "no failure";
    // Of devices on which queued work has failed: nothing works on them any more.
    std::map<int, int> lost;
    std::set<Stream *> streams;
    std::uint64_t numbers = 0, work = 0, forced = 0, calls = 0;
    // What the host has waited for.
    Clock known;
    Uses uses;
    std::list<Source> sources;
};

All &all();

// The device of this thread, how many captures it has begun, and whether it is a host function.
extern thread_local int current, capturing;
extern thread_local bool inside;

// The clock of the next work of a stream.
Clock next(Stream &stream);

// Puts work in line: that of stream `number`, with this clock.
int enqueue(Stream &stream, const Work &work, std::uint64_t number, const Clock &clock);

// Waits for a place as the host does.
int wait(Lock &lock, const Mark &mark);

// Does all that is queued on a stream.
int finish_own(Lock &lock, Stream &stream);

// Ends a capture's use.
int broken(Capture &capture, int code, const std::string &why);

} // namespace host

// One call at a time, and none after queued work has failed.
#define ENTER                                                                                                                  \
    Lock lock(turn);                                                                                                           \
    if (const int code = refusal()) {                                                                                          \
        return code;                                                                                                           \
    }
