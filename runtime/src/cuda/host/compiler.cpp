// A compiler of kernels that does nothing, beside the driver that computes on the processor: there all kernels are built
// already, and are found by the names they are asked for.
#include <cstddef>
#include <cstring>
#include <set>
#include <string>

namespace {

const char CODE[] = "built for the processor";

// The names asked for, which live as long as the program.
using Program = std::set<std::string>;

} // namespace

extern "C" {

// No version that NVIDIA's has: what is kept by version is not mixed up.
int nvrtcVersion(int *major, int *minor) {
    *major = 0;
    *minor = 1;
    return 0;
}

const char *nvrtcGetErrorString(int) {
    return "failure";
}

int nvrtcCreateProgram(void **program, const char *, const char *, int, const char *const *, const char *const *) {
    *program = new Program;
    return 0;
}

int nvrtcDestroyProgram(void **program) {
    delete static_cast<Program *>(*program);
    return 0;
}

int nvrtcAddNameExpression(void *program, const char *name) {
    static_cast<Program *>(program)->insert(name);
    return 0;
}

int nvrtcCompileProgram(void *, int, const char *const *) {
    return 0;
}

int nvrtcGetProgramLogSize(void *, std::size_t *size) {
    *size = 1;
    return 0;
}

int nvrtcGetProgramLog(void *, char *log) {
    *log = 0;
    return 0;
}

int nvrtcGetLoweredName(void *program, const char *name, const char **lowered) {
    *lowered = static_cast<Program *>(program)->find(name)->c_str();
    return 0;
}

int nvrtcGetPTXSize(void *, std::size_t *size) {
    *size = 1;
    return 0;
}

int nvrtcGetPTX(void *, char *text) {
    *text = 0;
    return 0;
}

int nvrtcGetCUBINSize(void *, std::size_t *size) {
    *size = sizeof CODE;
    return 0;
}

int nvrtcGetCUBIN(void *, char *code) {
    std::memcpy(code, CODE, sizeof CODE);
    return 0;
}
}
