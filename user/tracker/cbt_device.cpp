// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/cbt_device.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

#include "herald/limits.h"
#include "user/base/file.h"

namespace herald::tracker {

static_assert(HERALD_CBT_BLOCK_BYTES == HERALD_BLOCK_BYTES);
static_assert(HERALD_CBT_SECTOR_BYTES == HERALD_SECTOR_BYTES);
static_assert(HERALD_CBT_WRITE_BYTES_MAX <= HERALD_RECORD_DATA_BYTES_MAX);
static_assert(HERALD_CBT_DISK_SECTORS_MAX * HERALD_SECTOR_BYTES == HERALD_DISK_BYTES_MAX);

namespace {

constexpr char kPath[] = "/dev/" HERALD_CBT_DEVICE;

class KernelPort : public CbtPort {
  public:
    explicit KernelPort(Fd fd) : fd_(std::move(fd)) {}
    ~KernelPort() override {
        for (const ByteView& area : mapped_) ::munmap(address(area), area.size());
    }
    int call(unsigned long request, void* argument) override {
        int done;
        do {
            done = ::ioctl(fd_.get(), request, argument);
        } while (done < 0 && errno == EINTR);
        return done < 0 ? -errno : 0;
    }
    Result<ByteView> map(uint64_t offset, uint64_t bytes) override {
        void* const at = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd_.get(), off_t(offset));
        if (at == MAP_FAILED) return fail_errno(errno, fmt::format("mmap of {}", kPath));
        mapped_.push_back({static_cast<const std::byte*>(at), size_t(bytes)});
        return mapped_.back();
    }
    bool wait(std::chrono::milliseconds timeout) override {
        pollfd poll{fd_.get(), POLLIN | POLLPRI, 0};
        return ::poll(&poll, 1, int(timeout.count())) > 0;
    }

  private:
    static void* address(const ByteView& area) { return const_cast<std::byte*>(area.data()); }
    Fd fd_;
    std::vector<ByteView> mapped_;
};

}  // namespace

Result<CbtDevice> CbtDevice::open() {
    Fd fd(::open(kPath, O_RDWR | O_CLOEXEC));
    if (!fd && (errno == ENOENT || errno == ENODEV || errno == ENXIO)) {
        return fail(ErrorKind::operator_needed, "{} is not there: the module dm_cbt is not loaded",
                    kPath);
    }
    if (!fd) return fail_errno(errno, kPath);
    CbtDevice device(std::make_unique<KernelPort>(std::move(fd)));
    auto info = device.info();
    if (!info) return pass(info);
    if (info->version != HERALD_CBT_ABI_VERSION) {
        return fail(ErrorKind::operator_needed,
                    "{}: the loaded module speaks version {} of its interface, this program {}: "
                    "load the module that came with it",
                    kPath, info->version, HERALD_CBT_ABI_VERSION);
    }
    return device;
}

std::string to_string(herald_cbt_disk_abi disk) {
    return fmt::format("{}:{}", disk.major, disk.minor);
}

template <class T>
Result<void> CbtDevice::call(unsigned long request, T& argument, const char* name) {
    argument.size = sizeof argument;
    const int done = port_->call(request, &argument);
    if (done == 0) return {};
    return fail_errno(-done, fmt::format("cbt {}: {}", to_string(disk_), name));
}

Result<herald_cbt_info_abi> CbtDevice::info() {
    herald_cbt_info_abi info{};
    auto done = call(HERALD_CBT_INFO, info, "info");
    if (!done) return pass(done);
    return info;
}

Result<std::vector<herald_cbt_row_abi>> CbtDevice::list() {
    std::vector<herald_cbt_row_abi> rows(HERALD_CBT_DISKS_MAX);
    herald_cbt_list_abi list{};
    list.rows = std::bit_cast<uint64_t>(rows.data());
    list.capacity = HERALD_CBT_DISKS_MAX;
    auto done = call(HERALD_CBT_LIST, list, "list");
    if (!done) return pass(done);
    rows.resize(std::min<size_t>(rows.size(), list.count));
    return rows;
}

