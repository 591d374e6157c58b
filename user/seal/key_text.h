// SPDX-License-Identifier: Apache-2.0
// The lines of a key file: a first line that says what it is, then "name value" lines in a fixed
// order, the last one a digest of all before it.
// Promise: what the reader takes, the writer would write again byte for byte.
// Failure: corrupt for damage, operator_needed for a version this code does not know.
// Layout: docs/formats/keys.md
#pragma once

#include <string>
#include <string_view>

#include "user/base/bytes.h"
#include "user/base/result.h"
#include "user/base/uuid.h"
#include "user/seal/secret.h"

namespace herald::seal {

inline constexpr size_t kKeyFileBytesMax = 4096;

class KeyTextWriter {
  public:
    explicit KeyTextWriter(std::string_view what);  // "herald-root-key"
    ~KeyTextWriter() { OPENSSL_cleanse(text_.data(), text_.size()); }
    void field(std::string_view name, std::string_view value);
    void field_hex(std::string_view name, ByteView value);
    // Adds the digest. The text may hold a key: it is handed over as a secret.
    Secret finish() &&;

  private:
    std::string text_;
};

class KeyTextReader {
  public:
    // Checks length, characters, first line and digest. `text` is borrowed, `name` is for messages.
    static Result<KeyTextReader> open(ByteView text, std::string_view what, std::string name);
    // The value of the next line, which must have this name.
    Result<std::string_view> field(std::string_view name);
    Result<Secret> field_hex(std::string_view name, size_t size);
    Result<Uuid> field_id(std::string_view name);
    Result<void> at_end() const;
    tl::unexpected<Error> refuse(std::string_view why) const;

  private:
    std::string_view rest_;
    std::string name_;
};

}  // namespace herald::seal
