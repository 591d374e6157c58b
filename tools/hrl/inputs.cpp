// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/inputs.h"

#include <algorithm>

#include "tools/hrl/progress.h"
#include "tools/hrl/text.h"
#include "user/hrl/sorted_journal.h"
#include "user/hrl/v2/chain.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;

uint64_t total_bytes(const std::vector<Input>& inputs) {
    uint64_t total = 0;
    for (const Input& input : inputs) total += input.facts.file_bytes;
    return total;
}

Result<Input> open_input(const std::filesystem::path& file, const Reading& options) {
    auto journal = open_journal(file, options);
    if (!journal) return pass(journal);
    if (!(*journal)->whole()) {
        return fail(ErrorKind::corrupt, "{}; hrl repair writes what is proven to a new file",
                    (*journal)->loss());
    }
    Input input;
    input.file = file;
    input.facts = (*journal)->facts();
    if (const SegmentReader* segment = (*journal)->segment()) {
        input.last_position = segment->last_position();
    }
    return input;
}

// Who can write a plain file could put it in the place of a sealed one.
Result<void> check_seals(const std::vector<Input>& inputs) {
    const auto plain = std::ranges::find(inputs, false, &Input::is_sealed);
    const auto sealed = std::ranges::find(inputs, true, &Input::is_sealed);
    if (plain == inputs.end() || sealed == inputs.end()) return {};
    return fail(ErrorKind::operator_needed,
                "{} is not sealed and {} is: one of them may have been put there by somebody "
                "without the key; --allow-plain takes both",
                plain->file.native(), sealed->file.native());
}

// One disk, no gap, no overlap, each the successor it says it is.
Result<void> check_segments(const std::vector<Input>& inputs) {
    for (size_t i = 1; i < inputs.size(); ++i) {
        const Input& before = inputs[i - 1];
        const Input& input = inputs[i];
        if (input.facts.machine != before.facts.machine || input.facts.disk != before.facts.disk) {
            return fail(ErrorKind::operator_needed, "{} and {} are of different disks: {} and {}",
                        before.file.native(), input.file.native(), to_string(*before.facts.disk),
                        to_string(*input.facts.disk));
        }
        if (input.first() != before.last() + 1) {
            return fail(ErrorKind::operator_needed,
                        "{} ends at position {} and {} begins at {}: give every segment between "
                        "them, each once",
                        before.file.native(), before.last(), input.file.native(), input.first());
        }
        if (input.is_image()) {
            return fail(ErrorKind::operator_needed,
                        "{} is the whole disk at position {}: leave out what comes before it",
                        input.file.native(), input.last());
        }
        // Which segment was the last in a layer, the layer does not say.
        if (!before.is_layer() && !input.facts.previous.is_nil() &&
            input.facts.previous != before.facts.id) {
            return fail(ErrorKind::operator_needed, "{} follows segment {}, but {} is segment {}",
                        input.file.native(), to_string(input.facts.previous), before.file.native(),
                        to_string(before.facts.id));
        }
    }
    return {};
}

Result<void> order_logs(std::vector<Input>& inputs) {
    std::vector<v2::Link> links;
    for (const Input& input : inputs) {
        links.push_back(
            {input.file.native(), input.facts.id, input.facts.previous, input.facts.created_ns});
    }
    const v2::Chain chain = v2::follow_links(links);
    if (!chain.problems.empty()) {
        return fail(ErrorKind::operator_needed, "these logs are not one chain: {}",
                    fmt::join(chain.problems, "; "));
    }
    std::vector<Input> ordered;
    for (const size_t i : chain.order) ordered.push_back(std::move(inputs[i]));
    inputs = std::move(ordered);
    return {};
}

}  // namespace

Result<std::unique_ptr<Journal>> open_journal(const std::filesystem::path& file,
                                              const Reading& options) {
    auto source = file_source(file);
    if (!source) return pass(source);
    JournalOptions with_layers = options;
    with_layers.segment.layers = true;
    auto journal = Journal::open(std::move(*source), with_layers);
    // ReadOptions::sealed_only says the same of segments; a log is never sealed.
    if (journal && options.has_key() && !options.allow_plain && !(*journal)->facts().sealed) {
        return fail(ErrorKind::operator_needed,
                    "{}: it is not sealed, and a key was given: anyone could have written it; "
                    "--allow-plain takes it all the same",
                    file.native());
    }
    return journal;
}