Result<herald_cbt_own_abi> CbtDevice::own(herald_cbt_disk_abi disk) {
    disk_ = disk;
    herald_cbt_own_abi own{};
    own.disk = disk;
    auto done = call(HERALD_CBT_OWN, own, "own");
    if (!done) return pass(done);
    const auto refuse = [&](const char* what) {
        return fail(ErrorKind::corrupt, "cbt {}: {}", to_string(disk), what);
    };
    if (!std::has_single_bit(own.slots) || own.slots < HERALD_CBT_SLOTS_MIN ||
        own.slots > HERALD_CBT_SLOTS_MAX) {
        return refuse("its number of slots is impossible");
    }
    if (own.payload_bytes != 0 && (!std::has_single_bit(own.payload_bytes) ||
                                   own.payload_bytes > HERALD_CBT_PAYLOAD_BYTES_MAX)) {
        return refuse("its size of payload is impossible");
    }
    if (own.sectors == 0 || own.sectors > HERALD_CBT_DISK_SECTORS_MAX) {
        return refuse("its size is impossible");
    }
    auto header = port_->map(HERALD_CBT_MMAP_HEADER, sizeof(herald_cbt_header_abi));
    if (!header) return pass(header);
    auto slots = port_->map(HERALD_CBT_MMAP_SLOTS, own.slots * sizeof(herald_cbt_slot_abi));
    if (!slots) return pass(slots);
    areas_.payload = {};
    if (own.payload_bytes != 0) {
        auto payload = port_->map(HERALD_CBT_MMAP_PAYLOAD, own.payload_bytes);
        if (!payload) return pass(payload);
        areas_.payload = *payload;
    }
    areas_.header = reinterpret_cast<const herald_cbt_header_abi*>(header->data());
    areas_.slots = {reinterpret_cast<const herald_cbt_slot_abi*>(slots->data()), size_t(own.slots)};
    if (areas_.header->magic != HERALD_CBT_HEADER_MAGIC) return refuse("its header has no magic");
    if (areas_.header->version != HERALD_CBT_ABI_VERSION ||
        areas_.header->header_bytes != sizeof(herald_cbt_header_abi) ||
        areas_.header->slot_bytes != sizeof(herald_cbt_slot_abi)) {
        return fail(ErrorKind::operator_needed,
                    "cbt {}: its rings are of version {}, this program knows {}", to_string(disk),
                    areas_.header->version, HERALD_CBT_ABI_VERSION);
    }
    if (areas_.header->slots != own.slots || areas_.header->payload_bytes != own.payload_bytes) {
        return refuse("its header and the answer to `own` disagree about the rings");
    }
    return own;
}

Result<void> CbtDevice::release(uint64_t released, uint64_t drained, uint32_t events) {
    herald_cbt_release_abi release{};
    release.released = released;
    release.drained = drained;
    release.events = events;
    return call(HERALD_CBT_RELEASE, release, "release");
}

Result<herald_cbt_ack_abi> CbtDevice::ack(uint64_t received, uint64_t stored, uint64_t scanned,
                                          bool gap_closed) {
    herald_cbt_ack_abi ack{};
    ack.received = received;
    ack.stored = stored;
    ack.scanned = scanned;
    if (scanned != 0) ack.flags |= HERALD_CBT_ACK_SCANNED;
    if (gap_closed) ack.flags |= HERALD_CBT_ACK_GAP_CLOSED;
    auto done = call(HERALD_CBT_ACK, ack, "ack");
    if (!done) return pass(done);
    return ack;
}

namespace {
template <class T>
Result<void> put_disks(T& argument, std::span<const herald_cbt_disk_abi> disks, const char* name) {
    if (disks.empty() || disks.size() > HERALD_CBT_DISKS_PER_CALL_MAX) {
        return fail(ErrorKind::operator_needed, "cbt {}: {} disks; 1 to {} go into one call", name,
                    disks.size(), HERALD_CBT_DISKS_PER_CALL_MAX);
    }
    argument.disks = uint32_t(disks.size());
    for (size_t i = 0; i < disks.size(); ++i) argument.answers[i].disk = disks[i];
    return {};
}
}  // namespace

Result<herald_cbt_tag_abi> CbtDevice::tag(const Uuid& id, uint32_t flags,
                                          std::span<const herald_cbt_disk_abi> disks) {
    herald_cbt_tag_abi tag{};
    tag.flags = flags;
    std::memcpy(tag.id, id.bytes.data(), sizeof tag.id);
    auto done = put_disks(tag, disks, "tag");
    if (done) done = call(HERALD_CBT_TAG_DISKS, tag, "tag");
    if (!done) return pass(done);
    return tag;
}

