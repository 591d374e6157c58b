// SPDX-License-Identifier: Apache-2.0
// restore: download the segments of a disk up to a recovery point and write the image here.
#include <chrono>
#include <nlohmann/json.hpp>

#include "tools/herald/http_segments.h"
#include "tools/herald/image_file.h"
#include "tools/herald/interrupt.h"
#include "tools/herald/kept_segments.h"
#include "tools/herald/output.h"
#include "tools/herald/time_text.h"
#include "tools/herald/verbs.h"
#include "user/base/output.h"
#include "user/base/terminal.h"
#include "user/vault/boundary.h"

namespace herald::cli {

namespace {

using Clock = std::chrono::steady_clock;

// An hour of a quiet disk's segments and more; of larger ones the beginning.
constexpr uint64_t kKeptBytes = 128u << 20;

struct Restored {
    wire::DiskInfo disk;
    wire::PointInfo point;
    vault::RestoreProgress work;
    Clock::duration time{};
    std::string sha256;  // empty unless asked for
};

// Segment files up to and including the point: what the bar counts.
uint64_t bytes_up_to(std::span<const wire::PointInfo> points, const wire::PointInfo& last) {
    uint64_t bytes = 0;
    for (const auto& point : points)
        if (point.position <= last.position) bytes += point.sent_bytes;
    return bytes;
}

double mb_per_second(uint64_t bytes, Clock::duration time) {
    const double seconds = std::chrono::duration<double>(time).count();
    return seconds > 0 ? double(bytes) / 1e6 / seconds : 0;
}

void print_json(const Restored& done, const std::filesystem::path& to) {
    nlohmann::ordered_json json{{"disk", to_string(done.disk.disk)},
                                {"name", done.disk.name},
                                {"point", to_string(done.point.id)},
                                {"position", done.point.position},
                                {"point_name", done.point.name},
                                {"time_ns", done.point.time_ns},
                                {"time", rfc3339_time(done.point.time_ns)},
                                {"consistency", done.point.consistency},
                                {"to", to.native()},
                                {"bytes", done.point.disk_bytes},
                                {"segments", done.work.segments},
                                {"downloaded_bytes", done.work.segment_bytes},
                                {"written_bytes", done.work.written_bytes},
                                {"seconds", std::chrono::duration<double>(done.time).count()},
                                {"mb_per_second", mb_per_second(done.point.disk_bytes, done.time)}};
    if (!done.sha256.empty()) json["sha256"] = done.sha256;
    print_out("{}\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_text(const Restored& done, const std::filesystem::path& to) {
    print_out("restored  {} to {}\n", done.disk.name, to.native());
    const std::string which = done.point.id.is_nil()
                                  ? fmt::format("position {}", done.point.position)
                                  : to_string(done.point.id);
    print_out("point     {}  {}  {}{}{}\n", which, local_time(done.point.time_ns),
              done.point.consistency, done.point.name.empty() ? "" : "  ", done.point.name);
    print_out("bytes     {} ({}), from {} in {} segments\n", done.point.disk_bytes,
              human_bytes(done.point.disk_bytes), human_bytes(done.work.segment_bytes),
              done.work.segments);
    print_out("time      {}, {:.1f} MB/s\n", human_duration(done.time),
              mb_per_second(done.point.disk_bytes, done.time));
    if (!done.sha256.empty()) print_out("sha256    {}\n", done.sha256);
}

Result<Restored> write_image(ApiClient& client, const wire::DiskInfo& disk,
                             const wire::PointInfo& point, uint64_t segment_bytes,
                             KeptSegments& kept, ImageFile& image, const RestoreOptions& options) {
    Restored done{disk, point, {}, {}, {}};
    const auto began = Clock::now();
    HttpSegments segments(client, point.position,
                          [](const std::string& notice) { print_err("\nherald: {}\n", notice); });
    kept.read_from(segments);
    const vault::RestoreRequest request{disk.disk, point.position, point.disk_bytes, image.fd(),
                                        options.to.native()};
    {
        Progress progress("restore", segment_bytes);
        auto work =
            vault::restore(kept, request, [&](const vault::RestoreProgress& now) -> Result<void> {
                progress.update(now.segment_bytes);
                return check_interrupt();
            });
        if (!work) return pass(work);
        if (work->segment_bytes > segment_bytes) progress.set_total(work->segment_bytes);
        progress.update(work->segment_bytes);
        progress.finish();
        done.work = *work;
    }
    if (auto r = check_interrupt(); !r) return pass(r);
    if (options.sha256) {
        done.time = Clock::now() - began;
        auto hash = sha256_of(image.fd(), point.disk_bytes, options.to.native());
        if (!hash) return pass(hash);
        done.sha256 = *hash;
    }
    if (auto r = image.commit(); !r) return pass(r);
    if (!options.sha256) done.time = Clock::now() - began;
    return done;
}

// A record boundary, as a point that nobody named: the stream is read for it.
Result<wire::PointInfo> boundary_of(ApiClient& client, const wire::DiskInfo& disk,
                                    const RestoreOptions& options, KeptSegments& kept,
                                    uint64_t& segment_bytes) {
    HttpSegments segments(client, options.position.value_or(UINT64_MAX),
                          [](const std::string& notice) { print_err("\nherald: {}\n", notice); });
    kept.read_from(segments);
    Progress progress("look", disk.stored_bytes);
    uint64_t looked_bytes = 0;
    vault::BoundaryChoice choice{options.position, {}, options.exact};
    if (!options.position) choice.time_ns = options.point.time_ns;
    auto found = vault::find_boundary(kept, disk.disk, choice, [&](uint64_t bytes) -> Result<void> {
        progress.update(looked_bytes += bytes);
        return check_interrupt();
    });
    if (!found) return pass(found);
    progress.set_total(found->stream_bytes);
    progress.update(found->stream_bytes);
    progress.finish();
    segment_bytes = found->stream_bytes;
    wire::PointInfo point;
    point.position = found->position;
    point.time_ns = found->time_ns;
    point.disk_bytes = found->disk_bytes;
    point.consistency = hrl::to_string(hrl::Consistency::crash);
    return point;
}

}  // namespace

Result<void> run_restore(const CommonOptions& common, const RestoreOptions& options) {
    const auto config = load_operator_config(common.config);
    if (!config) return pass(config);
    if (auto r = ImageFile::check(options.to, options.force); !r) return pass(r);
    auto client = ApiClient::make(*config);
    if (!client) return pass(client);
    const auto disks = (*client)->disks();
    if (!disks) return pass(disks);
    const auto disk = select_disk(*disks, options.disk);
    if (!disk) return pass(disk);
    const auto points = (*client)->points(disk->disk);
    if (!points) return pass(points);
    const bool ordered = disk->mode != hrl::to_string(hrl::StreamMode::unordered);
    if (options.exact && !ordered)
        return fail(ErrorKind::operator_needed,
                    "disk {}: its stream is not ordered, so only its points are restorable; leave "
                    "out --exact",
                    disk->name);
    const bool boundary = options.position || (options.point.time_ns && ordered);
    KeptSegments kept(boundary ? kKeptBytes : 0);
    uint64_t segment_bytes = 0;
    Result<wire::PointInfo> point;
    if (boundary) {
        point = boundary_of(**client, *disk, options, kept, segment_bytes);
    } else {
        point = select_point(*points, options.point);
        if (point) segment_bytes = bytes_up_to(*points, *point);
    }
    if (!point) return pass(point, fmt::format("disk {}", disk->name));

    auto image = ImageFile::open(options.to, point->disk_bytes, options.force);
    if (!image) return pass(image);
    auto done = write_image(**client, *disk, *point, segment_bytes, kept, *image, options);
    if (!done) {
        Error error = done.error();
        const char* remedy =
            error.kind == ErrorKind::corrupt ? "an earlier point may not need it; " : "";
        error.message = fmt::format("restoring {} to {}: {}; {}{}", disk->name, options.to.native(),
                                    error.message, remedy, image->leftover());
        return tl::unexpected<Error>(std::move(error));
    }
    if (common.json)
        print_json(*done, options.to);
    else
        print_text(*done, options.to);
    return {};
}

}  // namespace herald::cli
