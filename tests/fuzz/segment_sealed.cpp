// SPDX-License-Identifier: Apache-2.0
// Any bytes as a sealed file whose checksums and tags are all right: what somebody who has the key
// could write. The input says what is in the blocks; everything behind the seal is reached.
#include "tests/forge_segment.h"
#include "tests/fuzz/read_segment.h"
#include "user/hrl/sealed_context.h"

namespace herald::fuzz {

namespace {

using namespace herald::hrl;

// Seals the blocks again as they lie, taking their sealed data for what was to be sealed; then
// header and tail. Lengths are the input's own.
void seal_all(Bytes& bytes) {
    if (bytes.size() < sizeof(SegmentHeaderDisk)) return;
    auto header = load_disk<SegmentHeaderDisk>(bytes.data());
    header.features_required = kFeatureSealed;
    header.sealed_by = uint8_t(SealedBy::source);
    header.machine = fuzz_key().machine.bytes;
    header.key_id = fuzz_key().id.bytes;
    Uuid seal;
    seal.bytes.fill(std::byte{1});
    header.seal = seal.bytes;
    const Uuid disk{header.disk};
    seal::FileSealer sealer(fuzz_key(), {fuzz_key().machine, disk, Uuid{header.segment}}, seal);
    header.magic = kSegmentMagic;
    header.version = kVersion;
    const ByteView covered[] = {
        disk_bytes_of(header).first(offsetof(SegmentHeaderDisk, header_tag))};
    header.header_tag = sealer.seal_part({seal::SealUse::header, 0}, covered, {}, {});
    std::memcpy(bytes.data(), &header, sizeof header);

    size_t at = sizeof header;
    for (uint64_t number = 0; bytes.size() - at >= block_file_bytes(kSealBytes); ++number) {
        const auto block = load_disk<BlockHeaderDisk>(bytes.data() + at);
        if (block.stored_bytes < kSealBytes ||
            block_file_bytes(block.stored_bytes) > bytes.size() - at) {
            break;
        }
        std::byte* const stored = bytes.data() + at + sizeof block;
        auto sealed = load_disk<SealHeaderDisk>(stored);
        sealed.segment = header.segment;
        sealed.seal = header.seal;
        sealed.index = uint32_t(number);
        std::memcpy(stored, &sealed, sizeof sealed);
        const uint32_t room = block.stored_bytes - kSealBytes;
        const uint32_t plain_bytes = std::min(sealed.plain_bytes, room);
        const ByteSpan data{stored + sizeof sealed, room - plain_bytes};
        const ByteView plain{data.data() + data.size(), plain_bytes};
        const SealedContext context(fuzz_key().machine, disk,
                                    ByteView(bytes).subspan(at, sizeof block),
                                    {stored, sizeof sealed}, plain);
        const auto tag =
            sealer.seal_part({seal::SealUse::block, number}, context.parts(), data, data);
        std::memcpy(data.data() + room, tag.data(), tag.size());
        at += block_file_bytes(block.stored_bytes);
    }
    test::forge_segment(bytes);
    const size_t behind = kTailTagBytes + sizeof(FooterDisk);
    if (bytes.size() < sizeof header + behind) return;
    const size_t tag_at = bytes.size() - behind;
    const auto footer = load_disk<FooterDisk>(bytes.data() + tag_at + kTailTagBytes);
    if (footer.index_offset > tag_at) return;
    const ByteView tail[] = {
        ByteView(bytes).subspan(footer.index_offset, tag_at - footer.index_offset),
        disk_bytes_of(footer)};
    const auto tag = sealer.seal_part({seal::SealUse::tail, 0}, tail, {}, {});
    std::memcpy(bytes.data() + tag_at, tag.data(), tag.size());
    test::forge_checksum(bytes, tag_at, tag_at + kAuthTagBytes);
}

}  // namespace

}  // namespace herald::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto* begin = reinterpret_cast<const std::byte*>(data);
    herald::Bytes bytes(begin, begin + size);
    herald::fuzz::seal_all(bytes);
    herald::fuzz::read_segment(bytes);
    return 0;
}
