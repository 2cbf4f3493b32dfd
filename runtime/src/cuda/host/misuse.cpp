// Mistakes with streams, events and pinned memory, one in each function, which this driver must find; and the same without a
// mistake. Each has a device of its own, as work that fails leaves one useless.
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <map>
#include <string>

extern "C" {
int cuGetErrorString(int, const char **);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuStreamCreate(void **, unsigned);
int cuStreamDestroy_v2(void *);
int cuStreamSynchronize(void *);
int cuStreamWaitEvent(void *, void *, unsigned);
int cuLaunchHostFunc(void *, void (*)(void *), void *);
int cuEventCreate(void **, unsigned);
int cuEventRecord(void *, void *);
int cuEventQuery(void *);
int cuEventSynchronize(void *);
int cuStreamBeginCapture_v2(void *, int);
int cuStreamEndCapture(void *, void **);
int cuGraphInstantiateWithFlags(void **, void *, unsigned long long);
int cuGraphLaunch(void *, void *);
int cuMemAlloc_v2(std::uint64_t *, std::size_t);
int cuMemHostAlloc(void **, std::size_t, unsigned);
int cuMemFreeHost(void *);
int cuMemcpyHtoDAsync_v2(std::uint64_t, const void *, std::size_t, void *);
int cuMemcpyDtoHAsync_v2(void *, std::uint64_t, std::size_t, void *);
int cuMemcpyDtoDAsync_v2(std::uint64_t, std::uint64_t, std::size_t, void *);
int cuMemsetD8Async(std::uint64_t, unsigned char, std::size_t, void *);
}

