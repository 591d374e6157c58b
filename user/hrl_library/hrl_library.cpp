// SPDX-License-Identifier: Apache-2.0
#include "herald/hrl.h"

#include <cstring>
#include <new>

#include "user/hrl/journal.h"

struct herald_hrl_reader {
    herald::seal::Keyring keys;
    std::optional<herald::hrl::SegmentReader> reader;  // of a segment or layer
    std::unique_ptr<herald::hrl::Journal> log;         // of a Hyper-V Replica Log
    std::string error;
    const char* short_of_memory = nullptr;  // instead of error, which would need some
};

namespace {

using namespace herald;

int status_of(ErrorKind kind) {
    if (kind == ErrorKind::corrupt) return HERALD_HRL_DAMAGED;
    return kind == ErrorKind::retry ? HERALD_HRL_TROUBLE : HERALD_HRL_REFUSED;
}

int refuse(herald_hrl_reader& of, const Error& error) {
    of.error = error.message;
    return status_of(error.kind);
}

int misuse(herald_hrl_reader* of, const char* how) {
    if (of) of->error = how;
    return HERALD_HRL_REFUSED;
}

// The caller may be C, or built by another compiler: nothing is thrown through it.
template <class Work>
int guarded(herald_hrl_reader* of, Work work) noexcept {
    try {
        if (of) of->short_of_memory = nullptr;
        return work();
    } catch (const std::bad_alloc&) {
        if (of) of->short_of_memory = "memory is short; it may be tried again";
        return HERALD_HRL_TROUBLE;
    } catch (...) {
        if (of) of->short_of_memory = "the library failed in a way that it does not know";
        return HERALD_HRL_REFUSED;
    }
}

// The caller's struct may be older, and shorter, or newer than ours: what one of them lacks is 0.
template <class T>
T from_caller(const T* theirs) {
    T ours;
    std::memset(&ours, 0, sizeof ours);
    if (theirs) std::memcpy(&ours, theirs, std::min(sizeof ours, theirs->size));
    return ours;
}
template <class T>
void to_caller(T* theirs, T ours) {
    const size_t size = theirs->size;
    ours.size = size;
    std::memcpy(theirs, &ours, std::min(sizeof ours, size));
    if (size > sizeof ours) std::memset(theirs + 1, 0, size - sizeof ours);
}

void copy_id(uint8_t* to, const Uuid& id) { std::memcpy(to, id.bytes.data(), id.bytes.size()); }

int open_log(herald_hrl_reader& to, std::unique_ptr<hrl::ByteSource> source,
             const herald_hrl_options& options) {
    if (options.sealed_only != 0) return misuse(&to, "a Hyper-V Replica Log is never sealed");
    hrl::JournalOptions how;
    if (options.entry_order == 1) how.entry_order = hrl::v2::EntryOrder::oldest_first;
    if (options.entry_order == 2) how.entry_order = hrl::v2::EntryOrder::newest_first;
    auto log = hrl::Journal::open(std::move(source), how);
    if (!log) return refuse(to, log.error());
    to.log = std::move(*log);
    return HERALD_HRL_OK;
}

void info_of_log(const hrl::Journal& log, herald_hrl_info& ours) {
    const hrl::JournalFacts& facts = log.facts();
    copy_id(ours.segment, facts.id);
    copy_id(ours.previous_segment, facts.previous);
    ours.first_position = facts.first_position;
    ours.created_ns = facts.created_ns;
    ours.is_whole = log.whole() ? 1 : 0;
    ours.format = int(facts.format);
}

int open_reader(herald_hrl_reader& to, const char* path, const herald_hrl_options& options) {
    if (options.root_key || options.keys) {
        if (!options.root_key || !options.keys) {
            return misuse(&to, "root_key and keys go together");
        }
        auto keys = seal::open_keyring(
            {options.root_key, options.keys, options.secret_file ? options.secret_file : ""});
        if (!keys) return refuse(to, keys.error());
        to.keys = std::move(*keys);
    }
    auto source = hrl::file_source(path);
    if (!source) return refuse(to, source.error());
    if (options.logs != 0) {
        // What is neither is for the reader of segments to refuse.
        auto format = hrl::detect_format(**source);
        if (format && *format == hrl::JournalFormat::v2) {
            return open_log(to, std::move(*source), options);
        }
    }
    auto reader =
        hrl::SegmentReader::open(std::move(*source), {.keys = options.root_key ? &to.keys : nullptr,
                                                      .without_key = options.without_key != 0,
                                                      .layers = options.layers != 0,
                                                      .sealed_only = options.sealed_only != 0});
    if (!reader) return refuse(to, reader.error());
    to.reader = std::move(*reader);
    return HERALD_HRL_OK;
}

int get_info(herald_hrl_reader* reader, herald_hrl_info* info) {
    if (!reader || !info || (!reader->reader && !reader->log)) {
        return misuse(reader, "no file is open");
    }
    herald_hrl_info ours;
    std::memset(&ours, 0, sizeof ours);
    if (reader->log) {
        info_of_log(*reader->log, ours);
        to_caller(info, ours);
        return HERALD_HRL_OK;
    }
    const hrl::SegmentReader& from = *reader->reader;
    const hrl::SegmentHeader& header = from.header();
    copy_id(ours.machine, header.machine);
    copy_id(ours.disk, header.disk);
    copy_id(ours.segment, header.segment);
    copy_id(ours.previous_segment, header.previous_segment);
    ours.epoch = header.epoch;
    ours.first_position = header.first_position;
    ours.last_position = from.last_position().value_or(0);
    ours.disk_bytes = header.disk_bytes;
    ours.created_ns = header.created_ns;
    ours.is_whole = from.whole() ? 1 : 0;
    ours.sealed_by = int(header.sealed_by);
    ours.block_bytes = header.block_bytes;
    ours.features_optional = header.features_optional;
    ours.contents = uint8_t(header.contents);
    ours.record_order = uint8_t(header.order);
    ours.granule_log2 = header.granule_log2;
    copy_id(ours.key_id, header.key_id);
    ours.format = int(hrl::JournalFormat::v3);
    to_caller(info, ours);
    return HERALD_HRL_OK;
}

int next(herald_hrl_reader* reader, herald_hrl_record* record) {
    if (!reader || !record || (!reader->reader && !reader->log)) {
        return misuse(reader, "no file is open");
    }
    auto next = reader->log ? reader->log->next() : reader->reader->next();
    if (!next) return refuse(*reader, next.error());
    if (!*next) return HERALD_HRL_OK;
    const hrl::Record& from = **next;
    herald_hrl_record ours;
    std::memset(&ours, 0, sizeof ours);
    ours.kind = uint8_t(from.kind);
    ours.data_is_sealed = from.data_is_sealed ? 1 : 0;
    ours.position = from.position;
    ours.offset = from.offset;
    ours.length = from.length;
    ours.time_ns = from.time_ns;
    ours.data = from.data.empty() ? nullptr : from.data.data();
    ours.data_bytes = from.data.size();
    ours.data_is_unchecked = from.data_is_unchecked ? 1 : 0;
    to_caller(record, ours);
    return HERALD_HRL_RECORD;
}

}  // namespace

