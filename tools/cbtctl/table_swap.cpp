// SPDX-License-Identifier: Apache-2.0
#include "tools/cbtctl/table_swap.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "user/base/crash_point.h"
#include "user/tracker/cbt_device.h"

namespace herald::cbtctl {
namespace {

using tracker::to_string;

// Two devices with one of these write the same blocks and keep nothing of their own.
constexpr std::array kStateless{"linear", "striped", "crypt", "thin", "error", "zero"};

struct Now {
    std::string text;
    std::vector<TableLine> lines;
    bool tracked = false;  // by the driver
    std::string origin, meta;
};

Result<Now> look(Mapper& mapper, const std::string& name) {
    auto text = mapper.table(name);
    if (!text) return pass(text);
    auto lines = parse_table(*text);
    if (!lines) {
        return fail(ErrorKind::operator_needed, "{} has no table that could be replaced", name);
    }
    Now now{*text, std::move(*lines), false, {}, {}};
    if (now.lines.size() == 1 && now.lines[0].target == "cbt") {
        now.tracked = true;
        std::istringstream words(now.lines[0].arguments);
        words >> now.origin >> now.meta;
    }
    return now;
}

uint64_t sectors_of(const Now& now) {
    const TableLine& last = now.lines.back();
    return last.first + last.sectors;
}

// An earlier command may have been killed between its steps.
Result<void> wake(Mapper& mapper, const std::string& name) {
    auto suspended = mapper.suspended(name);
    if (!suspended) return pass(suspended);
    return *suspended ? mapper.resume(name) : Result<void>();
}

// The table in use is `before`, whatever became of the try to replace it.
Error put_back(Mapper& mapper, const std::string& name, const Now& before, Error why) {
    auto suspended = mapper.suspended(name);
    Result<void> done;
    if (suspended && *suspended) {
        // The new table was in its place when its start failed.
        done = mapper.load(name, before.text);
        if (done) done = mapper.resume(name);
    } else {
        done = mapper.forget_loaded(name);
    }
    if (!suspended) done = pass(suspended);
    if (!done) {
        why.message +=
            fmt::format("; and the table before could not be put back: {}. Run the command again",
                        done.error().message);
    } else {
        why.message += fmt::format("; {} goes on as before", name);
    }
    return why;
}

Result<void> replace(Mapper& mapper, const std::string& name, const Now& before,
                     const std::string& table) {
    auto done = mapper.load(name, table);
    if (done) {
        crash_point("cbtctl.loaded");
        done = mapper.resume(name);
    }
    if (done) {
        crash_point("cbtctl.swapped");
        return done;
    }
    return tl::unexpected<Error>(put_back(mapper, name, before, done.error()));
}

// The driver's table stays: what a killed command had begun with it is taken back.
Result<void> settle(Mapper& mapper, const std::string& name, const std::string& helper,
                    bool helped) {
    auto cleared = mapper.forget_loaded(name);
    if (!cleared) return cleared;
    auto awake = wake(mapper, name);
    if (!awake && helped) {
        auto before = look(mapper, helper);
        if (!before) return pass(before);
        return tl::unexpected<Error>(put_back(mapper, name, *before, awake.error()));
    }
    if (!awake) return awake;
    auto device = mapper.find(name);
    if (!device) return pass(device);
    auto driver = tracker::CbtDevice::open();
    if (!driver) return pass(driver);
    return driver->detach(device->value_or(herald_cbt_disk_abi{}), true);
}

}  // namespace

std::string why_not_shared(const std::vector<TableLine>& table) {
    for (const TableLine& line : table) {
        if (std::find(kStateless.begin(), kStateless.end(), line.target) == kStateless.end()) {
            return fmt::format(
                "its table has the target {}, which keeps a state of its own and cannot be moved "
                "while it is in use: protect the devices below it, or a volume above it",
                line.target);
        }
    }
    return {};
}

std::string origin_name(const std::string& name) { return name + "-herald-origin"; }

Result<Swapped> swap_in(const std::string& name, const std::string& meta) {
    Mapper mapper;
    const std::string helper = origin_name(name);
    Swapped swapped{false, name, "/dev/mapper/" + name};
    std::string meta_word = "-";
    if (meta != "-") {
        auto number = device_number(meta);
        if (!number) return pass(number);
        meta_word = to_string(*number);
    }
    auto now = look(mapper, name);
    if (!now) return pass(now);
    auto there = mapper.find(helper);
    if (!there) return pass(there);
    if (now->tracked) {
        auto settled = settle(mapper, name, helper, bool(*there));
        if (!settled) return pass(settled);
        if (now->meta != meta_word) {
            return fail(ErrorKind::operator_needed,
                        "{} is tracked already, with the meta device {}: unprotect it first", name,
                        now->meta == "-" ? "none" : now->meta);
        }
        return swapped;
    }
    if (const std::string why = why_not_shared(now->lines); !why.empty()) {
        return fail(ErrorKind::operator_needed, "{}: {}", name, why);
    }
    if (meta != "-") {
        for (const TableLine& line : now->lines) {
            if ((line.arguments + " ").find(meta_word + " ") != std::string::npos) {
                return fail(ErrorKind::operator_needed,
                            "{} lies on {}: it cannot be its meta device", name, meta);
            }
        }
    }
    auto cleared = mapper.forget_loaded(name);
    if (!cleared) return pass(cleared);
    if (*there) {
        // Of a command that was killed; where something else holds it, dmsetup says so.
        auto gone = mapper.remove(helper);
        if (!gone) return pass(gone);
    }
    auto made = mapper.create(helper, "HERALD-origin-" + name, now->text);
    if (!made) return pass(made);
    crash_point("cbtctl.helper_made");
    auto origin = mapper.find(helper);
    Result<void> done;
    if (!origin) {
        done = pass(origin);
    } else if (!*origin) {
        done = fail(ErrorKind::operator_needed, "{} went away", helper);
    } else {
        done = replace(
            mapper, name, *now,
            fmt::format("0 {} cbt {} {}\n", sectors_of(*now), to_string(**origin), meta_word));
    }
    if (!done) {
        // Kept when the new table is still the one in use.
        auto removed = mapper.remove(helper);
        return pass(done);
    }
    swapped.changed = true;
    return swapped;
}

Result<Swapped> swap_out(herald_cbt_disk_abi device, const std::string& name) {
    Mapper mapper;
    const std::string helper = origin_name(name);
    Swapped swapped{false, name, "/dev/mapper/" + name};
    auto now = look(mapper, name);
    if (!now) return pass(now);
    auto there = mapper.find(helper);
    if (!there) return pass(there);
    if (now->tracked) {
        if (!*there || to_string(**there) != now->origin) {
            return fail(ErrorKind::operator_needed,
                        "{} is tracked and was not protected by cbtctl: there is no {} that has "
                        "its table. Whoever made its table takes it out",
                        name, helper);
        }
        auto before = mapper.table(helper);
        if (!before) return pass(before);
        auto awake = wake(mapper, name);
        if (!awake) return pass(awake);
        auto driver = tracker::CbtDevice::open();
        if (!driver) return pass(driver);
        auto told = driver->detach(device, false);
        if (!told) return pass(told);
        crash_point("cbtctl.detached");
        auto done = replace(mapper, name, *now, *before);
        if (!done) {
            auto undone = driver->detach(device, true);
            return pass(done);
        }
        swapped.changed = true;
    }
    auto awake = wake(mapper, name);
    if (!awake) return pass(awake);
    if (*there) {
        auto gone = mapper.remove(helper);
        if (!gone) return pass(gone);
        swapped.changed = true;
    }
    return swapped;
}

}  // namespace herald::cbtctl
