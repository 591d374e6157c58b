// SPDX-License-Identifier: Apache-2.0
// Unix sockets that only root can open, and waiting on a descriptor until a moment.
// Callers: any thread. Owns nothing. Failure: errors name the socket's path.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>

#include "user/base/file.h"

namespace herald::agent {

// Mode 0600 from the first instant. A socket file that nobody listens on is replaced; one that
// answers is an error. `type` is SOCK_STREAM or SOCK_SEQPACKET. The listener does not block.
Result<Fd> listen_unix(const std::filesystem::path& path, int type, int backlog);
// Error::sys tells why not.
Result<Fd> connect_unix(const std::filesystem::path& path, int type);
// The uid at the other end, as the kernel knows it.
std::optional<uid_t> peer_uid(int socket);
// Waits for the poll events (or an error or hang-up) on fd; false when the deadline passed first.
bool wait_for(int fd, short events, std::chrono::steady_clock::time_point deadline);

}  // namespace herald::agent
