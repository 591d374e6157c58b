// SPDX-License-Identifier: Apache-2.0
// Database and Statement: as much of SQLite as the catalog needs, with our errors.
// Promise: an Error carries what SQLite said; a full disk has sys == ENOSPC and is worth a retry.
// Callers: one thread at a time for a Database and its Statements. Owns: the connection.
// Unsigned 64-bit values are stored as the signed value with the same bits.
#pragma once

#include <sqlite3.h>

#include <filesystem>
#include <memory>

#include "user/base/bytes.h"
#include "user/base/digest.h"
#include "user/base/result.h"
#include "user/base/uuid.h"

namespace herald::vault {

// One use of a prepared statement: bind in order, step, read columns. Reset when it goes.
class Statement {
  public:
    Statement(sqlite3* db, sqlite3_stmt* statement) : db_(db), statement_(statement) {}
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    ~Statement();

    Statement& bind(uint64_t value);
    Statement& bind(std::string_view text);
    Statement& bind_bytes(ByteView bytes);
    Statement& bind(const Uuid& id) { return bind_bytes(id.bytes); }

    // True: a row is there.
    Result<bool> step();
    // For statements that give no rows.
    Result<void> run();

    uint64_t number(int column) const;
    std::string text(int column) const;
    ByteView bytes(int column) const;  // until the next step
    Uuid id(int column) const;         // nil when it has another size
    Digest128 digest(int column) const;

  private:
    sqlite3* db_;
    sqlite3_stmt* statement_;
    int bound_ = 0;
    int bind_error_ = SQLITE_OK;
};

class Database {
  public:
    static Result<Database> open(const std::filesystem::path& path);

    Result<void> execute(const char* sql);
    // `sql` is a literal: statements are prepared once and kept by its address.
    Statement prepare(const char* sql);
    Result<uint64_t> number_of(const char* sql);

  private:
    struct State;
    struct Close {
        void operator()(State* state) const;
    };
    std::unique_ptr<State, Close> state_;
};

}  // namespace herald::vault