Result<herald_cbt_hold_abi> CbtDevice::hold(uint32_t flags, uint32_t deadline_ms,
                                            std::span<const herald_cbt_disk_abi> disks) {
    herald_cbt_hold_abi hold{};
    hold.flags = flags;
    hold.deadline_ms = deadline_ms;
    auto done = put_disks(hold, disks, "hold");
    if (done) done = call(HERALD_CBT_HOLD, hold, "hold");
    if (!done) return pass(done);
    return hold;
}

Result<std::optional<herald_cbt_seal_abi>> CbtDevice::seal() {
    herald_cbt_seal_abi seal{};
    seal.disk = disk_;
    auto done = call(HERALD_CBT_SEAL, seal, "seal");
    if (!done && done.error().sys == EAGAIN) return std::optional<herald_cbt_seal_abi>();
    if (!done) return pass(done);
    return std::optional(seal);
}

Result<uint64_t> CbtDevice::runs(herald_cbt_disk_abi disk, herald_cbt_bitmap which,
                                 uint64_t sectors, const std::function<void(BlockRun)>& run) {
    constexpr uint64_t kBlocksAtOnce = 8ull * HERALD_CBT_MAP_BYTES_MAX;
    const uint64_t blocks =
        (sectors + (1u << HERALD_CBT_BLOCK_SECTORS_SHIFT) - 1) >> HERALD_CBT_BLOCK_SECTORS_SHIFT;
    std::vector<uint64_t> bits(std::min(blocks, kBlocksAtOnce) / 64 + 1);
    uint64_t generation = 0;
    BlockRun open;
    for (uint64_t first = 0; first < blocks;) {
        herald_cbt_map_abi map{};
        map.disk = disk;
        map.which = which;
        map.first_block = first;
        map.blocks = std::min({blocks - first, kBlocksAtOnce, bits.size() * 64});
        map.buffer = std::bit_cast<uint64_t>(bits.data());
        const uint64_t asked = map.blocks;
        auto done = call(HERALD_CBT_MAP, map, "map");
        if (!done) return pass(done);
        if (map.blocks == 0) break;  // the disk is shorter by now
        if (map.blocks > asked || (first != 0 && map.generation != generation)) {
            return fail(ErrorKind::retry, "cbt {}: map: its bitmap changed hands while it was read",
                        to_string(disk));
        }
        generation = map.generation;
        for (uint64_t word = 0; word * 64 < map.blocks; ++word) {
            for (uint64_t left = bits[word]; left != 0; left &= left - 1) {
                const uint64_t block = first + word * 64 + uint64_t(std::countr_zero(left));
                if (block >= first + map.blocks) break;
                if (open.count > 0 && block == open.first + open.count) {
                    ++open.count;
                    continue;
                }
                if (open.count > 0) run(open);
                open = {block, 1};
            }
        }
        first += map.blocks;
    }
    if (open.count > 0) run(open);
    return generation;
}

Result<void> CbtDevice::mark(herald_cbt_disk_abi disk, uint64_t sector, uint64_t sectors) {
    herald_cbt_mark_abi mark{};
    mark.disk = disk;
    mark.sector = sector;
    mark.sectors = sectors;
    return call(HERALD_CBT_MARK, mark, "mark");
}

Result<Bytes> CbtDevice::cookie() {
    Bytes bytes(HERALD_CBT_COOKIE_BYTES_MAX);
    herald_cbt_cookie_abi cookie{};
    cookie.disk = disk_;
    cookie.bytes = HERALD_CBT_COOKIE_BYTES_MAX;
    cookie.buffer = std::bit_cast<uint64_t>(bytes.data());
    auto done = call(HERALD_CBT_COOKIE, cookie, "cookie");
    if (!done) return pass(done);
    bytes.resize(std::min<size_t>(bytes.size(), cookie.bytes));
    return bytes;
}

Result<void> CbtDevice::set_cookie(ByteView bytes) {
    HERALD_ASSERT(bytes.size() <= HERALD_CBT_COOKIE_BYTES_MAX);
    herald_cbt_cookie_abi cookie{};
    cookie.flags = HERALD_CBT_COOKIE_WRITE;
    cookie.disk = disk_;
    cookie.bytes = uint32_t(bytes.size());
    cookie.buffer = std::bit_cast<uint64_t>(bytes.data());
    return call(HERALD_CBT_COOKIE, cookie, "write the cookie");
}

