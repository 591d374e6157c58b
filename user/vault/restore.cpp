// SPDX-License-Identifier: Apache-2.0
#include "user/vault/restore.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <future>

#include "user/hrl/apply.h"
#include "user/hrl/segment_reader.h"
#include "user/store/object_store.h"
#include "user/vault/catalog.h"

namespace herald::vault {

namespace {

// Rows of the segment list asked for at once.
constexpr size_t kListRows = 512;

class LocalProvider : public SegmentProvider {
  public:
    LocalProvider(Catalog& catalog, store::ObjectStore& store) : catalog_(catalog), store_(store) {}

    Result<std::vector<wire::SegmentInfo>> segments(const Uuid& disk, uint64_t after,
                                                    size_t limit) override {
        auto rows = catalog_.segments(disk, after, limit);
        if (!rows) return pass(rows);
        std::vector<wire::SegmentInfo> infos;
        for (const SegmentRow& row : *rows) infos.push_back(to_info(row));
        return infos;
    }

    Result<Bytes> fetch(const Uuid& disk, const wire::SegmentInfo& segment) override {
        auto row = catalog_.segment(disk, segment.first_position);
        if (!row) return pass(row);
        if (!*row || (*row)->segment != segment.segment) {
            return fail(ErrorKind::operator_needed, "segment {} is no longer in the catalog",
                        to_string(segment.segment));
        }
        return store_.get((*row)->object, 0, (*row)->bytes);
    }

  private:
    Catalog& catalog_;
    store::ObjectStore& store_;
};

// One restore: the list of segments read page by page, one fetch ahead of the segment in work.
class Restore {
  public:
    Restore(SegmentProvider& provider, const RestoreRequest& request)
        : provider_(provider), request_(request) {
        progress_.target_position = request.position;
    }

    Result<RestoreProgress> run(const std::function<Result<void>(const RestoreProgress&)>& report) {
        auto started = start_fetch();
        if (!started) return pass(started);
        while (progress_.position < request_.position) {
            if (!fetch_) {
                return fail(ErrorKind::corrupt,
                            "disk {}: the stream ends at position {}, before the point at {}",
                            to_string(request_.disk), progress_.position, request_.position);
            }
            const wire::SegmentInfo info = fetch_->info;
            auto bytes = fetch_->bytes.get();
            fetch_.reset();
            if (!bytes) return pass(bytes, name_of(info));
            if (info.last_position < request_.position) {
                started = start_fetch();
                if (!started) return pass(started);
            }
            auto applied = apply(info, *bytes);
            if (!applied) return pass(applied);
            if (report) {
                auto told = report(progress_);
                if (!told) return pass(told);
            }
        }
        if (!writer_) {
            return fail(ErrorKind::operator_needed, "disk {}: there is no position 0 to restore",
                        to_string(request_.disk));
        }
        auto finished = writer_->finish();
        if (!finished) return pass(finished);
        if (request_.disk_bytes != 0 && writer_->disk_bytes() != request_.disk_bytes) {
            return fail(ErrorKind::corrupt,
                        "disk {}: its stream makes {} bytes at position {}, the catalog says {}",
                        to_string(request_.disk), writer_->disk_bytes(), request_.position,
                        request_.disk_bytes);
        }
        return progress_;
    }

  private:
    struct Fetch {
        wire::SegmentInfo info;
        std::future<Result<Bytes>> bytes;  // its destructor waits: never outlives the provider
    };

    static std::string name_of(const wire::SegmentInfo& info) {
        return fmt::format("segment {} (positions {} to {})", to_string(info.segment),
                           info.first_position, info.last_position);
    }

