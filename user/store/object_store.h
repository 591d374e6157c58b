// SPDX-License-Identifier: Apache-2.0
// ObjectStore: the contract every store keeps: put if absent, ranged get, list, delete.
// Promise: after put() returned, the object is durable and whole; no reader ever sees a part of
// one; an existing object is never changed. The same conformance suite runs against every store.
// Names: segments of [a-z0-9._-] joined by '/', at most 255 bytes, no '.' or '..' segment.
// Callers: any thread. Fits stores with high latency and no rename.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "user/base/file.h"

namespace herald::store {

enum class PutOutcome { created, existed };

struct ObjectInfo {
    std::string name;
    uint64_t bytes = 0;
};

struct StoreSpace {
    uint64_t total_bytes = 0;
    uint64_t free_bytes = 0;
};

// Of the filesystem that holds this path.
Result<StoreSpace> filesystem_space(const std::filesystem::path& path);

class ObjectStore {
  public:
    virtual ~ObjectStore() = default;
    virtual Result<PutOutcome> put(const std::string& name, ByteView bytes) = 0;
    // Exactly `length` bytes from `offset`.
    virtual Result<Bytes> get(const std::string& name, uint64_t offset, uint64_t length) = 0;
    virtual Result<ObjectInfo> stat(const std::string& name) = 0;  // sys == ENOENT when absent
    // Every object whose name begins with prefix, in name order.
    virtual Result<void> list(const std::string& prefix,
                              const std::function<Result<void>(const ObjectInfo&)>& visit) = 0;
    // Removing what is not there succeeds.
    virtual Result<void> remove(const std::string& name) = 0;
    virtual Result<StoreSpace> space() = 0;
    // The object as a file open for reading, from a store that has files; otherwise nothing.
    virtual Result<std::optional<Fd>> open_file(const std::string& name) {
        (void)name;
        return std::optional<Fd>();
    }
};

// A directory. put: temporary file, fsync, link to the name, fsync of the directory. Left-over
// temporary files are removed when it is opened.
Result<std::unique_ptr<ObjectStore>> open_directory_store(const std::filesystem::path& root);

}  // namespace herald::store
