// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/cbt_tracker.h"

#include <algorithm>
#include <cerrno>

#include "herald/limits.h"
#include "user/base/file.h"
#include "user/tracker/cbt_cookie.h"

namespace herald::tracker {

namespace {

constexpr uint64_t kBlockSectors = HERALD_BLOCK_BYTES / HERALD_SECTOR_BYTES;

bool needs_scan(uint32_t flags) { return (flags & HERALD_CBT_GENERATION_NEEDS_SCAN) != 0; }

template <class T>
T load(const T& field) {
    return __atomic_load_n(&field, __ATOMIC_ACQUIRE);
}

}  // namespace

Result<std::unique_ptr<CbtTracker>> CbtTracker::attach(CbtOptions options) {
    std::unique_ptr<CbtTracker> tracker(new CbtTracker(std::move(options)));
    auto taken = tracker->take_disk();
    if (!taken) return pass(taken);
    auto noted = tracker->read_note();
    if (!noted) return pass(noted);
    auto cookie = tracker->device_->cookie();
    // Without a meta device there is none, and what was agreed with the server is not known.
    if (!cookie && cookie.error().sys == EOPNOTSUPP) cookie = Bytes();
    if (!cookie) return pass(cookie);
    // Of another disk: this one was cloned, or has a new name. Then nothing is known, and judge()
    // asks for a compare.
    auto continuity = decode_cookie(*cookie);
    if (continuity && continuity->disk == tracker->options_.disk) {
        tracker->continuity_ = std::move(*continuity);
    }
    tracker->continuity_.disk = tracker->options_.disk;
    return tracker;
}

Result<void> CbtTracker::take_disk() {
    // The old file first: a disk has one owner.
    reader_.reset();
    device_.reset();
    auto device = options_.open();
    if (!device) return pass(device);
    auto own = device->own(options_.device);
    if (!own && own.error().sys == EBUSY) {
        return fail(ErrorKind::operator_needed, "cbt {}: another process reads it already",
                    to_string(options_.device));
    }
    if (!own) return pass(own);
    device_.emplace(std::move(*device));
    sectors_ = own->sectors;
    const uint64_t blocks = (sectors_ + kBlockSectors - 1) / kBlockSectors;
    const size_t words = size_t((blocks + 63) / 64);
    map_.reset();
    live_.assign(words, 0);
    todo_.assign(words, 0);
    in_flight_.assign(words, 0);
    map_.emplace(live_, todo_, in_flight_, blocks);
    reader_.emplace(
        device_->areas(), *own, fmt::format("cbt {}", to_string(options_.device)),
        [this, blocks](uint64_t offset, uint64_t length) {
            const uint64_t first = std::min(offset / HERALD_BLOCK_BYTES, blocks);
            const uint64_t end =
                std::min((offset + length + HERALD_BLOCK_BYTES - 1) / HERALD_BLOCK_BYTES, blocks);
            if (first < end) map_->mark({first, end - first});
        });
    released_ = told_drained_ = own->tail;
    stored_ = own->stored;
    received_ = std::max<uint64_t>(own->stored, load(header().received));
    loaded_ = 0;
    loaded_at_.reset();
    scanned_ = false;
    exact_ = false;
    passed_at_ = 0;
    cut_ns_ = cut_slot_ = 0;
    return {};
}

Result<void> CbtTracker::restart() { return take_disk(); }

std::optional<std::string> CbtTracker::gap() const {
    const uint32_t gap = device_ ? load(header().gap) : 0;
    if (gap != HERALD_CBT_CAUSE_NONE) return cbt_cause_name(gap);
    if (lost_) return cbt_cause_name(HERALD_CBT_CAUSE_PERSISTENCE_LOST);
    return std::nullopt;
}

Result<void> CbtTracker::clear_gap() {
    auto done = device_->ack(received_, stored_, 0, true);
    if (!done) return pass(done);
    if (!lost_) return {};
    std::error_code error;
    std::filesystem::remove(options_.note, error);
    if (error) {
        return fail(ErrorKind::retry, "{}: {}", options_.note.native(), error.message());
    }
    lost_ = false;
    return sync_dir(options_.note.parent_path());
}

Result<void> CbtTracker::read_note() {
    if (options_.note.empty() || !std::filesystem::exists(options_.note)) return {};
    auto text = read_file(options_.note, 64);
    if (!text) return pass(text);
    noted_ = as_text(*text) == std::to_string(load(header().activation));
    lost_ = !noted_;
    return {};
}

Result<void> CbtTracker::note_given_up() {
    if (noted_ || lost_ || options_.note.empty() ||
        load(header().persistence) != HERALD_CBT_PERSISTENCE_GIVEN_UP) {
        return {};
    }
    const std::string text = std::to_string(load(header().activation));
    auto written = replace_file(options_.note, std::as_bytes(std::span(text)));
    if (!written) return written;
    noted_ = true;
    return {};
}

// The flags of both generations as of one instant.
Result<herald_cbt_ack_abi> CbtTracker::ask() { return device_->ack(received_, stored_, 0, false); }

Result<void> CbtTracker::drain() {
    auto state = ask();
    if (!state) return pass(state);
    if (state->sealed_generation == 0 && needs_scan(state->current_flags)) {
        auto sealed = device_->seal();
        if (!sealed) return pass(sealed);
        if (!*sealed) return {};
        state->sealed_generation = (*sealed)->sealed_generation;
        state->sealed_slot = (*sealed)->sealed_slot;
        state->sealed_flags = (*sealed)->sealed_flags;
    }
    if (state->sealed_generation == 0 || !needs_scan(state->sealed_flags) ||
        state->sealed_generation == loaded_ ||
        (state->sealed_flags & HERALD_CBT_GENERATION_CLEARING) != 0) {
        return {};
    }
    // A write in mode map has no slot of its own: were its block read and emitted before the slots
    // that are older than it, those would undo it.
    if (reader_->drained() < state->sealed_slot) return {};
    auto generation =
        device_->runs(options_.device, HERALD_CBT_BITMAP_SEALED, sectors_, [&](BlockRun run) {
            const uint64_t end = std::min(run.first + run.count, map_->blocks());
            if (run.first < end) map_->mark({run.first, end - run.first});
        });
    if (!generation) return pass(generation);
    if (*generation != state->sealed_generation) {
        return fail(ErrorKind::retry, "cbt {}: generation {} is sealed, the map is of {}",
                    to_string(options_.device), state->sealed_generation, *generation);
    }
    loaded_ = *generation;
    loaded_at_.reset();
    scanned_ = false;
    return {};
}

// A generation that needs a scan and whose blocks are not to do yet.
Result<bool> CbtTracker::generation_waits() {
    auto state = ask();
    if (!state) return pass(state);
    return needs_scan(state->current_flags) ||
           (state->sealed_generation != 0 && needs_scan(state->sealed_flags) &&
            state->sealed_generation != loaded_);
}

Result<bool> CbtTracker::scan_must_wait() {
    if (reader_->mode() != HERALD_CBT_MODE_ORDERED) return true;
    return generation_waits();
}

Result<void> CbtTracker::end_pass() {
    // The mode sinks before the write that found no room is handed to the disk: had a read seen
    // that write, the mode seen here is the lower one, or a slot before `head` tells of the climb.
    exact_ = reader_->mode() == HERALD_CBT_MODE_ORDERED;
    auto waits = generation_waits();
    if (!waits) return pass(waits);
    if (*waits) exact_ = false;
    auto cut = device_->cut({&options_.device, 1});
    if (!cut) return pass(cut);
    if (cut->answers[0].result != HERALD_CBT_LANDED) {
        return fail(ErrorKind::resync, "cbt {}: {}", to_string(options_.device),
                    cbt_cause_name(cut->answers[0].cause));
    }
    passed_at_ = cut_slot_ = cut->answers[0].slot;
    cut_ns_ = cut->time_ns;
    return {};
}

uint64_t CbtTracker::complete_ns() const {
    return reader_->drained() >= cut_slot_ ? std::max(cut_ns_, reader_->time_ns())
                                           : reader_->time_ns();
}

Result<bool> CbtTracker::quiet(std::span<const Extent>) {
    auto stats = device_->stats(options_.device);
    if (!stats) return pass(stats);
    return stats->in_flight == 0;
}

Result<void> CbtTracker::set_continuity(const Continuity& continuity) {
    auto noted = note_given_up();
    if (!noted) return noted;
    auto written = device_->set_cookie(encode_cookie(continuity));
    // Without a meta device, or with one that fails, it is good until this process ends.
    if (!written && written.error().sys != EOPNOTSUPP &&
        load(header().persistence) != HERALD_CBT_PERSISTENCE_GIVEN_UP) {
        return written;
    }
    continuity_ = continuity;
    return {};
}

Result<TrackerCounters> CbtTracker::counters() const {
    TrackerCounters counters;
    if (!device_) return counters;
    counters.submissions = load(header().writes);
    counters.open_extents = load(header().head) - reader_->drained();
    return counters;
}

Result<void> CbtTracker::mark(BlockRun run) {
    const uint64_t sector = run.first * kBlockSectors;
    const uint64_t end = std::min((run.first + run.count) * kBlockSectors, sectors_);
    if (sector >= end) return {};
    return device_->mark(options_.device, sector, end - sector);
}

Result<void> CbtTracker::release() {
    auto noted = note_given_up();
    if (!noted) return noted;
    const uint64_t released = std::max(released_, reader_->releasable(received_));
    if (released == released_ && reader_->drained() == told_drained_) return {};
    auto done = device_->release(released, reader_->drained(), load(header().events));
    if (!done) return done;
    released_ = released;
    told_drained_ = reader_->drained();
    return {};
}

void CbtTracker::all_read(uint64_t position) {
    reader_->all_read(position);
    if (loaded_ != 0 && !loaded_at_ && !scanned_) loaded_at_ = position;
}

Result<void> CbtTracker::acknowledged(uint64_t received, uint64_t stored) {
    const uint64_t stored_slots = std::max(stored_, reader_->slots_at(stored));
    const uint64_t received_slots =
        std::max({received_, reader_->slots_at(received), stored_slots});
    // It may be gone already: the process before this one had said that it was scanned.
    if (loaded_ != 0 && load(header().sealed_generation) != loaded_) scanned_ = true;
    const bool scanned = !scanned_ && loaded_at_ && *loaded_at_ <= stored;
    if (stored_slots == stored_ && received_slots == received_ && !scanned) return {};
    auto done = device_->ack(received_slots, stored_slots, scanned ? loaded_ : 0, false);
    if (!done && scanned && load(header().sealed_generation) != loaded_) {
        done = device_->ack(received_slots, stored_slots, 0, false);  // gone this very moment
    }
    if (!done) return pass(done);
    stored_ = stored_slots;
    received_ = received_slots;
    scanned_ = scanned_ || scanned;
    reader_->forget(stored);
    return release();
}

Result<OrderedChanges::TagAnswer> CbtTracker::tag(const Uuid& id) {
    auto done = device_->tag(id, HERALD_CBT_TAG_ALL, {&options_.device, 1});
    if (!done) return pass(done);
    const herald_cbt_answer_abi& answer = done->answers[0];
    TagAnswer result;
    result.landed = answer.result == HERALD_CBT_LANDED;
    if (!result.landed) result.cause = cbt_cause_name(answer.cause);
    result.time_ns = done->time_ns;
    return result;
}

}  // namespace herald::tracker
