// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tools/hrl/inputs.h"
#include "tools/hrl/progress.h"
#include "tools/hrl/statistics.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;
using Json = nlohmann::ordered_json;

constexpr size_t kHottest = 10;

struct Hot {
    uint64_t offset;
    CoarseningCounter::Count count;
};

std::vector<Hot> hottest(const Statistics& stats) {
    std::vector<Hot> regions;
    for (const auto& [at, count] : stats.by_region.counts()) {
        regions.push_back({at * stats.by_region.unit(), count});
    }
    std::ranges::stable_sort(regions, std::ranges::greater{},
                             [](const Hot& hot) { return hot.count.bytes; });
    regions.resize(std::min(regions.size(), kHottest));
    return regions;
}

// The busiest time, as {begin in seconds since 1970, count}.
Hot busiest(const Statistics& stats) {
    Hot peak{0, {}};
    for (const auto& [at, count] : stats.by_second.counts()) {
        if (count.bytes > peak.count.bytes) peak = {at * stats.by_second.unit(), count};
    }
    return peak;
}

double ratio(const Statistics& stats) {
    return stats.packed_bytes == 0 ? 1.0
                                   : double(stats.readable_bytes) / double(stats.packed_bytes);
}

double seconds(const Statistics& stats) {
    return stats.last_time_ns < stats.first_time_ns
               ? 0
               : double(stats.last_time_ns - stats.first_time_ns) / 1e9;
}

std::string size_text(size_t i) { return bytes_text(uint64_t{512} << i); }

void print_json(const std::string& file, const Journal& journal, const Statistics& stats) {
    Json json{{"file", file},
              {"format", to_string(journal.facts().format)},
              {"notices", journal.notices()}};
    json["kinds"] = Json::object();
    for (size_t kind = 1; kind <= size_t(RecordKind::activation); ++kind) {
        if (stats.kinds[kind].records == 0) continue;
        json["kinds"][to_string(RecordKind(kind))] = {{"records", stats.kinds[kind].records},
                                                      {"bytes", stats.kinds[kind].bytes}};
    }
    json["write_sizes"] = Json::array();
    for (size_t i = 0; i < Statistics::kSizes; ++i) {
        if (stats.sizes[i].records == 0) continue;
        json["write_sizes"].push_back({{"up_to_bytes", uint64_t{512} << i},
                                       {"writes", stats.sizes[i].records},
                                       {"bytes", stats.sizes[i].bytes}});
    }
    const Hot peak = busiest(stats);
    json["churn"] = {{"bytes", stats.written_bytes},
                     {"seconds", seconds(stats)},
                     {"bucket_seconds", stats.by_second.unit()},
                     {"peak_time", time_text(peak.offset * 1'000'000'000)},
                     {"peak_bytes", peak.count.bytes}};
    json["churn"]["buckets"] = Json::array();
    for (const auto& [at, count] : stats.by_second.counts()) {
        json["churn"]["buckets"].push_back(
            {{"time", time_text(at * stats.by_second.unit() * 1'000'000'000)},
             {"writes", count.writes},
             {"bytes", count.bytes}});
    }
    json["region_bytes"] = stats.by_region.unit();
    json["hottest_regions"] = Json::array();
    for (const Hot& hot : hottest(stats)) {
        json["hottest_regions"].push_back(
            {{"offset", hot.offset}, {"writes", hot.count.writes}, {"bytes", hot.count.bytes}});
    }
    json["compression"] = {{"readable_bytes", stats.readable_bytes},
                           {"lz4_bytes", stats.packed_bytes},
                           {"ratio", ratio(stats)},
                           {"zero_bytes", stats.zero_bytes},
                           {"incompressible_writes", stats.dense_writes}};
    print_out("{}\n", json_text(json, 2));
}

std::string bar(uint64_t value, uint64_t max) {
    return std::string(max == 0 ? 0 : size_t(40.0 * double(value) / double(max) + 0.5), '#');
}

void print_text(const Statistics& stats) {
    const auto heading = [](const char* text) { print_out("{}\n", painted(Colour::blue, text)); };
    heading("records");
    for (size_t kind = 1; kind <= size_t(RecordKind::activation); ++kind) {
        if (stats.kinds[kind].records == 0) continue;
        print_out("  {:<12} {:>10} {:>12}\n", to_string(RecordKind(kind)),
                  stats.kinds[kind].records, bytes_text(stats.kinds[kind].bytes));
    }
    if (stats.written_bytes == 0) return;
    heading("sizes of writes, up to");
    uint64_t most = 0;
    for (const auto& size : stats.sizes) most = std::max(most, size.records);
    for (size_t i = 0; i < Statistics::kSizes; ++i) {
        if (stats.sizes[i].records == 0) continue;
        print_out("  {:<12} {:>10} {:>12}  {}\n", size_text(i), stats.sizes[i].records,
                  bytes_text(stats.sizes[i].bytes), bar(stats.sizes[i].records, most));
    }
    heading("churn");
    const Hot peak = busiest(stats);
    const double all = std::max(seconds(stats), 1.0);
    print_out("  mean         {:>10}/s over {:.0f} s\n",
              bytes_text(uint64_t(double(stats.written_bytes) / all)), all);
    print_out("  peak         {:>10}/s for {} s from {}\n",
              bytes_text(peak.count.bytes / stats.by_second.unit()), stats.by_second.unit(),
              time_text(peak.offset * 1'000'000'000));
    heading("hottest regions");
    for (const Hot& hot : hottest(stats)) {
        print_out("  {:>16} +{:<9} {:>8} writes {:>12}\n", hot.offset,
                  bytes_text(stats.by_region.unit()), hot.count.writes,
                  bytes_text(hot.count.bytes));
    }
    heading("compression");
    print_out(
        "  {} of writes, {} by LZ4 ({:.2f} : 1), {} nothing but zeroes, {} writes do not "
        "compress\n",
        bytes_text(stats.written_bytes), bytes_text(stats.packed_bytes), ratio(stats),
        bytes_text(stats.zero_bytes), stats.dense_writes);
}

}  // namespace

int stats(const StatsOptions& options) {
    auto journal = open_journal(options.file, may_look(options.journal));
    if (!journal) return report(journal.error());
    Statistics statistics;
    Progress progress("reading", (*journal)->facts().file_bytes);
    for (;;) {
        auto record = (*journal)->next();
        if (!record) return report(record.error());
        if (!*record) break;
        statistics.add(**record);
        progress.at(std::min(statistics.written_bytes, (*journal)->facts().file_bytes));
    }
    if (options.json) {
        print_json(options.file.native(), **journal, statistics);
    } else {
        print_text(statistics);
        for (const auto& notice : (*journal)->notices()) {
            print_out("{}: {}\n", painted(Colour::yellow, "note"), notice);
        }
    }
    return (*journal)->whole() ? kDone : report({ErrorKind::corrupt, (*journal)->loss(), 0});
}

}  // namespace herald::hrl_tool
