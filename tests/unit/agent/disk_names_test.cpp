// SPDX-License-Identifier: Apache-2.0
#include "user/agent/disk_names.h"

#include <fstream>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"

using namespace herald;
using namespace herald::agent;

namespace {

void put(const std::filesystem::path& path, std::string_view text) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
}

// The first two blocks of a disk that sfdisk partitioned with label-id
// 01234567-89AB-CDEF-0123-456789ABCDEF, the header's fields as the UEFI specification lays them.
Bytes gpt(uint32_t block_bytes) {
    Bytes head(block_bytes * 2);
    std::byte* header = head.data() + block_bytes;
    std::memcpy(header, "EFI PART", 8);
    store_le<uint32_t>(header + 8, 0x00010000);
    store_le<uint32_t>(header + 12, 92);
    store_le<uint64_t>(header + 24, 1);
    const uint8_t guid[16] = {0x67, 0x45, 0x23, 0x01, 0xab, 0x89, 0xef, 0xcd,
                              0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    std::memcpy(header + 56, guid, 16);
    // zlib's crc32 of these 92 bytes.
    store_le<uint32_t>(header + 16, 0x86ffd15b);
    return head;
}

}  // namespace

TEST_CASE("a disk's name prefers the WWN, then the serial number") {
    test::TempDir dir;
    const auto sysfs = dir.path() / "sda";
    CHECK(hardware_name(sysfs).empty());
    put(sysfs / "device/vpd_pg80", std::string_view("\0\x80\0\x08 WD-1234", 12));
    CHECK(hardware_name(sysfs) == "serial:WD-1234");
    put(sysfs / "serial", "virtio-serial-7\n");
    CHECK(hardware_name(sysfs) == "serial:virtio-serial-7");
    put(sysfs / "device/wwid", "naa.5000c500a1b2c3d4\n");
    CHECK(hardware_name(sysfs) == "wwn:naa.5000c500a1b2c3d4");
    put(sysfs / "wwid", "t10.ATA     QEMU HARDDISK            QM00001  \n");
    CHECK(hardware_name(sysfs) == "wwn:t10.ATA QEMU HARDDISK QM00001");
}

TEST_CASE("names that say nothing are passed over, NVMe namespaces keep apart") {
    test::TempDir dir;
    const auto sysfs = dir.path() / "nvme0n1";
    put(sysfs / "wwid", "eui.0000000000000000\n");
    put(sysfs / "serial", "00000000\n");
    put(sysfs / "device/serial", "S3X   \n");
    put(sysfs / "nsid", "2\n");
    CHECK(hardware_name(sysfs) == "serial:S3X-n2");
}

TEST_CASE("a partition table's GUID is read with either block size, in its text order") {
    for (uint32_t block_bytes : {512u, 4096u}) {
        const Bytes head = gpt(block_bytes);
        CHECK(partition_table_name(head, block_bytes) ==
              "gpt:01234567-89ab-cdef-0123-456789abcdef");
        CHECK(partition_table_name(ByteView(head).first(block_bytes + 91), block_bytes).empty());
    }
}

TEST_CASE("a partition table with any bit of its header flipped names nothing or itself") {
    const Bytes good = gpt(512);
    for (size_t bit = 0; bit < 92 * 8; ++bit) {
        Bytes bad = good;
        bad[512 + bit / 8] ^= std::byte(1 << bit % 8);
        REQUIRE(partition_table_name(bad, 512).empty());
    }
    CHECK(partition_table_name(Bytes(1024), 512).empty());
}
