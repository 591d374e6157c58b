// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/sorted_journal.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "user/base/file.h"
#include "user/hrl/buffer.h"

namespace herald::hrl {

namespace {

// One write to the scratch file; a run is written through a buffer of this size.
constexpr size_t kWriteBytes = 1u << 20;

// A record in memory or in the scratch file: this, then its data.
struct Stored {
    RecordHeaderDisk header{};
    uint64_t data_at = 0;  // in the arena, or in the scratch file
};

bool comes_before(const Stored& a, const Stored& b) {
    return std::pair(a.header.position, a.header.offset) <
           std::pair(b.header.position, b.header.offset);
}

Stored stored(const Record& record) {
    Stored made;
    made.header.kind = uint8_t(record.kind);
    made.header.flags = record.data_is_sealed;
    made.header.data_bytes = uint32_t(record.data.size());
    made.header.position = record.position;
    made.header.offset = record.offset;
    made.header.length = record.length;
    made.header.time_ns = record.time_ns;
    return made;
}

Record record_of(const Stored& from, ByteView data) {
    Record record;
    record.kind = RecordKind(from.header.kind);
    record.position = from.header.position;
    record.offset = from.header.offset;
    record.length = from.header.length;
    record.time_ns = from.header.time_ns;
    record.data = data;
    record.data_is_sealed = from.header.flags != 0;
    return record;
}

// Sorted runs, one behind the other, in a file that has no name: nothing is left of it.
class Scratch {
  public:
    explicit Scratch(const std::filesystem::path& dir)
        : name_(fmt::format("a scratch file in {}", (dir.empty() ? "." : dir).native())),
          path_(dir / ".hrl-sort-XXXXXX") {}

    Result<void> add_run(const std::vector<Stored>& records, ByteView arena) {
        if (!fd_) {
            std::string path = path_.native();
            fd_ = Fd(::mkostemp(path.data(), O_CLOEXEC));
            if (!fd_) return fail_errno(errno, fmt::format("make {}", name_));
            ::unlink(path.c_str());
        }
        Run run;
        run.at = size_;
        Bytes buffer;
        buffer.reserve(kWriteBytes + sizeof(RecordHeaderDisk) + HERALD_RECORD_DATA_BYTES_MAX);
        const auto flush = [&]() -> Result<void> {
            auto written = write_exact(fd_.get(), size_, buffer, name_);
            size_ += buffer.size();
            buffer.clear();
            return written;
        };
        const auto put = [&](ByteView bytes) {
            const size_t at = buffer.size();
            buffer.resize(at + bytes.size());
            if (!bytes.empty()) std::memcpy(buffer.data() + at, bytes.data(), bytes.size());
        };
        for (const Stored& record : records) {
            put(disk_bytes_of(record.header));
            put(arena.subspan(record.data_at, record.header.data_bytes));
            if (buffer.size() < kWriteBytes) continue;
            auto flushed = flush();
            if (!flushed) return flushed;
        }
        auto flushed = flush();
        if (!flushed) return flushed;
        run.end = size_;
        runs_.push_back(run);
        return {};
    }
    bool is_used() const { return !runs_.empty(); }

    // From here on next() hands out what all runs hold, merged.
    Result<void> begin() {
        for (size_t i = 0; i < runs_.size(); ++i) {
            auto read = advance(i);
            if (!read) return read;
        }
        return {};
    }
    Result<std::optional<Record>> next() {
        if (heap_.empty()) return std::optional<Record>();
        std::ranges::pop_heap(heap_, [&](size_t a, size_t b) { return is_later(a, b); });
        const size_t run = heap_.back();
        heap_.pop_back();
        const Stored current = runs_[run].head;
        const ByteSpan data = data_.need(current.header.data_bytes);
        auto read = read_exact(fd_.get(), current.data_at, data, name_);
        if (!read) return pass(read);
        auto advanced = advance(run);
        if (!advanced) return pass(advanced);
        return std::optional(record_of(current, data));
    }

