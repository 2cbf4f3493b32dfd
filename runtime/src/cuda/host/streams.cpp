// How streams run. Work waits in line until the host waits for it, or memory is freed. Then, every other time, other streams
// of the device come first as far as they may, so that work which should have waited for another stream's is seen to come
// too early as well as too late; and whatever the order, memory that two streams use without waiting is a failure.
#include "line.hpp"

#include <algorithm>
#include <cstring>

namespace host {

thread_local int current = 0, capturing = 0;
thread_local bool inside = false;

All &all() {
    static All &one = *new All;
    return one;
}

namespace {

bool overlap(const Use &a, const Use &b) {
    return a.at < b.at + b.bytes && b.at < a.at + a.bytes;
}

std::uint64_t digest(const Use &memory) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (std::size_t i = 0; i < memory.bytes; ++i) {
        hash = (hash ^ reinterpret_cast<const unsigned char *>(memory.at)[i]) * 0x100000001b3;
    }
    return hash;
}

int lose(int device, int code) {
    return all().lost[device] = code;
}

int unchanged(const Source &source) {
    return digest(source.memory) == source.digest
               ? int{OK}
               : lose(source.device, failed(LAUNCH_FAILED, "pinned memory was written before the copy from it was waited for"));
}

// The host knows that all this is done.
int observe(const Clock &clock) {
    join(all().known, clock);
    auto &sources = all().sources;
    for (auto source = sources.begin(); source != sources.end();) {
        const auto known = all().known.find(source->stream);
        if (known == all().known.end() || known->second < source->number) {
            ++source;
        } else if (const int code = unchanged(*source)) {
            return code;
        } else {
            source = sources.erase(source);
        }
    }
    return OK;
}

int perform(Lock &lock, Stream &stream);

int until(Lock &lock, const Mark &mark) {
    while (!mark.done) {
        Stream &stream = *mark.stream;
        if (stream.busy) {
            // Who goes on with it may take its next work at once, and that may wait for what this thread has under way.
            all().moved.wait(lock, [&] { return mark.done || !stream.busy; });
            if (const int code = all().lost[stream.device]) {
                return code;
            }
        } else if (const int code = perform(lock, stream)) {
            return code;
        }
    }
    return OK;
}

// Does the first of a stream's line.
int perform(Lock &lock, Stream &stream) {
    if (stream.busy) {
        all().moved.wait(lock, [&] { return !stream.busy; });
        return all().lost[stream.device];
    }
    if (stream.waiting.empty()) {
        return OK;
    }
    const Task task = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    stream.busy = true;
    int code = task.after ? until(lock, *task.after) : all().lost[stream.device];
    if (code == OK && task.digest != 0 && digest(task.work.source) != task.digest) {
        code = failed(LAUNCH_FAILED, "pinned memory was written before the copy from it was waited for");
    }
    if (code == OK && task.work.run) {
        if (task.work.apart) {
            lock.unlock();
            code = task.work.run();
            lock.lock();
        } else {
            code = task.work.run();
        }
    }
    stream.busy = false;
    if (task.mark) {
        task.mark->done = true;
        task.mark->time = std::chrono::steady_clock::now();
    }
    all().moved.notify_all();
    return code ? lose(stream.device, code) : int{OK};
}

// Before something of `target` is waited for: every other time, what others may do by themselves.
int others_first(Lock &lock, const Stream *target) {
    if (++all().forced % 2 == 0) {
        return OK;
    }
    const auto streams = all().streams;
    for (Stream *stream : streams) {
        while (stream != target && stream->device == current && !stream->busy && !stream->waiting.empty()) {
            const Task &first = stream->waiting.front();
            if (first.work.late || first.work.apart || (first.after && !first.after->done)) {
                break;
            }
            if (const int code = perform(lock, *stream)) {
                return code;
            }
        }
    }
    return OK;
}

int sources_are_unchanged() {
    for (const Source &source : all().sources) {
        const int code = source.device == current ? unchanged(source) : int{OK};
        if (code) {
            return code;
        }
    }
    return OK;
}

} // namespace

int enqueue(Stream &stream, const Work &work, std::uint64_t number, const Clock &clock) {
    const std::string wrong = all().uses.note(number, clock, work.uses);
    if (!wrong.empty()) {
        return lose(stream.device, failed(LAUNCH_FAILED, "work on a stream " + wrong));
    }
    Task task{work};
    const auto any_waits = [](auto is) {
        return std::any_of(all().streams.begin(), all().streams.end(), [&](const Stream *other) {
            return std::any_of(other->waiting.begin(), other->waiting.end(), is);
        });
    };
    if (work.late) {
        // It comes after those copies, and may write where they have read.
        all().sources.remove_if([&](const Source &source) {
            const auto before = clock.find(source.stream);
            return before != clock.end() && source.number <= before->second;
        });
    }
    // What the host is to find there is not known before that is done which may write it.
    if (work.source.bytes > 0 && !any_waits([](const Task &t) { return t.work.late; })) {
        task.digest = digest(work.source);
        all().sources.push_back({number, clock.at(number), task.digest, work.source, stream.device});
    }
    const auto reads_target = [&](const Task &t) { return overlap(t.work.source, work.target); };
    if (work.target.bytes > 0 && !any_waits(reads_target)) {
        std::memset(reinterpret_cast<void *>(work.target.at), 0xff, work.target.bytes);
    }
    stream.waiting.push_back(std::move(task));
    return OK;
}

