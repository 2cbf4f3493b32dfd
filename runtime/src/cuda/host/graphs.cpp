// The driver's functions of captures and graphs.
#include "line.hpp"

#include <algorithm>

namespace host {
namespace {

// An order of a graph's nodes: those of other streams than the first come before all that they may, or after.
std::vector<std::size_t> order(const Graph &graph, bool first) {
    std::vector<std::size_t> found;
    std::vector<bool> done(graph.nodes.size());
    const auto is_ready = [&](const Node &node) {
        return std::all_of(node.after.begin(), node.after.end(), [&](std::size_t at) { return done[at]; });
    };
    // A branch is a stream: of each only the first that is left may be ready.
    std::vector<std::deque<std::size_t>> branches(graph.streams.size());
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
        branches[graph.nodes[i].branch].push_back(i);
    }
    while (found.size() < graph.nodes.size()) {
        for (std::size_t i = 0; i < branches.size(); ++i) {
            auto &branch = branches[first ? branches.size() - 1 - i : i];
            if (!branch.empty() && is_ready(graph.nodes[branch.front()])) {
                done[branch.front()] = true;
                found.push_back(branch.front());
                branch.pop_front();
                break;
            }
        }
    }
    return found;
}

// All that work of these numbers comes after, and they.
std::set<std::size_t> before(const Capture &capture, const std::set<std::size_t> &tails) {
    std::set<std::size_t> found = tails;
    for (std::size_t i = capture.nodes.size(); i-- > 0;) {
        if (found.count(i)) {
            found.insert(capture.nodes[i].after.begin(), capture.nodes[i].after.end());
        }
    }
    return found;
}

} // namespace
} // namespace host

using namespace host;

extern "C" {

// Of the modes only the one in which the calls of other threads do not matter.
int cuStreamBeginCapture_v2(void *stream, int mode) {
    ENTER
    auto &own = *static_cast<Stream *>(stream);
    if (mode != 1 || own.capture) {
        return failed(BAD_VALUE, "a capture in another mode, or of a stream that is captured");
    }
    own.capture = std::make_shared<Capture>(Capture{&own, std::this_thread::get_id()});
    own.capture->joined.push_back(&own);
    own.tails.clear();
    ++capturing;
    return OK;
}

int cuStreamEndCapture(void *stream, void **graph) {
    ENTER
    auto &own = *static_cast<Stream *>(stream);
    const auto capture = own.capture;
    *graph = nullptr;
    if (!capture || capture->origin != &own) {
        return failed(CAPTURE_UNMATCHED, "no capture to end on this stream");
    }
    if (capture->thread != std::this_thread::get_id()) {
        return failed(CAPTURE_WRONG_THREAD, "the end of a capture on another thread than its beginning");
    }
    const auto reached = before(*capture, own.tails);
    bool joined = true;
    for (Stream *other : capture->joined) {
        joined &= std::includes(reached.begin(), reached.end(), other->tails.begin(), other->tails.end());
        other->capture = nullptr;
        other->tails.clear();
    }
    capture->ended = true;
    --capturing;
    if (capture->broken) {
        return failed(CAPTURE_INVALIDATED, all().reason);
    }
    if (!joined) {
        return failed(CAPTURE_UNJOINED, "the end of a capture that another stream still has work in");
    }
    *graph = new Graph{std::move(capture->nodes)};
    return OK;
}

int cuStreamIsCapturing(void *stream, int *status) {
    const Lock lock(turn);
    const auto &own = *static_cast<Stream *>(stream);
    *status = !own.capture ? 0 : own.capture->broken ? 2 : 1;
    return OK;
}

int cuGraphInstantiateWithFlags(void **instance, void *graph, unsigned long long) {
    ENTER
    auto *made = new Graph(*static_cast<Graph *>(graph));
    for (const Node &node : made->nodes) {
        while (made->streams.size() <= node.branch) {
            made->streams.push_back(++all().numbers);
        }
    }
    *instance = made;
    return OK;
}

// Branches run one after the other, those of other streams first or last in turns.
int cuGraphLaunch(void *instance, void *stream) {
    ENTER
    if (is_captured(stream)) {
        return failed(CAPTURE_UNSUPPORTED, "a graph within a graph, which this host does not play");
    }
    auto &on = *static_cast<Stream *>(stream);
    const auto &graph = *static_cast<Graph *>(instance);
    const Clock start = next(on);
    std::vector<Clock> clocks;
    std::vector<std::uint64_t> numbers;
    for (const Node &node : graph.nodes) {
        Clock clock = start;
        for (const std::size_t other : node.after) {
            join(clock, clocks[other]);
        }
        numbers.push_back(node.branch == 0 ? on.number : graph.streams[node.branch]);
        clock[numbers.back()] = ++all().work;
        clocks.push_back(std::move(clock));
    }
    for (const std::size_t i : order(graph, ++all().forced % 2 == 0)) {
        if (const int code = enqueue(on, graph.nodes[i].work, numbers[i], clocks[i])) {
            return code;
        }
        if (Event *event = graph.nodes[i].event) {
            event->asked = false;
            event->capture = nullptr;
            event->mark = on.waiting.back().mark = std::make_shared<Mark>(Mark{&on});
            event->mark->clock = clocks[i];
        }
        join(on.clock, clocks[i]);
    }
    return OK;
}

int cuGraphDestroy(void *graph) {
    const Lock lock(turn);
    delete static_cast<Graph *>(graph);
    return OK;
}

// What is queued of it is still done.
int cuGraphExecDestroy(void *instance) {
    const Lock lock(turn);
    delete static_cast<Graph *>(instance);
    return OK;
}
}