namespace {

constexpr std::size_t BYTES = 256;

// What a mistake is made with.
struct Things {
    void *own, *side, *event, *other;
    std::uint64_t first, second, third;
    unsigned char *pinned;
};

Things things() {
    Things t;
    void *pinned;
    cuStreamCreate(&t.own, 1);
    cuStreamCreate(&t.side, 1);
    cuEventCreate(&t.event, 2);
    cuEventCreate(&t.other, 2);
    cuMemAlloc_v2(&t.first, BYTES);
    cuMemAlloc_v2(&t.second, BYTES);
    cuMemAlloc_v2(&t.third, BYTES);
    cuMemHostAlloc(&pinned, BYTES, 0);
    t.pinned = static_cast<unsigned char *>(pinned);
    std::memset(pinned, 7, BYTES);
    cuMemsetD8Async(t.first, 1, BYTES, t.own);
    cuMemsetD8Async(t.second, 2, BYTES, t.own);
    cuStreamSynchronize(t.own);
    return t;
}

// The first failure of several calls.
int all(std::initializer_list<int> codes) {
    int first = 0;
    for (const int code : codes) {
        first = first ? first : code;
    }
    return first;
}

// `stream` goes on after what is queued on `before`.
int after(void *stream, void *before, void *event) {
    return all({cuEventRecord(event, before), cuStreamWaitEvent(stream, event, 0)});
}

using Misuse = int (*)(Things);

int read_early(Things t) {
    const int code = cuMemcpyDtoHAsync_v2(t.pinned, t.first, BYTES, t.own);
    // Found if there is no number yet; the right one comes with the wait.
    const bool none = t.pinned[0] == 0xff;
    return all({code, cuStreamSynchronize(t.own)}) == 0 && none && t.pinned[BYTES - 1] == 1 ? -1 : 0;
}

int written_early(Things t) {
    cuMemcpyHtoDAsync_v2(t.first, t.pinned, BYTES, t.own);
    t.pinned[3] = 0;
    return cuStreamSynchronize(t.own);
}

// By then it may be done: nobody has waited for it.
int written_after_another_wait(Things t) {
    cuMemcpyHtoDAsync_v2(t.first, t.pinned, BYTES, t.side);
    cuMemsetD8Async(t.second, 3, BYTES, t.own);
    cuStreamSynchronize(t.own);
    t.pinned[3] = 0;
    return cuStreamSynchronize(t.side);
}

int freed_early(Things t) {
    cuMemcpyHtoDAsync_v2(t.first, t.pinned, BYTES, t.own);
    return cuMemFreeHost(t.pinned);
}

int copy_not_waited_for(Things t) {
    return all({cuMemcpyHtoDAsync_v2(t.first, t.pinned, BYTES, t.side), cuMemcpyDtoDAsync_v2(t.third, t.first, BYTES, t.own)});
}

int written_before_it_was_read(Things t) {
    return all({cuMemcpyDtoDAsync_v2(t.third, t.first, BYTES, t.own), cuMemcpyHtoDAsync_v2(t.first, t.pinned, BYTES, t.side)});
}

// The event is older than the copy.
int marked_too_early(Things t) {
    cuEventRecord(t.event, t.side);
    cuMemcpyHtoDAsync_v2(t.first, t.pinned, BYTES, t.side);
    return all({cuStreamWaitEvent(t.own, t.event, 0), cuMemcpyDtoDAsync_v2(t.third, t.first, BYTES, t.own)});
}

int captured(Things t, bool joins, bool writes_both, void **instance) {
    void *graph;
    cuStreamBeginCapture_v2(t.own, 1);
    int code = all({cuMemsetD8Async(t.first, 5, BYTES, t.own), after(t.side, t.own, t.event),
                   cuMemcpyDtoDAsync_v2(t.third, t.first, BYTES, t.side),
                   cuMemsetD8Async(writes_both ? t.third : t.second, 6, BYTES, t.own)});
    if (joins) {
        code = all({code, after(t.own, t.side, t.other)});
    }
    code = all({code, cuStreamEndCapture(t.own, &graph)});
    return code ? code : cuGraphInstantiateWithFlags(instance, graph, 0);
}

int unjoined(Things t) {
    void *instance = nullptr;
    return captured(t, false, false, &instance);
}

int branches_that_write_both(Things t) {
    void *instance = nullptr;
    return all({captured(t, true, true, &instance), cuGraphLaunch(instance, t.own)});
}

int waits_for_what_is_not_captured(Things t) {
    cuEventRecord(t.event, t.side);
    cuStreamBeginCapture_v2(t.own, 1);
    const int code = cuStreamWaitEvent(t.own, t.event, 0);
    void *graph;
    cuStreamEndCapture(t.own, &graph);
    return code;
}

int in_capture(Things t, int (*call)(Things)) {
    cuStreamBeginCapture_v2(t.own, 1);
    const int code = call(t);
    void *graph;
    cuStreamEndCapture(t.own, &graph);
    return code;
}

int waits_in_capture(Things t) {
    return in_capture(t, [](Things t) { return cuStreamSynchronize(t.side); });
}

int asks_in_capture(Things t) {
    cuEventRecord(t.event, t.side);
    return in_capture(t, [](Things t) { return cuEventQuery(t.event); });
}

int pins_in_capture(Things t) {
    return in_capture(t, [](Things) {
        void *at;
        return cuMemHostAlloc(&at, BYTES, 0);
    });
}

int a_function_that_calls(Things t) {
    static int code;
    code = 0;
    cuLaunchHostFunc(
        t.own, [](void *event) { code = cuEventQuery(event); }, t.event);
    cuStreamSynchronize(t.own);
    return code;
}

// All that is waited for, twice, so that each order has its turn; the host functions see what was copied before them.
int none(Things t) {
    static thread_local int seen;
    seen = 0;
    void *instance = nullptr;
    int code = captured(t, true, false, &instance);
    for (int i = 0; i < 4 && code == 0; ++i) {
        t.pinned[0] = static_cast<unsigned char>(40 + i);
        code = all({after(t.side, t.own, t.event), cuMemcpyHtoDAsync_v2(t.second, t.pinned, BYTES, t.side),
                   after(t.own, t.side, t.other), cuGraphLaunch(instance, t.own),
                   cuMemcpyDtoHAsync_v2(t.pinned, t.third, BYTES, t.own)});
        struct Seen {
            unsigned char *pinned;
            int *count;
        };
        Seen to{t.pinned, &seen};
        const auto look = [](void *to) { *static_cast<Seen *>(to)->count += *static_cast<Seen *>(to)->pinned; };
        code = all({code, cuLaunchHostFunc(t.own, look, &to), cuEventRecord(t.event, t.own), cuEventSynchronize(t.event)});
    }
    return code ? code : seen == 4 * 5 ? 0 : -1;
}

const std::map<std::string, Misuse> MISUSES = {
    {"read_early", read_early},
    {"written_early", written_early},
    {"written_after_another_wait", written_after_another_wait},
    {"freed_early", freed_early},
    {"copy_not_waited_for", copy_not_waited_for},
    {"written_before_it_was_read", written_before_it_was_read},
    {"marked_too_early", marked_too_early},
    {"unjoined", unjoined},
    {"branches_that_write_both", branches_that_write_both},
    {"waits_for_what_is_not_captured", waits_for_what_is_not_captured},
    {"waits_in_capture", waits_in_capture},
    {"asks_in_capture", asks_in_capture},
    {"pins_in_capture", pins_in_capture},
    {"a_function_that_calls", a_function_that_calls},
    {"none", none},
};

} // namespace

// Makes a mistake on a device. What was found, by its code and words, or nothing.
extern "C" const char *sixpack_misuse(const char *name, int device) {
    static thread_local std::string found;
    void *context;
    cuDevicePrimaryCtxRetain(&context, device);
    cuCtxSetCurrent(context);
    const int code = MISUSES.at(name)(things());
    const char *words;
    cuGetErrorString(code, &words);
    found = code == 0 ? "" : std::to_string(code) + " " + words;
    return found.c_str();
}
