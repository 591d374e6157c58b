// SPDX-License-Identifier: Apache-2.0
// The error responses that several kinds of request share.
// Callers: any thread; sans I/O.
#pragma once

#include "user/wire/http_server.h"

namespace herald::process_server {

// A refusal as the unexpected side of what a step of a request returns.
using Refusal = tl::unexpected<wire::ServerResponse>;
Refusal refuse(unsigned status, std::string_view code, std::string_view message,
               uint64_t retry_after_s = 0);

wire::ServerResponse fenced(uint64_t epoch);
// Store or catalog have trouble: nothing was acknowledged, asking again is safe. `full_retry_s`:
// after how many seconds it is worth asking when the trouble is a full store.
wire::ServerResponse trouble(const Error& error, uint64_t full_retry_s);

}  // namespace herald::process_server
