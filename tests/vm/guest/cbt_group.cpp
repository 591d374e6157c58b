// SPDX-License-Identifier: Apache-2.0
// cbt_group NODE NODE: tags, cuts and holds over two disks that are written to and read meanwhile;
// a write that must not wait; a hold whose file is closed. Ends with status 0 when all is as the
// interface says.
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <chrono>
#include <thread>

#include "cbt_reader.hpp"

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kDisks = 2;
constexpr int kTags = 100;

void pause(int count) { std::this_thread::sleep_for(milliseconds(count)); }

template <typename Condition>
bool becomes_true(Condition condition) {
    const auto end = steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
        if (steady_clock::now() > end) return false;
        pause(5);
    }
    return true;
}

// Writes one block again and again, a reader beside it.
class Disk {
  public:
    explicit Disk(const char* node)
        : reader_(node), file_(open(node, O_WRONLY | O_DIRECT | O_CLOEXEC)) {
        if (file_ < 0 || posix_memalign(&buffer_, 4096, 4096) != 0) fail("%s", node);
        std::memset(buffer_, 0x5a, 4096);
        reads_ = std::thread([this] { read(); });
        writes_ = std::thread([this] { write(); });
    }
    ~Disk() {
        stop_ = true;
        writes_.join();
        reads_.join();
        close(file_);
        std::free(buffer_);
    }
    Disk(const Disk&) = delete;
    Disk& operator=(const Disk&) = delete;

    // EAGAIN where it would have had to wait.
    int write_now() {
        const iovec piece{buffer_, 4096};
        return pwritev2(file_, &piece, 1, 1 << 20, RWF_NOWAIT) == 4096 ? 0 : errno;
    }
    // Whether its reader says that the replica is the disk.
    void settle(bool settles) { settles_ = settles; }
    void mark() {
        herald_cbt_mark_abi mark{};
        mark.disk = name();
        mark.sectors = 1;
        const int driver = open_driver();
        if (call(driver, HERALD_CBT_MARK, mark) != 0) fail("mark: %s", std::strerror(errno));
        close(driver);
    }
    [[nodiscard]] herald_cbt_disk_abi name() const { return reader_.disk(); }
    [[nodiscard]] std::uint32_t mode() const { return reader_.header().mode; }
    [[nodiscard]] std::uint64_t written() const { return written_; }
    [[nodiscard]] std::uint64_t tags() const { return tags_; }
    [[nodiscard]] herald_cbt_stats_abi stats() const { return reader_.stats(); }

  private:
    void read() {
        std::uint64_t time = 0;
        while (!stop_) {
            reader_.drain(
                [&](const herald_cbt_slot_abi& slot, std::uint64_t number, const std::uint8_t*) {
                    if (slot.time_ns <= time)
                        fail("slot %llu is not later than the one before",
                             static_cast<unsigned long long>(number));
                    time = slot.time_ns;
                    tags_ += slot.kind == HERALD_CBT_TAG ? 1 : 0;
                });
            reader_.release();
            if (settles_) settle_once();
            reader_.wait(10);
        }
    }
    void settle_once() {
        constexpr std::uint32_t kScan =
            HERALD_CBT_GENERATION_EXISTS | HERALD_CBT_GENERATION_NEEDS_SCAN;
        constexpr std::uint32_t kStates = kScan | HERALD_CBT_GENERATION_CLEARING;
        const auto ack = reader_.acknowledge(0, HERALD_CBT_ACK_GAP_CLOSED);
        if ((ack.sealed_flags & kStates) == kScan && ack.sealed_generation != scanned_) {
            scanned_ = ack.sealed_generation;
            reader_.acknowledge(scanned_);
        }
        if (ack.sealed_generation == 0 && (ack.current_flags & kScan) == kScan) reader_.seal();
    }
    void write() {
        while (!stop_) {
            if (pwrite(file_, buffer_, 4096, 0) != 4096) fail("write: %s", std::strerror(errno));
            ++written_;
        }
    }

    Reader reader_;
    int file_;
    void* buffer_ = nullptr;
    std::atomic<bool> settles_{false};
    std::uint64_t scanned_ = 0;
    std::atomic<std::uint64_t> written_{0};
    std::atomic<std::uint64_t> tags_{0};
    std::atomic<bool> stop_{false};
    std::thread reads_;
    std::thread writes_;
};

class Group {
  public:
    explicit Group(const std::array<Disk*, kDisks>& disks) : disks_(disks), file_(open_driver()) {}
    ~Group() { leave(); }
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;

    // A hold ends with the file that asked for it.
    void leave() {
        if (file_ >= 0) close(file_);
        file_ = -1;
    }
    herald_cbt_tag_abi tag(std::uint32_t flags, std::uint8_t id) {
        herald_cbt_tag_abi tag{};
        tag.flags = flags;
        tag.id[0] = id;
        ask(HERALD_CBT_TAG_DISKS, tag);
        return tag;
    }
    herald_cbt_cut_abi cut() {
        herald_cbt_cut_abi cut{};
        ask(HERALD_CBT_CUT, cut);
        return cut;
    }
    void hold(std::uint32_t flags, std::uint32_t deadline_ms, std::uint32_t result,
              std::uint32_t cause, const char* what) {
        herald_cbt_hold_abi hold{};
        hold.flags = flags;
        hold.deadline_ms = deadline_ms;
        ask(HERALD_CBT_HOLD, hold);
        expect(hold.answers, result, cause, what);
    }
    template <typename Answers>
    static void expect(const Answers& answers, std::uint32_t result, std::uint32_t cause,
                       const char* what) {
        for (std::size_t index = 0; index < kDisks; ++index)
            if (answers[index].result != result || answers[index].cause != cause)
                fail("%s: result %u, cause %u", what, answers[index].result, answers[index].cause);
    }

