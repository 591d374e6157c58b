// SPDX-License-Identifier: Apache-2.0
#include "user/base/io_engine.h"

#include "herald/limits.h"
#include "user/base/io_engines.h"

namespace herald {

Result<std::unique_ptr<IoEngine>> make_io_engine(IoEngineKind kind, int fd, size_t depth) {
    if (depth == 0 || depth > HERALD_IO_DEPTH_MAX) {
        return fail(ErrorKind::operator_needed, "I/O engine: queue depth {} is not in 1 to {}",
                    depth, HERALD_IO_DEPTH_MAX);
    }
    switch (kind) {
        case IoEngineKind::io_uring:
            return make_io_uring_engine(fd, depth);
        case IoEngineKind::libaio:
            return make_libaio_engine(fd, depth);
        case IoEngineKind::pread:
            return make_pread_engine(fd, depth);
        case IoEngineKind::automatic:
            break;
    }
    if (auto engine = make_io_uring_engine(fd, depth)) return engine;
    if (auto engine = make_libaio_engine(fd, depth)) return engine;
    return make_pread_engine(fd, depth);
}

const char* to_string(IoEngineKind kind) {
    switch (kind) {
        case IoEngineKind::automatic:
            return "auto";
        case IoEngineKind::io_uring:
            return "io_uring";
        case IoEngineKind::libaio:
            return "libaio";
        case IoEngineKind::pread:
            return "pread";
    }
    return "unknown";
}

Result<IoEngineKind> parse_io_engine_kind(std::string_view text) {
    for (IoEngineKind kind : {IoEngineKind::automatic, IoEngineKind::io_uring, IoEngineKind::libaio,
                              IoEngineKind::pread}) {
        if (text == to_string(kind)) return kind;
    }
    return fail(ErrorKind::operator_needed,
                "I/O engine '{}' is not known: use auto, io_uring, libaio or pread", text);
}

}  // namespace herald
