// SPDX-License-Identifier: Apache-2.0
// As log_reader, but first the checksums of the header, of the metadata blocks that the input's
// own distances lead to, and of their entries are put right: without that no input would get
// past the header. Half of the inputs become logs that were not closed.
#include <algorithm>

#include "tests/fuzz/read_log.h"
#include "user/hrl/v2/checksum.h"

namespace herald::fuzz {

namespace {

using namespace herald::hrl::v2;

void seal(Bytes& bytes, size_t at, size_t size, size_t field) {
    const uint32_t checksum = checksum_around(ByteView(bytes).subspan(at, size), field);
    store_le(bytes.data() + at + field, checksum);
}

void seal_all(Bytes& bytes) {
    if (bytes.size() < kHeaderBytes + 512) return;
    const bool closed = (uint8_t(bytes[126]) & 1) == 0;
    uint32_t metadata_bytes = load_le<uint32_t>(bytes.data() + 56) % 5 * 512;
    if (metadata_bytes == 0) metadata_bytes = 512;
    store_le(bytes.data() + 56, metadata_bytes);
    std::copy(kCookie.begin(), kCookie.end(), reinterpret_cast<char*>(bytes.data()));
    store_le(bytes.data() + 8, kVersion2);
    uint64_t entries = 0;
    // As far back as distances lead; every block is looked at once.
    size_t at = bytes.size();
    while (at >= kHeaderBytes + metadata_bytes) {
        const size_t end = at;
        at = end == bytes.size() ? end - metadata_bytes : end;
        const uint32_t slots = entry_slots(metadata_bytes);
        const uint32_t count = load_le<uint32_t>(bytes.data() + at + 8) % (slots + 1);
        store_le(bytes.data() + at + 8, count);
        entries += count;
        for (uint32_t slot = 0; slot < slots; ++slot) {
            const size_t entry = at + sizeof(MetadataHeaderDisk) + slot * sizeof(EntryDisk);
            if (bytes[entry + 20] != std::byte{kOperationWrite}) continue;
            seal(bytes, entry, sizeof(EntryDisk), offsetof(EntryDisk, checksum));
        }
        const uint64_t back = load_le<uint64_t>(bytes.data() + at);
        seal(bytes, at, sizeof(MetadataHeaderDisk), offsetof(MetadataHeaderDisk, checksum));
        if (back < metadata_bytes || back > at - std::min<size_t>(at, kHeaderBytes)) break;
        at -= back;
        if (at + metadata_bytes > bytes.size()) break;
    }
    store_le(bytes.data() + 32, uint64_t(bytes.size()));
    store_le(bytes.data() + 44, closed ? uint64_t(bytes.size()) : uint64_t{0});
    store_le(bytes.data() + 96, entries);
    seal(bytes, 0, kHeaderBytes, offsetof(LogHeaderDisk, checksum));
}

}  // namespace

}  // namespace herald::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto* begin = reinterpret_cast<const std::byte*>(data);
    herald::Bytes bytes(begin, begin + size);
    herald::fuzz::seal_all(bytes);
    herald::fuzz::read_log(bytes);
    return 0;
}
