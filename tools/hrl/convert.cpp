// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/convert.h"

#include "tools/hrl/inputs.h"
#include "tools/hrl/new_file.h"
#include "tools/hrl/numbered_files.h"
#include "tools/hrl/rewrite.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;

Result<void> to_log(const std::vector<Input>& inputs, const ConvertOptions& options) {
    v2::LogHeader header;
    header.time = v2::time_of(inputs.front().facts.created_ns);
    header.creator_application = {'h', 'r', 'l', ' '};
    header.creator_version = 0x00010000;
    header.id = inputs.back().facts.id;
    header.previous_id = inputs.front().facts.previous;
    auto file = NewFile::create(options.target);
    if (!file) return pass(file);
    auto converter = LogConverter::open(file->sink(), header);
    if (!converter) return pass(converter);
    auto done = read_inputs(inputs, options.journal, options.target.parent_path(), "converting",
                            nullptr, [&](const Record& record) -> Result<bool> {
                                auto added = converter->add(record);
                                if (!added) return pass(added);
                                return true;
                            });
    if (!done) return done;
    auto finished = converter->finish();
    if (!finished) return pass(finished);
    auto committed = file->commit();
    if (!committed) return committed;
    print_out("{}: log {}, {} entries, {}\n", options.target.native(), to_string(finished->id),
              finished->entry_count, bytes_text(finished->end_offset));
    return {};
}

Result<void> to_segments(const std::vector<Input>& inputs, const ConvertOptions& options,
                         uint64_t disk_bytes) {
    SegmentHeader header;
    header.machine = options.machine;
    header.disk = options.disk;
    header.segment = inputs.back().facts.id;
    header.previous_segment = inputs.front().facts.previous;
    header.first_position = options.first_position;
    header.disk_bytes = disk_bytes;
    header.created_ns = inputs.front().facts.created_ns;
    NumberedFiles files(options.target);
    std::string said;
    // What has its name is said, whatever becomes of those after it.
    const auto begin = [&] {
        auto sink = files.begin();
        if (sink) print_out("{}", std::exchange(said, {}));
        return sink;
    };
    const auto end = [&](const Segment& segment) -> Result<void> {
        said += fmt::format("{}: segment {}, positions {} to {}, {}\n", files.name().native(),
                            to_string(segment.header.segment), segment.header.first_position,
                            segment.last_position, bytes_text(segment.file_bytes));
        return files.end();
    };
    SegmentConverter converter(header, {begin, end});
    auto done = read_inputs(inputs, options.journal, options.target.parent_path(), "converting",
                            nullptr, [&](const Record& record) -> Result<bool> {
                                auto added = converter.add(record);
                                if (!added) return pass(added);
                                return true;
                            });
    if (!done) return done;
    auto finished = converter.finish();
    if (!finished) return pass(finished);
    auto committed = files.commit();
    if (committed) print_out("{}", said);
    return committed;
}

// A layer is written anew, its records in their order.
Result<void> to_layer(const std::vector<Input>& inputs, const ConvertOptions& options) {
    const Input& input = inputs.front();
    if (inputs.size() != 1) {
        return fail(ErrorKind::operator_needed, "{} is a layer: give it alone to write it anew",
                    input.file.native());
    }
    if (!options.machine.is_nil() || !options.disk.is_nil() || options.disk_bytes ||
        options.first_position != 1) {
        return fail(ErrorKind::operator_needed,
                    "{} says itself whose disk it is, how large, and its positions: leave out "
                    "--machine, --disk, --disk-bytes and --first-position",
                    input.file.native());
    }
    if (options.dry_run) return {};
    auto journal = open_journal(input.file, options.journal);
    if (!journal) return pass(journal);
    if ((*journal)->facts() != input.facts || !(*journal)->whole()) {
        return fail(ErrorKind::operator_needed, "{} changed while it was read",
                    input.file.native());
    }
    auto writer = writer_like((*journal)->segment()->header(), options.journal.segment.keys);
    if (!writer) return pass(writer);
    auto file = NewFile::create(options.target);
    if (!file) return pass(file);
    SegmentStream stream(std::move(*writer), file->sink());
    auto read =
        verify_journal(**journal, [&](const Record& record) { return stream.append(record); });
    if (!read) return pass(read);
    auto layer = stream.finish(read->last_position);
    if (!layer) return pass(layer);
    auto committed = file->commit();
    if (!committed) return committed;
    print_out("{}: layer {}, positions {} to {}, {}\n", options.target.native(),
              to_string(layer->header.segment), layer->header.first_position, layer->last_position,
              bytes_text(layer->file_bytes));
    return {};
}

Result<void> run(const ConvertOptions& options) {
    auto inputs = arrange(options.files, options.journal);
    if (!inputs) return pass(inputs);
    const JournalFormat from = inputs->front().facts.format;
    const bool has_layers = std::ranges::any_of(*inputs, &Input::is_layer);
    for (const Input& input : *inputs) {
        if (const auto features = unknown_features(input.facts)) {
            print_err("hrl: the new file will not have: {}\n", *features);
        }
    }
    if (from == options.format && has_layers) return to_layer(*inputs, options);
    if (from == options.format) {
        return fail(ErrorKind::operator_needed, "{} is {} already", options.files.front().native(),
                    to_string(from));
    }
    // Everything is read once before anything is written: what is lost is said first.
    Survey survey;
    auto verified = verify_inputs(*inputs, options.journal, [&](const Record& record) {
        survey.add(record);
        return Result<void>();
    });
    if (!verified) return verified;
    if (std::ranges::any_of(*inputs, [](const Input& input) { return input.facts.sealed; })) {
        print_err("hrl: v2 cannot carry: the seal: anyone can read the log\n");
    }
    if (has_layers) {
        print_err("hrl: v2 cannot carry: the order of a layer: its records by position\n");
    }
    if (inputs->front().is_image()) {
        print_err(
            "hrl: v2 cannot carry: that what an image layer does not cover is zero: begin "
            "with zeroes\n");
    }
    for (const auto& loss : survey.losses(from, options.format)) {
        print_err("hrl: {} cannot carry: {}\n", to_string(options.format), loss);
    }
    if (options.format == JournalFormat::v2)
        return options.dry_run ? Result<void>() : to_log(*inputs, options);
    if (survey.records() == 0) {
        return fail(ErrorKind::operator_needed, "{} has no entries, and v3 no segment without any",
                    options.files.front().native());
    }
    const uint64_t disk_bytes = options.disk_bytes.value_or(survey.disk_end());
    if (disk_bytes < survey.disk_end()) {
        return fail(ErrorKind::operator_needed,
                    "--disk-bytes {}: something was written up to byte {}", disk_bytes,
                    survey.disk_end());
    }
    if (!options.disk_bytes) {
        print_err(
            "hrl: v2 does not say how large the disk is: taken as {} bytes, where the last "
            "range ends (--disk-bytes)\n",
            disk_bytes);
    }
    if (options.machine.is_nil() || options.disk.is_nil()) {
        print_err(
            "hrl: v2 does not say whose disk it is: the ids of {} are zero "
            "(--machine, --disk)\n",
            options.machine.is_nil() ? options.disk.is_nil() ? "machine and disk" : "machine"
                                     : "disk");
    }
    return options.dry_run ? Result<void>() : to_segments(*inputs, options, disk_bytes);
}

}  // namespace

int convert(const ConvertOptions& options) {
    auto done = run(options);
    return done ? kDone : report(done.error());
}

}  // namespace herald::hrl_tool