std::optional<std::string> unknown_features(const JournalFacts& facts) {
    // No bit has a meaning yet.
    if (facts.features_optional == 0) return std::nullopt;
    return fmt::format(
        "the optional features {} of {}, which are not known here, and their sections",
        bits_text(facts.features_optional), facts.name);
}

Result<std::vector<Input>> arrange(const std::vector<std::filesystem::path>& files,
                                   const Reading& options) {
    std::vector<Input> inputs;
    for (const auto& file : files) {
        auto input = open_input(file, options);
        if (!input) return pass(input);
        inputs.push_back(std::move(*input));
    }
    for (const Input& input : inputs) {
        if (input.facts.format == inputs.front().facts.format) continue;
        return fail(ErrorKind::operator_needed, "{} is {}, {} is {}: give files of one format",
                    inputs.front().file.native(), to_string(inputs.front().facts.format),
                    input.file.native(), to_string(input.facts.format));
    }
    if (!options.allow_plain) {
        auto checked = check_seals(inputs);
        if (!checked) return pass(checked);
    }
    if (inputs.front().facts.format == JournalFormat::v2) {
        auto ordered = order_logs(inputs);
        if (!ordered) return pass(ordered);
        return inputs;
    }
    std::ranges::sort(inputs, {}, &Input::first);
    auto checked = check_segments(inputs);
    if (!checked) return pass(checked);
    return inputs;
}

Result<void> verify_inputs(std::vector<Input>& inputs, const Reading& options,
                           const std::function<Result<void>(const Record&)>& visit,
                           const std::function<void(const Input&, const Journal&)>& begin) {
    Progress progress("verifying", total_bytes(inputs));
    uint64_t done = 0;
    uint64_t shift = 0;
    for (Input& input : inputs) {
        auto journal = open_journal(input.file, options);
        if (!journal) return pass(journal);
        const bool is_log = input.facts.format == JournalFormat::v2;
        if (is_log) input.position_shift = shift;
        if (begin) begin(input, **journal);
        uint64_t read_bytes = 0;
        auto summary = verify_journal(**journal, [&](const Record& record) -> Result<void> {
            read_bytes += record.data.size();
            progress.at(done + std::min(read_bytes, input.facts.file_bytes));
            if (!visit) return {};
            Record counted = record;
            counted.position += input.position_shift;
            return visit(counted);
        });
        if (!summary) return pass(summary);
        // A file exchanged since it was arranged would undo the checks of the arrangement.
        if (summary->facts != input.facts ||
            input.last_position.value_or(summary->last_position) != summary->last_position) {
            return fail(ErrorKind::operator_needed, "{} changed while it was read",
                        input.file.native());
        }
        input.last_position = summary->last_position;
        input.records = summary->records;
        input.disk_end = summary->disk_end;
        if (is_log) shift += summary->records;
        done += input.facts.file_bytes;
    }
    return {};
}

Result<void> read_inputs(const std::vector<Input>& inputs, const Reading& options,
                         const std::filesystem::path& scratch_dir, const char* doing,
                         const std::function<Result<void>(const Input&)>& begin,
                         const std::function<Result<bool>(const Record&)>& visit) {
    Progress progress(doing, total_bytes(inputs));
    uint64_t done = 0;
    for (const Input& input : inputs) {
        auto journal = open_journal(input.file, options);
        if (!journal) return pass(journal);
        const auto changed = [&] {
            return fail(ErrorKind::operator_needed, "{} changed while it was read",
                        input.file.native());
        };
        if ((*journal)->facts() != input.facts || !(*journal)->whole()) return changed();
        *journal = sorted_by_position(std::move(*journal), scratch_dir);
        if (begin) {
            auto begun = begin(input);
            if (!begun) return begun;
        }
        uint64_t read_bytes = 0;
        uint64_t records = 0;
        for (;;) {
            auto record = (*journal)->next();
            if (!record) return pass(record);
            if (!*record) break;
            Record counted = **record;
            counted.position += input.position_shift;
            auto visited = visit(counted);
            if (!visited) return pass(visited);
            if (!*visited) return {};
            records += 1;
            read_bytes += counted.data.size();
            progress.at(done + std::min(read_bytes, input.facts.file_bytes));
        }
        if (records != input.records) return changed();
        done += input.facts.file_bytes;
    }
    return {};
}

}  // namespace herald::hrl_tool