  private:
    template <typename Argument>
    void ask(unsigned long command, Argument& argument) {
        argument.disks = kDisks;
        for (std::size_t index = 0; index < kDisks; ++index)
            argument.answers[index].disk = disks_[index]->name();
        if (call(file_, command, argument) != 0) fail("call: %s", std::strerror(errno));
    }

    std::array<Disk*, kDisks> disks_;
    int file_;
};

// While a gap is open, or blocks are to be read, no tag names a moment that is whole.
void gaps(Group& group, Disk& one, Disk& other) {
    constexpr auto kScanDue = HERALD_CBT_CAUSE_SCAN_DUE;
    Group::expect(group.tag(0, 0).answers, HERALD_CBT_DOWNGRADED, kScanDue, "tag in a gap");
    Group::expect(group.tag(HERALD_CBT_TAG_ALL, 0).answers, HERALD_CBT_REFUSED, kScanDue,
                  "tag of all in a gap");
    one.settle(true);
    other.settle(true);
    const auto lands = [&](std::size_t index) {
        return group.tag(0, 0).answers[index].result == HERALD_CBT_LANDED;
    };
    if (!becomes_true([&] { return lands(0) && lands(1); }))
        fail("the gaps are closed, no tag lands");
    one.settle(false);
    one.mark();
    const auto marked = group.tag(0, 0);
    if (marked.answers[0].result != HERALD_CBT_DOWNGRADED || marked.answers[0].cause != kScanDue)
        fail("a tag while a block is to be read: result %u, cause %u", marked.answers[0].result,
             marked.answers[0].cause);
    one.settle(true);
    if (!becomes_true([&] { return lands(0) && lands(1); })) fail("all is read, no tag lands");
}

void tags_and_cuts(Group& group) {
    for (int number = 0; number < kTags; ++number) {
        const auto tag = group.tag(0, static_cast<std::uint8_t>(number));
        Group::expect(tag.answers, HERALD_CBT_LANDED, HERALD_CBT_CAUSE_NONE, "tag");
        const auto cut = group.cut();
        for (std::size_t index = 0; index < kDisks; ++index)
            if (cut.time_ns <= tag.time_ns || cut.answers[index].slot <= tag.answers[index].slot)
                fail("the cut after tag %d does not hold it", number);
    }
}

void holds(Group& group, Disk& one) {
    constexpr auto kLanded = HERALD_CBT_LANDED;
    constexpr auto kRefused = HERALD_CBT_REFUSED;
    constexpr auto kNone = HERALD_CBT_CAUSE_NONE;

    group.hold(0, HERALD_CBT_HOLD_MS_MAX, kLanded, kNone, "hold");
    pause(100);
    const std::uint64_t before = one.written();
    pause(100);
    if (one.written() != before) fail("written under a hold");
    if (const int error = one.write_now(); error != EAGAIN && error != EOPNOTSUPP)
        fail("a write that must not wait, under a hold: %s", std::strerror(error));
    group.hold(0, 0, kRefused, HERALD_CBT_CAUSE_HELD, "second hold");
    Group::expect(group.tag(HERALD_CBT_TAG_HELD | HERALD_CBT_TAG_ALL, 1).answers, kLanded, kNone,
                  "tag of a hold");
    group.hold(HERALD_CBT_HOLD_RELEASE, 0, kLanded, kNone, "release");
    if (!becomes_true([&] { return one.written() > before; })) fail("the hold has no end");

    group.hold(0, 50, kLanded, kNone, "short hold");
    pause(500);
    group.hold(HERALD_CBT_HOLD_RELEASE, 0, kRefused, HERALD_CBT_CAUSE_EXPIRED, "late release");
    Group::expect(group.tag(HERALD_CBT_TAG_HELD, 2).answers, kRefused, HERALD_CBT_CAUSE_EXPIRED,
                  "late tag");

    group.hold(0, HERALD_CBT_HOLD_MS_MAX, kLanded, kNone, "hold to be left");
    group.leave();
    const std::uint64_t left = one.written();
    if (!becomes_true([&] { return one.written() > left; })) fail("its file is closed, it holds");
}

}  // namespace

int main(int count, char** words) {
    if (count != 3) fail("usage: cbt_group NODE NODE");
    Disk one(words[1]);
    Disk other(words[2]);
    const auto is_ordered = [](const Disk& disk) { return disk.mode() == HERALD_CBT_MODE_ORDERED; };
    if (!becomes_true([&] { return is_ordered(one) && is_ordered(other); })) fail("not ordered");
    Group group({&one, &other});
    gaps(group, one, other);
    tags_and_cuts(group);
    holds(group, one);
    if (!becomes_true([&] { return one.tags() > kTags && other.tags() > kTags; }))
        fail("tags read: %llu, %llu", static_cast<unsigned long long>(one.tags()),
             static_cast<unsigned long long>(other.tags()));
    std::printf("%d tags on both disks, held at most %llu ms\n", kTags + 1,
                static_cast<unsigned long long>(one.stats().held_ns_max / 1'000'000));
    return 0;
}
