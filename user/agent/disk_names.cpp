// SPDX-License-Identifier: Apache-2.0
#include "user/agent/disk_names.h"

#include <fmt/format.h>

#include <algorithm>

#include "herald/limits.h"
#include "user/agent/mounts.h"

namespace herald::agent {
namespace {

// Firmware pads with blanks and worse: one blank for each run, none at the ends, printable only.
std::string tidy(std::string_view text) {
    std::string out;
    for (char c : text) {
        if (c > ' ' && c < 127) {
            out += c;
        } else if (!out.empty() && out.back() != ' ') {
            out += ' ';
        }
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    out.resize(std::min<size_t>(out.size(), HERALD_NAME_BYTES_MAX));
    return out;
}

// Some firmware gives a name that every unit shares: "eui.0000000000000000", "00000000", "none".
bool says_something(std::string_view name) {
    const size_t dot = name.find('.');
    if (dot != std::string_view::npos) name.remove_prefix(dot + 1);
    if (name == "none" || name == "unknown") return false;
    return std::any_of(name.begin(), name.end(),
                       [](char c) { return c != '0' && c != ' ' && c != '-' && c != '.'; });
}

uint32_t crc32(ByteView bytes) {
    // CRC-32 of IEEE 802.3, as the UEFI specification uses; 92 bytes need no table.
    uint32_t crc = 0xffffffff;
    for (std::byte b : bytes) {
        crc ^= uint32_t(b);
        for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    return ~crc;
}

}  // namespace

std::string hardware_name(const std::filesystem::path& sysfs) {
    // NVMe namespaces have wwid beside them, SCSI and SATA disks in their device.
    for (const char* file : {"wwid", "device/wwid"}) {
        const std::string name = tidy(read_sysfs(sysfs / file));
        if (!name.empty() && says_something(name)) return "wwn:" + name;
    }
    const std::string nsid = tidy(read_sysfs(sysfs / "nsid"));
    for (const char* file : {"serial", "device/serial", "device/vpd_pg80"}) {
        std::string raw = read_sysfs(sysfs / file);
        // A SCSI page begins with four bytes of header.
        if (std::string_view(file).ends_with("vpd_pg80")) raw.erase(0, 4);
        std::string name = tidy(raw);
        if (name.empty() || !says_something(name)) continue;
        // Namespaces of one NVMe controller share its serial number.
        if (!nsid.empty()) name += "-n" + nsid;
        return "serial:" + name;
    }
    return {};
}

std::string partition_table_name(ByteView head, uint32_t logical_block_bytes) {
    // UEFI 2.10, 5.3.2: signature 0, header size 12, CRC 16, disk GUID 56.
    if (head.size() < logical_block_bytes + 92ull) return {};
    const ByteView header = head.subspan(logical_block_bytes);
    if (as_text(header.subspan(0, 8)) != "EFI PART") return {};
    const uint32_t size = load_le<uint32_t>(header.data() + 12);
    if (size < 92 || size > header.size() || size > logical_block_bytes) return {};
    Bytes copy(header.begin(), header.begin() + size);
    const uint32_t expected = load_le<uint32_t>(copy.data() + 16);
    store_le<uint32_t>(copy.data() + 16, 0);
    if (crc32(copy) != expected) return {};
    const std::byte* guid = header.data() + 56;
    if (all_zero({guid, 16})) return {};
    std::string tail;
    for (int i = 8; i < 16; ++i)
        tail += fmt::format("{}{:02x}", i == 10 ? "-" : "", uint8_t(guid[i]));
    return fmt::format("gpt:{:08x}-{:04x}-{:04x}-{}", load_le<uint32_t>(guid),
                       load_le<uint16_t>(guid + 4), load_le<uint16_t>(guid + 6), tail);
}

}  // namespace herald::agent
