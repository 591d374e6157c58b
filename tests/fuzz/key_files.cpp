// SPDX-License-Identifier: Apache-2.0
// Any bytes as a key file, its digest put right: what parses is written again to the same bytes.
#include <algorithm>

#include "user/base/digest.h"
#include "user/seal/machine_key.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace herald;
    std::string text(reinterpret_cast<const char*>(data), std::min<size_t>(size, 8192));
    text += "sha256 " + to_hex(sha256(as_bytes(text))) + "\n";
    if (auto machine = seal::parse_machine_key(as_bytes(text), "input")) {
        HERALD_ASSERT(seal::format_machine_key(*machine) == text);
    }
    if (auto root = seal::parse_root_key(as_bytes(text), "input")) {
        const seal::Secret again = seal::format_root_key(*root);
        HERALD_ASSERT(as_text(again.view()) == text);
    }
    return 0;
}