Result<herald_cbt_stats_abi> CbtDevice::stats(herald_cbt_disk_abi disk) {
    herald_cbt_stats_abi stats{};
    stats.disk = disk;
    auto done = call(HERALD_CBT_STATS, stats, "stats");
    if (!done) return pass(done);
    return stats;
}

Result<herald_cbt_cut_abi> CbtDevice::cut(std::span<const herald_cbt_disk_abi> disks) {
    herald_cbt_cut_abi cut{};
    auto done = put_disks(cut, disks, "cut");
    if (done) done = call(HERALD_CBT_CUT, cut, "cut");
    if (!done) return pass(done);
    return cut;
}

Result<void> CbtDevice::detach(herald_cbt_disk_abi disk, bool undo) {
    herald_cbt_detach_abi detach{};
    detach.disk = disk;
    if (undo) detach.flags = HERALD_CBT_DETACH_UNDO;
    return call(HERALD_CBT_DETACH, detach, "detach");
}

const char* cbt_mode_name(uint32_t mode) {
    switch (mode) {
        case HERALD_CBT_MODE_MAP:
            return "map";
        case HERALD_CBT_MODE_EXTENTS:
            return "extents";
        case HERALD_CBT_MODE_ORDERED:
            return "ordered";
    }
    return "unknown";
}

const char* cbt_cause_name(uint32_t cause) {
    switch (cause) {
        case HERALD_CBT_CAUSE_NONE:
            return "none";
        case HERALD_CBT_CAUSE_ACTIVATED:
            return "no reader has come since the disk was activated";
        case HERALD_CBT_CAUSE_PAYLOAD_FULL:
            return "the payload ring was full: the reader or the network is slower than the disk";
        case HERALD_CBT_CAUSE_SLOTS_FULL:
            return "the ring was full: the reader or the network is slower than the disk";
        case HERALD_CBT_CAUSE_NO_MEMORY:
            return "the rings could not be allocated; raise the module's memory cap or make them "
                   "smaller";
        case HERALD_CBT_CAUSE_CLIMBED:
            return "the rings have room again";
        case HERALD_CBT_CAUSE_NO_META:
            return "the disk has no meta device, so that nothing outlives an activation; "
                   "protect it with one to avoid the compare";
        case HERALD_CBT_CAUSE_META_NEW:
            return "the tracker's meta device is new: what was written before is not known";
        case HERALD_CBT_CAUSE_META_UNREADABLE:
            return "the tracker's meta device has no whole superblock, bitmap or activity log; "
                   "check it, or format it again";
        case HERALD_CBT_CAUSE_META_WRITE:
            return "a write to the tracker's meta device failed; check that device";
        case HERALD_CBT_CAUSE_META_SLOW:
            return "a write to the tracker's meta device missed its deadline; check that device";
        case HERALD_CBT_CAUSE_META_FULL:
            return "the disk has outgrown the tracker's meta device; give it a larger one";
        case HERALD_CBT_CAUSE_CHANGED:
            return "the disk was changed while nobody tracked it";
        case HERALD_CBT_CAUSE_WATCH_OPEN:
            return "after an unclean stop amid writes to the disk's ends it cannot be told whether "
                   "it was changed while nobody tracked it";
        case HERALD_CBT_CAUSE_WATCH_READ:
            return "the disk's ends cannot be read; check the disk";
        case HERALD_CBT_CAUSE_NOT_DETACHED:
            return "the tracker was taken out, and not by unprotect";
        case HERALD_CBT_CAUSE_NOT_ORDERED:
            return "the disk is not tracked in order at the moment";
        case HERALD_CBT_CAUSE_NO_SLOT:
            return "the ring is full";
        case HERALD_CBT_CAUSE_NO_DISK:
            return "the driver does not track this disk";
        case HERALD_CBT_CAUSE_SUSPENDED:
            return "the disk is suspended";
        case HERALD_CBT_CAUSE_EXPIRED:
            return "the hold's deadline has passed";
        case HERALD_CBT_CAUSE_HELD:
            return "another hold is in effect";
        case HERALD_CBT_CAUSE_RESIZED:
            return "the disk was resized";
        case HERALD_CBT_CAUSE_DETACHED:
            return "unprotect took the tracker out, and it is back";
        case HERALD_CBT_CAUSE_PERSISTENCE_LOST:
            return "the tracker had lost its meta device before; check that device";
        case HERALD_CBT_CAUSE_SCAN_DUE:
            return "blocks are to be read before the replica is whole";
    }
    return "unknown; the driver is newer than this program";
}

}  // namespace herald::tracker
