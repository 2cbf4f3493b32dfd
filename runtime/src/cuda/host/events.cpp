// The driver's functions of streams and events.
#include "line.hpp"

#include <algorithm>

using namespace host;

extern "C" {

int cuGetErrorString(int, const char **text) {
    *text = all().reason.c_str();
    return OK;
}

int cuCtxSetCurrent(void *context) {
    current = *static_cast<int *>(context);
    return OK;
}

// Only streams that do not wait for the default one.
int cuStreamCreate(void **stream, unsigned flags) {
    ENTER
    if (flags != 1) {
        return failed(BAD_VALUE, "a stream that waits for the default one, which this host does not play");
    }
    auto *own = new Stream{++all().numbers, current};
    all().streams.insert(own);
    *stream = own;
    return OK;
}

int cuStreamCreateWithPriority(void **stream, unsigned flags, int) {
    return cuStreamCreate(stream, flags);
}

// What is queued is still done.
int cuStreamDestroy_v2(void *stream) {
    Lock lock(turn);
    auto *own = static_cast<Stream *>(stream);
    if (own->capture) {
        return failed(CAPTURE_UNSUPPORTED, "ending a stream that is captured");
    }
    const int code = all().lost[own->device] ? all().lost[own->device] : finish_own(lock, *own);
    all().streams.erase(own);
    return code;
}

int cuStreamSynchronize(void *stream) {
    ENTER
    if (is_captured(stream)) {
        return broken(*static_cast<Stream *>(stream)->capture, CAPTURE_UNSUPPORTED, "waiting for a stream that is captured");
    }
    if (const int code = refused_in_capture("waiting")) {
        return code;
    }
    return finish(lock, stream);
}

int cuStreamWaitEvent(void *stream, void *event, unsigned) {
    ENTER
    auto &own = *static_cast<Stream *>(stream);
    const auto &of = *static_cast<Event *>(event);
    if (of.capture) {
        if (of.capture->ended) {
            return failed(CAPTURED_EVENT, "waiting for an event of a capture that has ended");
        }
        if (!own.capture) {
            own.capture = of.capture;
            own.tails.clear();
            auto &joined = own.capture->joined;
            if (std::find(joined.begin(), joined.end(), &own) == joined.end()) {
                joined.push_back(&own);
            }
        }
        if (own.capture != of.capture) {
            return broken(*own.capture, CAPTURE_MERGE, "waiting for an event of another capture");
        }
        own.tails.insert(of.tails.begin(), of.tails.end());
        return OK;
    }
    if (own.capture) {
        return of.mark ? broken(*own.capture, CAPTURE_ISOLATION, "a stream that is captured waits for work that is not") : int{OK};
    }
    if (of.mark) {
        join(own.clock, of.mark->clock);
        own.waiting.push_back(Task{Work{}, 0, of.mark});
    }
    return OK;
}

// The function must not call CUDA.
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *argument) {
    ENTER
    const auto run = [=] {
        inside = true;
        function(argument);
        inside = false;
        return int{OK};
    };
    return push(stream, Work{run, {}, true, true});
}

int cuEventCreate(void **event, unsigned flags) {
    *event = new Event{(flags & 2) == 0};
    return OK;
}

int cuEventDestroy_v2(void *event) {
    const Lock lock(turn);
    delete static_cast<Event *>(event);
    return OK;
}

int cuEventRecord(void *event, void *stream) {
    ENTER
    auto &own = *static_cast<Event *>(event);
    auto &on = *static_cast<Stream *>(stream);
    own.asked = false;
    own.capture = on.capture;
    own.tails = on.tails;
    own.mark = nullptr;
    if (!on.capture) {
        own.mark = std::make_shared<Mark>(Mark{&on});
        own.mark->clock = next(on);
        on.waiting.push_back(Task{Work{}, 0, nullptr, own.mark});
    }
    return OK;
}

// Only into a graph, each run of which marks it anew.
int cuEventRecordWithFlags(void *event, void *stream, unsigned flags) {
    ENTER
    if (flags != 1 || !is_captured(stream)) {
        return failed(BAD_VALUE, "an event for others than a capture, of a stream that is not captured");
    }
    const int code = push(stream, Work{});
    if (code == OK) {
        static_cast<Stream *>(stream)->capture->nodes.back().event = static_cast<Event *>(event);
    }
    return code;
}

// Who asks twice waits.
int cuEventQuery(void *event) {
    ENTER
    auto &own = *static_cast<Event *>(event);
    if (own.capture) {
        return failed(CAPTURED_EVENT, "asking for an event that was captured");
    }
    if (const int code = refused_in_capture("asking for an event")) {
        return code;
    }
    if (!own.mark) {
        return OK;
    }
    if (!own.mark->done && !own.asked) {
        own.asked = true;
        return failed(NOT_READY, "an event that is not there yet");
    }
    return wait(lock, *own.mark);
}

int cuEventSynchronize(void *event) {
    ENTER
    auto &own = *static_cast<Event *>(event);
    if (own.capture) {
        return failed(CAPTURED_EVENT, "waiting for an event that was captured");
    }
    if (const int code = refused_in_capture("waiting")) {
        return code;
    }
    return own.mark ? wait(lock, *own.mark) : int{OK};
}

int cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
    ENTER
    const auto &first = *static_cast<Event *>(start), &last = *static_cast<Event *>(end);
    if (!first.timed || !last.timed || !first.mark || !last.mark) {
        return failed(BAD_HANDLE, "the time of an event that has none");
    }
    if (!first.mark->done || !last.mark->done) {
        return failed(NOT_READY, "the time of an event that is not there yet");
    }
    const auto passed = last.mark->time - first.mark->time;
    *milliseconds = std::chrono::duration<float, std::milli>(passed).count();
    return OK;
}
}
