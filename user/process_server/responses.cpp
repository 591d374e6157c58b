// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/responses.h"

#include <spdlog/spdlog.h>

#include <cerrno>

#include "user/wire/messages.h"

namespace herald::process_server {

using wire::error_response;
using wire::ServerResponse;

Refusal refuse(unsigned status, std::string_view code, std::string_view message,
               uint64_t retry_after_s) {
    return Refusal(error_response(status, code, message, retry_after_s));
}

ServerResponse fenced(uint64_t epoch) {
    return error_response(409, wire::kErrorFenced,
                          fmt::format("the session is over: epoch {} was granted since", epoch));
}

ServerResponse trouble(const Error& error, uint64_t full_retry_s) {
    if (error.sys == ENOSPC || error.sys == EDQUOT || error.sys == EROFS) {
        return error_response(507, wire::kErrorFull,
                              fmt::format("the server cannot store more: {}", error.message),
                              full_retry_s);
    }
    spdlog::error("{}", error.message);
    const bool passing = error.kind == ErrorKind::retry;
    return error_response(passing ? 503 : 500, passing ? wire::kErrorBusy : wire::kErrorInternal,
                          error.message, passing ? 1 : 0);
}

}  // namespace herald::process_server
