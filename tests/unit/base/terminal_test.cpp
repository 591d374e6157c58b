// SPDX-License-Identifier: Apache-2.0
#include "user/base/terminal.h"

#include <memory>

#include "tests/catch.hpp"

using namespace herald;
using namespace std::chrono_literals;

TEST_CASE("sizes are short and never show 1024 of a unit") {
    CHECK(human_bytes(0) == "0 B");
    CHECK(human_bytes(1023) == "1023 B");
    CHECK(human_bytes(1024) == "1.0 KiB");
    CHECK(human_bytes(65536) == "64.0 KiB");
    CHECK(human_bytes((1ull << 20) - 1) == "1.0 MiB");
    CHECK(human_bytes(3ull << 29) == "1.5 GiB");
    CHECK(human_bytes(UINT64_MAX) == "16.0 EiB");
}

TEST_CASE("durations pick the unit that a person would") {
    CHECK(human_duration(0ns) == "0 us");
    CHECK(human_duration(850us) == "850 us");
    CHECK(human_duration(12300us) == "12.3 ms");
    CHECK(human_duration(999999us) == "1.0 s");
    CHECK(human_duration(4200ms) == "4.2 s");
    CHECK(human_duration(59999ms) == "1 min 00 s");
    CHECK(human_duration(185s) == "3 min 05 s");
    CHECK(human_duration(127min) == "2 h 07 min");
    CHECK(human_duration(76h) == "3 d 04 h");
    CHECK(human_duration(-4200ms) == "-4.2 s");
    CHECK(human_duration(std::chrono::nanoseconds::min()).front() == '-');
}

TEST_CASE("a progress line shows bytes, the rate of the last seconds and the time left") {
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> sink(std::tmpfile(), std::fclose);
    Progress progress("sync", 1000ull << 20, sink.get());
    const auto start = Progress::Clock::now();
    // Ten seconds at 10 MiB/s, then ten at 50: the old rate must not linger.
    uint64_t done = 0;
    for (int i = 1; i <= 100; ++i) progress.record(done += 1 << 20, start + i * 100ms);
    CHECK(progress.rate() == Approx(10.0 * (1 << 20)).epsilon(0.05));
    for (int i = 101; i <= 200; ++i) progress.record(done += 5 << 20, start + i * 100ms);
    CHECK(progress.rate() == Approx(50.0 * (1 << 20)).epsilon(0.05));
    const std::string line = progress.line(start + 20s, 120);
    CHECK(line.find("600.0 MiB of 1000.0 MiB") != std::string::npos);
    CHECK(line.find(" 60 %") != std::string::npos);
    CHECK((line.find("8.0 s left") != std::string::npos ||
           line.find("7.0 s left") != std::string::npos));
    CHECK(line.find("####") != std::string::npos);
    CHECK(line.size() < 120);
    CHECK(progress.line(start + 20s, 40).find('#') == std::string::npos);
    for (int i = 201; i <= 279; ++i) progress.record(done += 5 << 20, start + i * 100ms);
    const std::string end = progress.line(start + 28s, 120);
    CHECK(end.find("less than 1 s left") != std::string::npos);
}

TEST_CASE("progress off a terminal writes whole lines, few of them") {
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> sink(std::tmpfile(), std::fclose);
    {
        Progress progress("copy", 100, sink.get());
        for (uint64_t i = 0; i <= 100; ++i) progress.update(i);
    }
    std::rewind(sink.get());
    std::string text(4096, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), sink.get()));
    CHECK(std::count(text.begin(), text.end(), '\n') == 2);
    CHECK(text.find('\r') == std::string::npos);
    CHECK(text.find("100 B of 100 B") != std::string::npos);
}

TEST_CASE("a progress of nothing is complete, and one that goes back does not crash") {
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> sink(std::tmpfile(), std::fclose);
    Progress progress("x", 0, sink.get());
    const auto now = Progress::Clock::now();
    CHECK(progress.line(now, 80).find("100 %") != std::string::npos);
    progress.record(500, now + 1s);
    progress.record(100, now + 2s);
    CHECK(progress.rate() == 0);
    CHECK(progress.line(now + 2s, 80).find("100 B of 100 B") != std::string::npos);
}

TEST_CASE("a table aligns its columns, numbers to the right, without trailing blanks") {
    Table table({"disk", ">size", "state"});
    table.add({"sda", "1.0 GiB", "protected"});
    table.add({"loop10", "64.0 KiB"});
    CHECK(table.text() ==
          "disk        size  state\n"
          "sda      1.0 GiB  protected\n"
          "loop10  64.0 KiB\n");
}