  private:
    struct Run {
        uint64_t at = 0;
        uint64_t end = 0;
        Stored head;
    };
    // Equal keys: what came first in the layer stays first.
    bool is_later(size_t a, size_t b) const {
        if (comes_before(runs_[a].head, runs_[b].head)) return false;
        return comes_before(runs_[b].head, runs_[a].head) || a > b;
    }
    Result<void> advance(size_t i) {
        Run& run = runs_[i];
        if (run.at == run.end) return {};
        auto read = read_exact(fd_.get(), run.at,
                               std::as_writable_bytes(std::span(&run.head.header, 1)), name_);
        if (!read) return read;
        run.head.data_at = run.at + sizeof(RecordHeaderDisk);
        run.at = run.head.data_at + run.head.header.data_bytes;
        heap_.push_back(i);
        std::ranges::push_heap(heap_, [&](size_t a, size_t b) { return is_later(a, b); });
        return {};
    }

    std::string name_;
    std::filesystem::path path_;
    Fd fd_;
    uint64_t size_ = 0;
    std::vector<Run> runs_;
    std::vector<size_t> heap_;  // of runs that have a head
    Buffer data_;
};

class SortedJournal : public Journal {
  public:
    SortedJournal(std::unique_ptr<Journal> layer, const std::filesystem::path& scratch_dir,
                  uint64_t memory_max)
        : Journal(layer->facts()),
          layer_(std::move(layer)),
          scratch_(scratch_dir),
          memory_max_(memory_max) {}

    bool whole() const override { return layer_->whole(); }
    const std::string& loss() const override { return layer_->loss(); }
    std::vector<std::string> notices() const override { return layer_->notices(); }
    const SegmentReader* segment() const override { return layer_->segment(); }

    Result<std::optional<Record>> next() override {
        if (!sorted_) {
            auto sorted = sort();
            if (!sorted) return pass(sorted);
            sorted_ = true;
        }
        if (scratch_.is_used()) return scratch_.next();
        if (next_ == held_.size()) return std::optional<Record>();
        const Stored& from = held_[next_++];
        return std::optional(
            record_of(from, ByteView(arena_).subspan(from.data_at, from.header.data_bytes)));
    }

  private:
    Result<void> sort() {
        uint64_t raw_bytes = 0;
        for (const IndexEntryDisk& block : segment()->blocks()) raw_bytes += block.raw_bytes;
        arena_.reserve(std::min(raw_bytes, memory_max_));
        for (;;) {
            auto record = layer_->next();
            if (!record) return pass(record);
            if (!*record) break;
            const uint64_t held = arena_.size() + held_.size() * sizeof(Stored);
            if (held + (*record)->data.size() + sizeof(Stored) > memory_max_ && !held_.empty()) {
                auto spilled = spill();
                if (!spilled) return spilled;
            }
            Stored one = stored(**record);
            one.data_at = arena_.size();
            arena_.append((*record)->data);
            held_.push_back(one);
        }
        if (!scratch_.is_used()) {
            std::ranges::stable_sort(held_, comes_before);
            return {};
        }
        auto spilled = spill();
        if (!spilled) return spilled;
        held_ = {};
        arena_ = {};
        return scratch_.begin();
    }
    Result<void> spill() {
        std::ranges::stable_sort(held_, comes_before);
        auto added = scratch_.add_run(held_, arena_);
        held_.clear();
        arena_.clear();
        return added;
    }

    std::unique_ptr<Journal> layer_;
    Scratch scratch_;
    uint64_t memory_max_;
    bool sorted_ = false;
    std::vector<Stored> held_;
    Bytes arena_;
    size_t next_ = 0;  // of held_
};

}  // namespace

std::unique_ptr<Journal> sorted_by_position(std::unique_ptr<Journal> journal,
                                            const std::filesystem::path& scratch_dir,
                                            uint64_t memory_max) {
    const SegmentReader* segment = journal->segment();
    if (!segment || segment->header().order == RecordOrder::by_position) return journal;
    return std::make_unique<SortedJournal>(std::move(journal), scratch_dir, memory_max);
}

}  // namespace herald::hrl
