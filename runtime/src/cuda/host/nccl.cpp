// NCCL, as far as the program uses it, between processes of one machine, beside the driver that computes on the processor:
// all are connected to a hub in the process that made the id. Communicators that block are refused, and what was asked for is
// queued on its stream only when the program polls. A rank that is lost is waited for until the communicator is aborted.
#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <set>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "streams.hpp"

extern "C" int cuGetErrorString(int, const char **);

namespace {

constexpr int SUCCESS = 0, SYSTEM = 2, BAD_ARGUMENT = 4, BAD_USAGE = 5, IN_PROGRESS = 7;
constexpr int FLOAT = 7, SUM = 0, ALL_REDUCE = 1, BROADCAST = 2;
// Longer than any test is to wait for a rank.
constexpr auto PATIENCE = std::chrono::seconds(100);

struct Id {
    char bytes[128];
};

struct Config {
    std::size_t size;
    unsigned magic, version;
    int blocking;
};

struct Hello {
    std::uint64_t secret;
    int ranks, rank, device;
};

// Something to do together; all ranks must ask for the same.
struct Order {
    int what, count, root, last;
};

struct Asked {
    Order order;
    float *at;
};

struct Comm {
    int ranks, rank, socket = -1;
    std::atomic<bool> aborted{false}, there{false};
    std::string wrong;
    // Queued when the program polls.
    void *stream = nullptr;
    std::vector<Asked> asked;
    bool finalized = false;
};

std::mutex turn;
std::set<void *> &open = *new std::set<void *>;
std::string reason;
thread_local int groups = 0;

int failed(int code, const std::string &why) {
    reason = why;
    return code;
}

// Sends or receives all; false where the connection ended or `stop` was set.
template <typename F>
bool all(int socket, short what, std::size_t bytes, const std::atomic<bool> &stop, F some) {
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t done = 0; done < bytes;) {
        pollfd ready{socket, what, 0};
        if (stop || std::chrono::steady_clock::now() - start > PATIENCE) {
            return false;
        }
        if (poll(&ready, 1, 5) <= 0) {
            continue;
        }
        const ssize_t count = some(done);
        if (count <= 0) {
            return false;
        }
        done += static_cast<std::size_t>(count);
    }
    return true;
}