extern "C" int herald_hrl_open(const char* path, const herald_hrl_options* options,
                               herald_hrl_reader** reader) {
    if (!path || !reader) return HERALD_HRL_REFUSED;
    *reader = new (std::nothrow) herald_hrl_reader;
    if (!*reader) return HERALD_HRL_TROUBLE;
    herald_hrl_reader* made = *reader;
    return guarded(made, [&] { return open_reader(*made, path, from_caller(options)); });
}

extern "C" int herald_hrl_get_info(herald_hrl_reader* reader, herald_hrl_info* info) {
    return guarded(reader, [&] { return get_info(reader, info); });
}

extern "C" int herald_hrl_next(herald_hrl_reader* reader, herald_hrl_record* record) {
    return guarded(reader, [&] { return next(reader, record); });
}

extern "C" const char* herald_hrl_loss(herald_hrl_reader* reader) {
    if (reader && reader->log) return reader->log->loss().c_str();
    return reader && reader->reader ? reader->reader->loss().c_str() : "";
}

extern "C" const char* herald_hrl_error(herald_hrl_reader* reader) {
    if (!reader) return "no reader";
    return reader->short_of_memory ? reader->short_of_memory : reader->error.c_str();
}

extern "C" void herald_hrl_close(herald_hrl_reader* reader) { delete reader; }
