// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/tracker/request_log.h"

#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

namespace herald::test {
namespace fs = std::filesystem;
namespace {

bool put(const fs::path& file, std::string_view text) {
    std::ofstream out(file);
    out << text << std::flush;
    return out.good();
}

constexpr std::string_view kMark = "tracing_mark_write: ";

// "... block_rq_issue: 7,1003 DS 65536 () 2048 + 128 ...": whether it changes these sectors.
bool touches(const std::string& line, uint64_t sector, uint64_t sectors) {
    const size_t event = line.find(": block_rq_");
    if (event == std::string::npos) return false;
    std::istringstream fields(line.substr(line.find(": ", event + 2) + 2));
    std::string device;
    std::string kind;
    fields >> device >> kind;
    if (kind.find_first_of("WDE") == std::string::npos) return false;
    const size_t extent = line.find(") ", event);
    if (extent == std::string::npos) return false;
    std::istringstream numbers(line.substr(extent + 2));
    uint64_t first = 0;
    uint64_t count = 0;
    char plus = 0;
    numbers >> first >> plus >> count;
    return numbers && first < sector + sectors && sector < first + count;
}

}  // namespace

RequestLog::RequestLog(dev_t dev) {
    if (::mount("none", dir_.path().c_str(), "tracefs", 0, nullptr) != 0) return;
    static int number = 0;
    std::error_code error;
    instance_ = dir_.path() / "instances" / fmt::format("herald-{}-{}", ::getpid(), ++number);
    if (!fs::create_directory(instance_, error)) {
        instance_.clear();
        return;
    }
    put(instance_ / "buffer_size_kb", "4096");
    const std::string ours =
        fmt::format("dev == {}", uint64_t(major(dev)) << 20 | uint64_t(minor(dev)));
    for (const char* event : {"block_rq_issue", "block_rq_complete"}) {
        const fs::path folder = instance_ / "events/block" / event;
        if (!put(folder / "filter", ours) || !put(folder / "enable", "1")) return;
    }
    marker_ = Fd(::open((instance_ / "trace_marker").c_str(), O_WRONLY | O_CLOEXEC));
}

RequestLog::~RequestLog() {
    marker_.reset();
    // One rmdir: what is in it cannot be removed by itself.
    if (!instance_.empty()) ::rmdir(instance_.c_str());
    ::umount2(dir_.path().c_str(), MNT_DETACH);
}

void RequestLog::mark(std::string_view text) {
    if (marker_) (void)!::write(marker_.get(), text.data(), text.size());
}

std::vector<std::string> RequestLog::of(uint64_t sector, uint64_t sectors, size_t lines_max) const {
    std::vector<std::string> lines;
    if (!marker_) return {"(no tracefs: the requests are not known)"};
    std::ifstream trace(instance_ / "trace");
    std::string mark;
    for (std::string line; std::getline(trace, line);) {
        if (line.find(kMark) != std::string::npos) {
            mark = line;
        } else if (touches(line, sector, sectors)) {
            if (!mark.empty()) lines.push_back(std::exchange(mark, {}));
            lines.push_back(line);
        }
    }
    if (!mark.empty()) lines.push_back(mark);
    if (lines.size() > lines_max) lines.erase(lines.begin(), lines.end() - long(lines_max));
    return lines;
}

}  // namespace herald::test