    // Begins to fetch the next segment, if there is one.
    Result<void> start_fetch() {
        if (listed_.empty()) {
            auto page = provider_.segments(request_.disk, listed_position_, kListRows);
            if (!page) return pass(page);
            listed_.assign(page->begin(), page->end());
        }
        if (listed_.empty()) return {};
        const wire::SegmentInfo info = listed_.front();
        listed_.pop_front();
        if (info.first_position != listed_position_ + 1 ||
            info.last_position < info.first_position) {
            return fail(ErrorKind::corrupt, "{} does not follow position {}: segments are missing",
                        name_of(info), listed_position_);
        }
        if (info.bytes > HERALD_SEGMENT_BYTES_MAX) {
            return fail(ErrorKind::corrupt, "{} has {} bytes, more than a segment can have",
                        name_of(info), info.bytes);
        }
        listed_position_ = info.last_position;
        fetch_.emplace(Fetch{
            info, std::async(std::launch::async, [this, info] {
                auto bytes = provider_.fetch(request_.disk, info);
                if (!bytes) return bytes;
                // Here, beside the applying of the segment before: it reads every byte.
                if (bytes->size() != info.bytes || to_hex(xxh3_128(*bytes).bytes) != info.digest) {
                    return Result<Bytes>(fail(ErrorKind::corrupt,
                                              "its {} bytes are not what was stored (digest {} "
                                              "expected); this point cannot be restored from it",
                                              bytes->size(), info.digest));
                }
                return bytes;
            })});
        return {};
    }

    Result<void> apply(const wire::SegmentInfo& info, const Bytes& bytes) {
        // All of it is verified before any of it is believed: a pass without side effects first.
        auto summary = hrl::verify_segment(hrl::memory_source(bytes, name_of(info)));
        if (!summary) return pass(summary, name_of(info));
        const hrl::SegmentHeader& header = summary->header;
        if (header.disk != request_.disk || header.segment != info.segment ||
            header.first_position != info.first_position || header.epoch != info.epoch ||
            summary->last_position != info.last_position) {
            return fail(ErrorKind::corrupt, "{}: its header names another disk, segment or place",
                        name_of(info));
        }
        if (header.previous_segment != previous_segment_) {
            return fail(ErrorKind::corrupt, "{}: it follows segment {}, not {}", name_of(info),
                        to_string(header.previous_segment), to_string(previous_segment_));
        }
        previous_segment_ = header.segment;
        if (!writer_) {
            Fd fd(::fcntl(request_.fd, F_DUPFD_CLOEXEC, 0));
            if (!fd) return fail_errno(errno, request_.target);
            std::optional<uint64_t> final_bytes;
            if (request_.disk_bytes != 0) final_bytes = request_.disk_bytes;
            auto writer = hrl::ImageWriter::open(std::move(fd), request_.target, header.disk_bytes,
                                                 final_bytes);
            if (!writer) return pass(writer);
            writer_ = std::move(*writer);
        }
        auto begun = writer_->begin_segment(header.disk_bytes);
        if (!begun) return pass(begun, name_of(info));
        auto reader = hrl::SegmentReader::open(hrl::memory_source(bytes, name_of(info)));
        if (!reader) return pass(reader);
        while (progress_.position < request_.position) {
            auto record = reader->next();
            if (!record) return pass(record, name_of(info));
            if (!*record) break;
            auto applied = writer_->apply(**record);
            if (!applied) return pass(applied, name_of(info));
            progress_.position = (*record)->position;
        }
        progress_.segments += 1;
        progress_.segment_bytes += bytes.size();
        progress_.written_bytes = writer_->written_bytes() + writer_->zeroed_bytes();
        return {};
    }

    SegmentProvider& provider_;
    const RestoreRequest& request_;
    RestoreProgress progress_;
    std::deque<wire::SegmentInfo> listed_;
    uint64_t listed_position_ = 0;
    Uuid previous_segment_;
    std::optional<hrl::ImageWriter> writer_;
    std::optional<Fetch> fetch_;
};

}  // namespace

std::unique_ptr<SegmentProvider> local_provider(Catalog& catalog, store::ObjectStore& store) {
    return std::make_unique<LocalProvider>(catalog, store);
}

Result<RestoreProgress> restore(
    SegmentProvider& provider, const RestoreRequest& request,
    const std::function<Result<void>(const RestoreProgress&)>& progress) {
    return Restore(provider, request).run(progress);
}

}  // namespace herald::vault