Clock next(Stream &stream) {
    join(stream.clock, all().known);
    stream.clock[stream.number] = ++all().work;
    return stream.clock;
}

int wait(Lock &lock, const Mark &mark) {
    int code = sources_are_unchanged();
    code = code ? code : others_first(lock, mark.stream);
    code = code ? code : until(lock, mark);
    return code ? code : observe(mark.clock);
}

int finish_own(Lock &lock, Stream &stream) {
    while (!stream.waiting.empty() || stream.busy) {
        if (const int code = perform(lock, stream)) {
            return code;
        }
    }
    return observe(stream.clock);
}

int broken(Capture &capture, int code, const std::string &why) {
    capture.broken = true;
    return failed(code, why);
}

std::mutex &turn = all().turn;

int failed(int code, const std::string &why) {
    all().reason = why;
    return code;
}

int refusal() {
    ++all().calls;
    return inside ? failed(NOT_PERMITTED, "a call of CUDA from a host function") : all().lost[current];
}

int refused_in_capture(const char *what) {
    return capturing ? failed(CAPTURE_UNSUPPORTED, std::string(what) + " while a stream is captured") : int{OK};
}

int push(void *to, Work work) {
    if (!to) {
        return failed(BAD_HANDLE, "the default stream, which this host does not play");
    }
    auto &stream = *static_cast<Stream *>(to);
    if (const auto &capture = stream.capture) {
        if (capture->broken) {
            return failed(CAPTURE_INVALIDATED, "work on a stream whose capture is broken");
        }
        const auto place = std::find(capture->joined.begin(), capture->joined.end(), &stream);
        const auto branch = static_cast<std::size_t>(place - capture->joined.begin());
        capture->nodes.push_back({std::move(work), stream.tails, branch});
        stream.tails = {capture->nodes.size() - 1};
        return OK;
    }
    const Clock clock = next(stream);
    return enqueue(stream, work, stream.number, clock);
}

int queue(void *stream, std::function<int()> work) {
    Lock lock(turn);
    const int code = refusal();
    return code ? code : push(stream, Work{std::move(work)});
}

int queue_apart(void *stream, std::function<int()> work, std::vector<Use> uses) {
    Lock lock(turn);
    const int code = refusal();
    return code ? code : push(stream, Work{std::move(work), std::move(uses), true, true});
}

int finish(Lock &lock, void *stream) {
    auto &own = *static_cast<Stream *>(stream);
    int code = sources_are_unchanged();
    code = code ? code : others_first(lock, &own);
    return code ? code : finish_own(lock, own);
}

int finish_all(Lock &lock) {
    int code = sources_are_unchanged();
    const auto streams = all().streams;
    for (Stream *stream : streams) {
        if (!code && stream->device == current) {
            code = finish_own(lock, *stream);
        }
    }
    return code;
}

bool is_captured(void *stream) {
    return stream && static_cast<Stream *>(stream)->capture;
}

bool forget(std::uintptr_t at, std::size_t bytes) {
    const auto overlaps = [memory = Use{at, bytes, true}](const Use &use) { return overlap(use, memory); };
    for (const Stream *stream : all().streams) {
        for (const Task &task : stream->waiting) {
            if (overlaps(task.work.source) || overlaps(task.work.target)) {
                return true;
            }
        }
    }
    all().uses.forget(at, bytes);
    all().sources.remove_if([&](const Source &source) { return overlaps(source.memory); });
    return false;
}

int current_device() {
    return current;
}

void keep_moving() {
    static std::set<int> moving;
    const Lock lock(turn);
    if (!moving.insert(current).second) {
        return;
    }
    std::thread([device = current] {
        current = device;
        for (std::uint64_t seen = 0;;) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            Lock lock(turn);
            if (seen != all().calls) {
                seen = all().calls;
                continue;
            }
            const auto streams = all().streams;
            for (Stream *stream : streams) {
                if (stream->device == device && !stream->busy && !all().lost[device] && seen == all().calls) {
                    perform(lock, *stream);
                }
            }
        }
    }).detach();
}

} // namespace host
