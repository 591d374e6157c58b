// SPDX-License-Identifier: Apache-2.0
// Applying onto a block device: a loop device of the test's own. Needs root.
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "tests/shell.h"
#include "tests/temp_dir.h"
#include "tests/unit/hrl/sample_segments.h"
#include "tests/unit/hrl/v2/sample_logs.h"
#include "user/hrl/apply.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

// A loop device over a file of random bytes; detached by itself when the last descriptor closes.
class LoopDevice {
  public:
    static Bytes noise(uint64_t bytes) {
        std::mt19937_64 random(31);
        return random_bytes(random, bytes);
    }
    explicit LoopDevice(uint64_t bytes) : LoopDevice(noise(bytes)) {}
    explicit LoopDevice(Bytes content) : content_(std::move(content)) {
        REQUIRE(replace_file(dir_.path() / "backing", content_));
        auto backing = open_file(dir_.path() / "backing", O_RDWR);
        REQUIRE(backing);
        auto control = open_file("/dev/loop-control", O_RDWR);
        // Another program may take the free number first: try the next.
        for (int attempt = 0; control && attempt < 20 && !fd_; ++attempt) {
            const int number = ::ioctl(control->get(), LOOP_CTL_GET_FREE);
            if (number < 0) return;
            path_ = "/dev/loop" + std::to_string(number);
            auto fd = open_file(path_, O_RDWR);
            if (!fd) return;
            struct loop_config config {};
            config.fd = uint32_t(backing->get());
            config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
            if (::ioctl(fd->get(), LOOP_CONFIGURE, &config) == 0) fd_ = std::move(*fd);
        }
    }
    bool there() const { return bool(fd_); }
    const std::string& path() const { return path_; }
    std::string backing() const { return (dir_.path() / "backing").native(); }
    std::filesystem::path dir() const { return dir_.path(); }
    const Bytes& content() const { return content_; }
    Bytes read() const {
        Bytes bytes(content_.size());
        REQUIRE(read_exact(fd_.get(), 0, bytes, path_));
        return bytes;
    }

  private:
    herald::test::TempDir dir_;
    Bytes content_;
    std::string path_;
    Fd fd_;
};

}  // namespace

TEST_CASE("a block device holds what a model of the disk holds and keeps what lies behind it") {
    constexpr uint64_t kDeviceBytes = 2 << 20;
    constexpr uint64_t kDiskBytes = 1 << 20;
    LoopDevice device(kDeviceBytes);
    if (!device.there()) {
        std::puts("SKIPPED: no loop device can be made here (root and /dev/loop-control needed)");
        return;
    }
    auto fd = open_file(device.path(), O_RDWR);
    REQUIRE(fd);
    auto writer = ImageWriter::open(std::move(*fd), device.path(), kDiskBytes);
    REQUIRE(writer);
    Bytes model = device.content();
    for (const auto& owned : sample_records(seed_from_environment(), 300, kDiskBytes)) {
        const Record record = owned.view();
        REQUIRE(writer->apply(record));
        const auto at = model.begin() + ptrdiff_t(record.offset);
        if (record.kind == RecordKind::write) {
            std::copy(record.data.begin(), record.data.end(), at);
        } else if (record.kind == RecordKind::zeroes || record.kind == RecordKind::discard ||
                   record.kind == RecordKind::secure_erase) {
            std::fill_n(at, record.length, std::byte{0});
        }
    }
    REQUIRE(writer->finish());
    CHECK(device.read() == model);

    Record grow;
    grow.kind = RecordKind::resize;
    grow.position = 1;
    grow.length = kDeviceBytes + 512;
    auto refused = writer->apply(grow);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::operator_needed);
}

TEST_CASE("a device smaller than the disk is refused") {
    LoopDevice device(1 << 20);
    if (!device.there()) return;
    auto fd = open_file(device.path(), O_RDWR);
    REQUIRE(fd);
    auto writer = ImageWriter::open(std::move(*fd), device.path(), (1 << 20) + 512);
    REQUIRE_FALSE(writer);
    CHECK(writer.error().message.find("at least as large") != std::string::npos);
}

TEST_CASE("hrl apply finds that a device is too small before it writes to it") {
    LoopDevice device(1 << 20);
    if (!device.there()) return;
    const Bytes data(4096, std::byte{1});
    Record write;
    write.position = 1;
    write.length = data.size();
    write.data = data;
    Record grow;
    grow.kind = RecordKind::resize;
    grow.position = 2;
    grow.length = 2 << 20;
    const std::vector<OwnedRecord> records = {OwnedRecord(write), OwnedRecord(grow)};
    REQUIRE(
        replace_file(device.dir() / "a.hrl", write_segment(sample_header(4096), records).bytes));
    const std::string hrl = HERALD_BIN_DIR "/hrl apply " + (device.dir() / "a.hrl").native() +
                            " --force --to " + device.path();
    const auto run = herald::test::run_shell(hrl + " 2>&1");
    INFO(run.output);
    CHECK(run.status == 2);
    CHECK(run.has("at least as large"));
    CHECK((device.read() == device.content()));
    CHECK(herald::test::run_shell(hrl + " --until 1 2>&1").status == 0);
    CHECK_FALSE((device.read() == device.content()));
}

TEST_CASE("hrl apply never takes a journal for the target through a device") {
    // A log, because its length is a multiple of a sector.
    const Bytes log = v2::test::build_log({{0, Bytes(512, std::byte{1})}});
    LoopDevice device(log);
    if (!device.there()) return;
    struct stat st {};
    REQUIRE(::stat(device.path().c_str(), &st) == 0);
    const std::string other = (device.dir() / "other_node").native();
    REQUIRE(::mknod(other.c_str(), S_IFBLK | 0600, st.st_rdev) == 0);
    for (const std::string& journal : {device.backing(), device.path(), other}) {
        for (const std::string& target : {device.path(), other}) {
            const auto run = herald::test::run_shell(HERALD_BIN_DIR "/hrl apply " + journal +
                                                     " --force --to " + target + " 2>&1");
            INFO(journal << " to " << target << ": " << run.output);
            CHECK(run.status == 2);
            CHECK((run.has("is one of the journals") || run.has("busy")));
            CHECK((device.read() == log));
        }
    }
}
