// SPDX-License-Identifier: Apache-2.0
// TlsSession seals and opens the records of one connection over a non-blocking socket. It never
// waits: every step says what it waits for, and the caller does (poll here, Asio there).
// Promise: read() hands out verified plain bytes only; write() keeps sealed records together so
// that one send(2) takes 64 KiB of them.
// Callers: one thread at a time. Owns: the TLS state, not the descriptor.
// Failure: Step::failed, and failure() says what happened and which side refused.
#pragma once

#include <memory>
#include <string>

#include "user/base/bytes.h"
#include "user/base/result.h"
#include "user/wire/tls.h"

namespace herald::wire {

enum class Step {
    done,        // progress was made
    want_read,   // again when the socket is readable
    want_write,  // again when the socket is writable
    closed,      // the peer ended the connection
    failed,      // see failure()
};

class TlsSession {
  public:
    // `host`: what the certificate must name; for clients only. A session of a server context
    // accepts, one of a client context connects.
    static Result<std::unique_ptr<TlsSession>> make(const TlsContext& context, int fd,
                                                    const std::string& host = {});
    ~TlsSession();

    Step handshake();
    // Up to to.size() bytes, at least one when done.
    Step read(ByteSpan to, size_t& got);
    // Seals bytes from the front of `from`; `taken` of them are sent or buffered, also when the
    // step is want_write. done: all of them. Call flush() after the last.
    Step write(ByteView from, size_t& taken);
    Step flush();
    // Tells the peer that nothing follows; does not wait for its answer.
    Step close();

    const Error& failure() const { return failure_; }
    // After the handshake.
    Result<Identity> peer() const;

  private:
    TlsSession() = default;
    Step outcome(int result, const char* doing);
    void explain(const char* doing);

    struct State;
    std::unique_ptr<State> state_;
    Error failure_;
};

}  // namespace herald::wire