bool write_all(int socket, const void *from, std::size_t bytes, const std::atomic<bool> &stop) {
    const auto *at = static_cast<const char *>(from);
    return all(socket, POLLOUT, bytes, stop, [&](std::size_t done) {
        return send(socket, at + done, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    });
}

bool read_all(int socket, void *to, std::size_t bytes, const std::atomic<bool> &stop) {
    auto *at = static_cast<char *>(to);
    return all(socket, POLLIN, bytes, stop, [&](std::size_t done) { return recv(socket, at + done, bytes - done, MSG_DONTWAIT); });
}

// Tells a rank why not, or nothing.
void answer(int socket, const std::string &why, const std::atomic<bool> &stop) {
    const auto length = static_cast<std::uint32_t>(why.size());
    write_all(socket, &length, sizeof length, stop);
    write_all(socket, why.data(), length, stop);
}

bool heard(int socket, std::string &why, const std::atomic<bool> &stop) {
    std::uint32_t length = 0;
    if (!read_all(socket, &length, sizeof length, stop)) {
        return false;
    }
    why.resize(length);
    return read_all(socket, why.data(), length, stop);
}

// Puts together what the ranks send. Sums are in another order than that of the ranks.
void serve(int listener, std::uint64_t secret) {
    static const std::atomic<bool> never{false};
    std::vector<int> ranks;
    std::vector<int> devices;
    for (std::size_t there = 0; ranks.empty() || there < ranks.size();) {
        const int socket = accept(listener, nullptr, nullptr);
        Hello hello;
        if (socket < 0 || !read_all(socket, &hello, sizeof hello, never) || hello.secret != secret) {
            continue;
        }
        ranks.resize(static_cast<std::size_t>(hello.ranks), -1);
        devices.resize(ranks.size(), -1);
        ranks[static_cast<std::size_t>(hello.rank)] = socket;
        devices[static_cast<std::size_t>(hello.rank)] = hello.device;
        ++there;
    }
    const bool twice = std::set<int>(devices.begin(), devices.end()).size() < devices.size();
    for (const int socket : ranks) {
        answer(socket, twice ? "Duplicate GPU detected" : "", never);
    }
    for (;;) {
        std::vector<Order> orders(ranks.size());
        std::vector<std::vector<float>> values(ranks.size());
        std::string wrong;
        for (std::size_t i = 0; i < ranks.size(); ++i) {
            if (!read_all(ranks[i], &orders[i], sizeof orders[i], never)) {
                // The others wait, as they do on GPUs.
                return;
            }
            const bool gives = orders[i].what == ALL_REDUCE || orders[i].root == static_cast<int>(i);
            values[i].resize(gives ? static_cast<std::size_t>(orders[i].count) : 0);
            read_all(ranks[i], values[i].data(), values[i].size() * sizeof(float), never);
            if (std::memcmp(&orders[i], &orders[0], sizeof(Order)) != 0) {
                wrong = "rank " + std::to_string(i) + " does something else than rank 0";
            }
        }
        std::vector<float> result = values[orders[0].what == ALL_REDUCE ? ranks.size() - 1 : static_cast<std::size_t>(orders[0].root)];
        if (orders[0].what == ALL_REDUCE && wrong.empty()) {
            for (std::size_t i = ranks.size() - 1; i-- > 0;) {
                for (std::size_t j = 0; j < result.size(); ++j) {
                    result[j] += values[i][j];
                }
            }
        }
        for (const int socket : ranks) {
            answer(socket, wrong, never);
            if (wrong.empty()) {
                write_all(socket, result.data(), result.size() * sizeof(float), never);
            }
        }
    }
}

// One thing that a rank does; it ends without a result where the communicator is aborted.
int perform(Comm &comm, const Asked &asked) {
    const std::size_t bytes = static_cast<std::size_t>(asked.order.count) * sizeof(float);
    const bool gives = asked.order.what == ALL_REDUCE || asked.order.root == comm.rank;
    std::string why;
    const bool done = write_all(comm.socket, &asked.order, sizeof asked.order, comm.aborted) &&
                      (!gives || write_all(comm.socket, asked.at, bytes, comm.aborted)) &&
                      heard(comm.socket, why, comm.aborted) &&
                      (!why.empty() || read_all(comm.socket, asked.at, bytes, comm.aborted));
    if (!why.empty()) {
        return host::failed(host::LAUNCH_FAILED, "NCCL: " + why);
    }
    const auto start = std::chrono::steady_clock::now();
    while (!done && !comm.aborted) {
        if (std::chrono::steady_clock::now() - start > PATIENCE) {
            return host::failed(host::LAUNCH_FAILED, "NCCL: a rank is waited for in vain");
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (!done) {
        std::memset(asked.at, 0xff, bytes);
    }
    return host::OK;
}

Comm *known(void *comm) {
    return open.count(comm) ? static_cast<Comm *>(comm) : nullptr;
}

// Of one stream until the program polls, and of 32-bit floats only.
int ask(void *handle, int what, const void *from, void *to, std::size_t count, int type, int root, void *stream) {
    const std::lock_guard<std::mutex> lock(turn);
    Comm *comm = known(handle);
    if (!comm || !comm->there || comm->finalized) {
        return failed(BAD_ARGUMENT, "a communicator that is not there, or has ended");
    }
    if (type != FLOAT || from != to || root < 0 || root >= comm->ranks || count == 0 || host::is_captured(stream)) {
        return failed(BAD_ARGUMENT, "what this host does not play");
    }
    if (groups == 0 || (!comm->asked.empty() && (comm->stream != stream || comm->asked.back().order.last))) {
        return failed(BAD_USAGE, "more is asked for while what was asked for is not queued");
    }
    comm->stream = stream;
    comm->asked.push_back({{what, static_cast<int>(count), root, 0}, static_cast<float *>(to)});
    return SUCCESS;
}

int start(Comm *comm) {
    std::vector<host::Use> uses;
    for (const Asked &asked : comm->asked) {
        const bool writes = asked.order.what == ALL_REDUCE || asked.order.root != comm->rank;
        uses.push_back({reinterpret_cast<std::uintptr_t>(asked.at), static_cast<std::size_t>(asked.order.count) * 4, writes});
    }
    return host::queue_apart(
        comm->stream,
        [comm, asked = std::move(comm->asked)] {
            for (const Asked &one : asked) {
                if (const int code = perform(*comm, one)) {
                    return code;
                }
            }
            return int{host::OK};
        },
        uses);
}

} // namespace

extern "C" {

int ncclGetVersion(int *version) {
    *version = 22703;
    return SUCCESS;
}

const char *ncclGetErrorString(int code) {
    return code == SUCCESS ? "no error" : code == BAD_USAGE ? "invalid usage" : code == BAD_ARGUMENT ? "invalid argument" : "unhandled system error";
}

const char *ncclGetLastError(void *) {
    return reason.c_str();
}

int ncclGetUniqueId(Id *id) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    if (bind(listener, reinterpret_cast<sockaddr *>(&address), length) || listen(listener, 64) ||
        getsockname(listener, reinterpret_cast<sockaddr *>(&address), &length)) {
        return failed(SYSTEM, "no socket");
    }
    const auto secret = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    std::memset(id->bytes, 0, sizeof id->bytes);
    std::memcpy(id->bytes, &address, sizeof address);
    std::memcpy(id->bytes + sizeof address, &secret, sizeof secret);
    std::thread(serve, listener, secret).detach();
    return SUCCESS;
}

int ncclCommInitRankConfig(void **handle, int ranks, Id id, int rank, Config *config) {
    if (config->magic != 0xcafebeef || config->blocking != 0) {
        return failed(BAD_ARGUMENT, "a communicator that blocks");
    }
    host::keep_moving();
    auto *comm = new Comm;
    comm->ranks = ranks;
    comm->rank = rank;
    const std::lock_guard<std::mutex> lock(turn);
    open.insert(comm);
    *handle = comm;
    std::thread([comm, id, device = host::current_device()] {
        sockaddr_in address;
        Hello hello{0, comm->ranks, comm->rank, device};
        std::memcpy(&address, id.bytes, sizeof address);
        std::memcpy(&hello.secret, id.bytes + sizeof address, sizeof hello.secret);
        const int own = socket(AF_INET, SOCK_STREAM, 0);
        const int at_once = 1;
        setsockopt(own, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
        std::string why = "no connection";
        if (connect(own, reinterpret_cast<sockaddr *>(&address), sizeof address) == 0 &&
            write_all(own, &hello, sizeof hello, comm->aborted)) {
            heard(own, why, comm->aborted);
        }
        const std::lock_guard<std::mutex> lock(turn);
        comm->socket = own;
        comm->wrong = why;
        comm->there = true;
    }).detach();
    return IN_PROGRESS;
}

int ncclGroupStart() {
    ++groups;
    return SUCCESS;
}

int ncclGroupEnd() {
    const std::lock_guard<std::mutex> lock(turn);
    if (groups == 0) {
        return failed(BAD_USAGE, "no group to end");
    }
    --groups;
    bool any = false;
    for (void *comm : open) {
        auto &asked = static_cast<Comm *>(comm)->asked;
        if (!asked.empty()) {
            asked.back().order.last = 1;
            any = true;
        }
    }
    return any ? IN_PROGRESS : SUCCESS;
}

int ncclAllReduce(const void *from, void *to, std::size_t count, int type, int operation, void *comm, void *stream) {
    return operation == SUM ? ask(comm, ALL_REDUCE, from, to, count, type, 0, stream) : failed(BAD_ARGUMENT, "another sum");
}

int ncclBroadcast(const void *from, void *to, std::size_t count, int type, int root, void *comm, void *stream) {
    return ask(comm, BROADCAST, from, to, count, type, root, stream);
}

int ncclCommGetAsyncError(void *handle, int *code) {
    const std::lock_guard<std::mutex> lock(turn);
    Comm *comm = known(handle);
    if (!comm) {
        return failed(BAD_ARGUMENT, "a communicator that has ended");
    }
    *code = comm->there ? SUCCESS : IN_PROGRESS;
    if (comm->there && !comm->wrong.empty()) {
        *code = failed(BAD_USAGE, comm->wrong);
    } else if (comm->there && !comm->asked.empty() && comm->asked.back().order.last) {
        const char *why = nullptr;
        *code = start(comm) && !cuGetErrorString(0, &why) ? failed(SYSTEM, why) : IN_PROGRESS;
        comm->asked.clear();
    }
    return SUCCESS;
}

int ncclCommFinalize(void *handle) {
    const std::lock_guard<std::mutex> lock(turn);
    Comm *comm = known(handle);
    if (!comm || !comm->there || !comm->asked.empty()) {
        return failed(BAD_USAGE, "the end of what is not there, or not settled");
    }
    comm->finalized = true;
    return IN_PROGRESS;
}

int ncclCommDestroy(void *handle) {
    const std::lock_guard<std::mutex> lock(turn);
    Comm *comm = known(handle);
    if (!comm || !comm->finalized) {
        return failed(BAD_USAGE, "the end of what was not finalized");
    }
    open.erase(handle);
    return SUCCESS;
}

// What is queued still has it.
int ncclCommAbort(void *handle) {
    const std::lock_guard<std::mutex> lock(turn);
    Comm *comm = known(handle);
    if (!comm) {
        return failed(BAD_ARGUMENT, "a communicator that has ended");
    }
    comm->aborted = true;
    open.erase(handle);
    return SUCCESS;
}
}
