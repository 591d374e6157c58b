// SPDX-License-Identifier: Apache-2.0
#include "user/vault/sqlite.h"

#include <cerrno>
#include <map>

namespace herald::vault {

struct Database::State {
    sqlite3* db = nullptr;
    std::map<const char*, sqlite3_stmt*> statements;
};

namespace {

tl::unexpected<Error> fail_sqlite(sqlite3* db, int code, std::string_view doing) {
    Error error;
    error.message = fmt::format("catalog: {}: {}", doing, db ? sqlite3_errmsg(db) : "no memory");
    error.sys = db ? sqlite3_system_errno(db) : ENOMEM;
    switch (code & 0xff) {
        case SQLITE_FULL:
            error.sys = ENOSPC;
            error.kind = ErrorKind::retry;
            break;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
        case SQLITE_IOERR:
        case SQLITE_NOMEM:
            error.kind = ErrorKind::retry;
            break;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            error.kind = ErrorKind::corrupt;
            break;
        default:
            error.kind = ErrorKind::operator_needed;
    }
    return tl::unexpected<Error>(std::move(error));
}

template <size_t N>
void copy_exact(ByteView from, std::array<std::byte, N>& to) {
    if (from.size() == N) std::memcpy(to.data(), from.data(), N);
}

}  // namespace

Statement::~Statement() {
    if (!statement_) return;
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
}

Statement& Statement::bind(uint64_t value) {
    const int code = sqlite3_bind_int64(statement_, ++bound_, sqlite3_int64(value));
    if (code != SQLITE_OK) bind_error_ = code;
    return *this;
}

Statement& Statement::bind(std::string_view text) {
    const int code = sqlite3_bind_text(statement_, ++bound_, text.data() ? text.data() : "",
                                       int(text.size()), SQLITE_TRANSIENT);
    if (code != SQLITE_OK) bind_error_ = code;
    return *this;
}

Statement& Statement::bind_bytes(ByteView bytes) {
    const int code =
        sqlite3_bind_blob(statement_, ++bound_, bytes.data(), int(bytes.size()), SQLITE_TRANSIENT);
    if (code != SQLITE_OK) bind_error_ = code;
    return *this;
}

Result<bool> Statement::step() {
    if (!statement_) return fail_sqlite(db_, sqlite3_errcode(db_), "prepare");
    if (bind_error_ != SQLITE_OK) return fail_sqlite(db_, bind_error_, "bind");
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return fail_sqlite(db_, code, sqlite3_sql(statement_));
}

Result<void> Statement::run() {
    auto row = step();
    if (!row) return pass(row);
    return {};
}

uint64_t Statement::number(int column) const {
    return uint64_t(sqlite3_column_int64(statement_, column));
}

std::string Statement::text(int column) const {
    const ByteView view = bytes(column);
    return std::string(as_text(view));
}

ByteView Statement::bytes(int column) const {
    const void* data = sqlite3_column_blob(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    if (!data || size <= 0) return {};
    return {static_cast<const std::byte*>(data), size_t(size)};
}

Uuid Statement::id(int column) const {
    Uuid id;
    copy_exact(bytes(column), id.bytes);
    return id;
}

Digest128 Statement::digest(int column) const {
    Digest128 digest;
    copy_exact(bytes(column), digest.bytes);
    return digest;
}

void Database::Close::operator()(State* state) const {
    for (const auto& [sql, statement] : state->statements) sqlite3_finalize(statement);
    sqlite3_close(state->db);
    delete state;
}

Result<Database> Database::open(const std::filesystem::path& path) {
    Database database;
    database.state_.reset(new State);
    const int code =
        sqlite3_open_v2(path.c_str(), &database.state_->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
    if (code != SQLITE_OK) return fail_sqlite(database.state_->db, code, path.native());
    sqlite3_extended_result_codes(database.state_->db, 1);
    sqlite3_busy_timeout(database.state_->db, 5000);
    return database;
}

Result<void> Database::execute(const char* sql) {
    const int code = sqlite3_exec(state_->db, sql, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) return fail_sqlite(state_->db, code, sql);
    return {};
}

Statement Database::prepare(const char* sql) {
    sqlite3_stmt*& statement = state_->statements[sql];
    if (!statement) {
        sqlite3_prepare_v3(state_->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    }
    return Statement(state_->db, statement);
}

Result<uint64_t> Database::number_of(const char* sql) {
    Statement query = prepare(sql);
    auto row = query.step();
    if (!row) return pass(row);
    return *row ? query.number(0) : 0;
}

}  // namespace herald::vault
