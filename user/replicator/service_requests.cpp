// SPDX-License-Identifier: Apache-2.0
// What the control socket asks of the Service.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <mutex>

#include "user/replicator/service.h"
#include "user/tracker/ebpf_tracker.h"

namespace herald::replicator {

namespace {

using nlohmann::json;

constexpr size_t kMapRunsDefault = 4096;
constexpr size_t kMapRunsMax = 100'000;
constexpr std::chrono::milliseconds kClientLook{200};
constexpr char kLeavingRemedy[] = "look at the disk, its cable and path";
constexpr char kMissingRemedy[] = "attach the disk, or cbtctl unprotect it";

std::string text_of(const json& request, const char* key) {
    const auto found = request.find(key);
    return found != request.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

void Service::handle(const json& request, agent::ControlConnection& connection) {
    auto result = answer(request, connection);
    // A client that is gone needs no answer.
    if (result) {
        (void)connection.send(*result);
    } else {
        (void)connection.send_error(result.error());
    }
}

Result<json> Service::answer(const json& request, agent::ControlConnection& connection) {
    const std::string op = text_of(request, "op");
    if (op == "list") return list();
    if (op == "status") {
        auto worker = find(request);
        if (!worker) return pass(worker);
        return to_json((*worker)->status(), true);
    }
    if (op == "map") return map(request);
    if (op == "tag") return tag(request, connection);
    if (op == "resync") return resync(request);
    if (op == "protect") return protect(request);
    if (op == "unprotect") return unprotect(request);
    if (op == "doctor") return doctor();
    return fail(ErrorKind::operator_needed, "'{}' is not a request this replicator knows",
                op.substr(0, 64));
}

Service::WorkerPtr Service::named(const std::string& name) const {
    for (const WorkerPtr& worker : workers()) {
        const agent::DiskIdentity& disk = worker->disk();
        if (name == disk.path || name == disk.kernel_name || name == disk.node() ||
            name == to_string(worker->id())) {
            return worker;
        }
    }
    return nullptr;
}

Result<Service::WorkerPtr> Service::find(const json& request) const {
    const std::string name = text_of(request, "disk");
    if (name.empty()) return fail(ErrorKind::operator_needed, "the request names no disk");
    if (WorkerPtr worker = named(name)) return worker;
    // A link such as /dev/disk/by-id/...
    if (name.front() == '/') {
        if (auto identity = agent::identify(name)) {
            const Uuid id = identity->disk_id(host_.config.machine);
            for (const WorkerPtr& worker : workers()) {
                if (worker->id() == id) return worker;
            }
        }
    }
    {
        const std::lock_guard lock(lock_);
        for (const Leaving& leaving : leaving_) {
            if (leaving.worker->disk().node() != name) continue;
            return fail(ErrorKind::retry, "{}: {}", name, kLeavingCause);
        }
    }
    return fail(ErrorKind::operator_needed, "{} is not protected: cbtctl protect {}", name, name);
}

json Service::list() const {
    json disks = json::array();
    for (const WorkerPtr& worker : workers()) disks.push_back(to_json(worker->status(), false));
    json missing = json::array();
    const std::lock_guard lock(lock_);
    for (const auto& [path, why] : missing_) {
        missing.push_back({{"path", path}, {"cause", why}, {"remedy", kMissingRemedy}});
    }
    for (const Leaving& leaving : leaving_) {
        if (leaving.waited_for) continue;
        missing.push_back({{"path", leaving.worker->disk().node().native()},
                           {"cause", kLeavingCause},
                           {"remedy", kLeavingRemedy}});
    }
    return {{"disks", disks}, {"missing", missing}};
}

Result<json> Service::map(const json& request) const {
    auto worker = find(request);
    if (!worker) return pass(worker);
    size_t runs_max = kMapRunsDefault;
    if (const auto given = request.find("runs_max"); given != request.end()) {
        if (!given->is_number_unsigned()) {
            return fail(ErrorKind::operator_needed, "runs_max: a whole number is expected");
        }
        runs_max = std::min(given->get<size_t>(), kMapRunsMax);
    }
    // One more than asked for tells whether there are more.
    auto view = (*worker)->map(runs_max + 1);
    if (!view) return pass(view);
    const bool truncated = view->runs.size() > runs_max;
    if (truncated) view->runs.resize(runs_max);
    json runs = json::array();
    for (const tracker::BlockRun& run : view->runs) runs.push_back({run.first, run.count});
    return json{{"block_bytes", HERALD_BLOCK_BYTES},
                {"blocks", view->blocks},
                {"runs", runs},
                {"live_blocks", view->live_blocks},
                {"todo_blocks", view->todo_blocks},
                {"in_flight_blocks", view->in_flight_blocks},
                {"truncated", truncated}};
}

Result<json> Service::tag(const json& request, agent::ControlConnection& connection) const {
    auto worker = find(request);
    if (!worker) return pass(worker);
    PointRequest point;
    point.name = text_of(request, "name");
    if (point.name.empty()) point.name = "manual";
    if (point.name.size() > HERALD_NAME_BYTES_MAX) {
        return fail(ErrorKind::operator_needed, "name: at most {} bytes", HERALD_NAME_BYTES_MAX);
    }
    // The connection is the disk's thread's while it takes the point, and ours before and after:
    // then we look whether the client is still there.
    struct Turn {
        std::mutex lock;
        bool ours = true;
        bool gone = false;
    };
    auto turn = std::make_shared<Turn>();
    point.begin = [turn] {
        const std::lock_guard lock(turn->lock);
        turn->ours = false;
        return !turn->gone;
    };
    point.gone = [turn] {
        const std::lock_guard lock(turn->lock);
        return turn->gone;
    };
    point.phase = [&connection, turn](const char* phase) {
        (void)connection.send({{"phase", phase}});
        if (std::string_view(phase) != "storing") return;
        const std::lock_guard lock(turn->lock);
        turn->ours = true;
    };
    if (request.value("hold", json(false)) == json(true)) {
        point.hold = [this, &connection](std::chrono::milliseconds remaining) -> Result<void> {
            const auto until = std::chrono::steady_clock::now() + remaining;
            auto sent = connection.send({{"frozen", true}, {"deadline_ms", remaining.count()}});
            if (!sent) return sent;
            json message;
            Result<agent::Received> received = agent::Received::timeout;
            // In slices, so that a stop does not leave the filesystems frozen until the deadline.
            for (;;) {
                const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                    until - std::chrono::steady_clock::now());
                received =
                    connection.receive(message, std::clamp(left, kClientLook * 0, kClientLook));
                if (!received || *received != agent::Received::timeout) break;
                if (left <= kClientLook * 0) break;
                if (stopping()) {
                    return fail(ErrorKind::retry, "the replicator was stopped during the hold");
                }
            }
            if (!received) return pass(received);
            if (*received == agent::Received::timeout) {
                return fail(ErrorKind::retry, "the hold lasted past the freeze deadline");
            }
            if (*received == agent::Received::closed) {
                return fail(ErrorKind::retry, "the client went away during the hold");
            }
            const std::string op = text_of(message, "op");
            if (op == "thaw") return {};
            return fail(ErrorKind::retry, "the client gave up during the hold: {}",
                        text_of(message, "cause"));
        };
    }
    auto future = (*worker)->point(std::move(point));
    while (future.wait_for(kClientLook) != std::future_status::ready) {
        const std::lock_guard lock(turn->lock);
        if (!turn->ours) continue;
        json ignored;
        auto received = connection.receive(ignored, std::chrono::milliseconds(0));
        if (!received || *received == agent::Received::closed) {
            turn->gone = true;
            return fail(ErrorKind::retry, "the client went away");
        }
    }
    auto report = future.get();
    if (!report) return pass(report);
    json answer{{"point", to_json(*report)}};
    answer["point"]["stored"] = true;
    return answer;
}

Result<json> Service::resync(const json& request) const {
    auto worker = find(request);
    if (!worker) return pass(worker);
    const std::string how = text_of(request, "how");
    ResyncHow wanted;
    if (how == "full") {
        wanted = ResyncHow::full;
    } else if (how == "digest") {
        wanted = ResyncHow::digest;
    } else if (how == "dirty") {
        wanted = ResyncHow::dirty;
    } else {
        return fail(ErrorKind::operator_needed, "how: full, digest or dirty is expected");
    }
    auto ordered = (*worker)->resync(wanted);
    if (!ordered) return pass(ordered);
    return json{{"ok", true}};
}

Result<json> Service::protect(const json& request) {
    const std::string path = text_of(request, "path");
    if (path.empty()) return fail(ErrorKind::operator_needed, "the request names no path");
    auto worker = add(path);
    if (!worker) return pass(worker);
    const agent::DiskIdentity& disk = (*worker)->disk();
    auto chosen = host_.state->choose({disk.identity, disk.node().native(), true});
    if (!chosen) return pass(chosen);
    return json{{"disk", to_json((*worker)->status(), false)}};
}

// False: no disk that is away has this path.
Result<bool> Service::unprotect_missing(const std::string& path) {
    std::string why;
    {
        const std::lock_guard lock(lock_);
        const auto missing = missing_.find(path);
        if (missing == missing_.end()) return false;
        if (is_configured(path)) {
            return fail(ErrorKind::operator_needed,
                        "{} is not attached and is in the configuration: remove its [[disk]] "
                        "section and restart herald-replicator",
                        path);
        }
        // First: a look at it that is under way protects it only while it is in there.
        why = missing->second;
        missing_.erase(missing);
    }
    for (const ChosenDisk& disk : host_.state->chosen()) {
        if (!disk.protect || disk.path != path) continue;
        auto chosen = host_.state->choose({disk.identity, disk.path, false});
        if (chosen) continue;
        const std::lock_guard lock(lock_);
        missing_.emplace(path, why);
        return pass(chosen);
    }
    return true;
}

Result<json> Service::unprotect(const json& request) {
    const std::string name = text_of(request, "disk");
    // A missing disk may hang: it is not looked at.
    if (!named(name)) {
        auto away = unprotect_missing(name);
        if (!away) return pass(away);
        if (*away) return json{{"ok", true}};
    }
    auto worker = find(request);
    if (!worker) return pass(worker);
    const agent::DiskIdentity& disk = (*worker)->disk();
    // Remembered first: a crash half-way must not begin to protect again what is being let go.
    auto chosen = host_.state->choose({disk.identity, disk.node().native(), false});
    if (!chosen) return pass(chosen);
    {
        const std::lock_guard lock(lock_);
        // Another connection has it already, or stop() does.
        if (workers_.erase((*worker)->id()) == 0) {
            return fail(ErrorKind::retry, "{} is being let go", disk.node().native());
        }
        leaving_.push_back({*worker, true});
    }
    (*worker)->stop();
    if (!(*worker)->join_by(std::chrono::steady_clock::now() + kStopMax)) {
        const std::lock_guard lock(lock_);
        for (Leaving& leaving : leaving_) {
            if (leaving.worker == *worker) leaving.waited_for = false;
        }
        return fail(ErrorKind::retry, "{}: {}", disk.node().native(), kLeavingCause);
    }
    auto gone = let_go(*worker);
    if (!gone) return pass(gone);
    return json{{"ok", true}};
}

json Service::doctor() const {
    json checks = json::array();
    const auto add_check = [&](const std::string& name, bool ok, const std::string& detail,
                               const std::string& remedy) {
        checks.push_back(
            {{"name", name}, {"ok", ok}, {"detail", detail}, {"remedy", ok ? "" : remedy}});
    };
    const auto tracker = tracker::check_ebpf_requirements();
    add_check("tracker", tracker.has_value(), tracker ? "eBPF works here" : tracker.error().message,
              "see the detail");
    const auto guardian = host_.freezer.probe();
    add_check(
        "guardian", guardian.has_value(),
        guardian ? "answers on " + host_.config.guardian_socket.native() : guardian.error().message,
        "start herald-guardian; without it no filesystem is frozen and no point is taken");
    for (const WorkerPtr& worker : workers()) {
        const DiskStatus status = worker->status();
        const Condition condition = condition_of(status);
        const std::string name = worker->disk().node().native();
        add_check(
            name, condition.state == "protected" || condition.state == "initial sync",
            condition.cause.empty() ? condition.state : condition.state + ": " + condition.cause,
            condition.remedy);
        auto on_disk = agent::is_on_disk(host_.config.state_dir, worker->disk());
        if (on_disk && *on_disk) {
            add_check(name + " state_dir", false,
                      host_.config.state_dir.native() + " lies on this disk",
                      "move replicator.state_dir to a disk that is not protected");
        }
        if (auto use = agent::find_use(worker->disk())) {
            for (const agent::Unfreezable& item : use->unfreezable) {
                add_check(name + " freeze", false, item.what + ": " + item.cause,
                          "a point is refused when it is written during the freeze");
            }
        }
    }
    const std::lock_guard lock(lock_);
    for (const auto& [path, why] : missing_) {
        add_check(path, false, why, kMissingRemedy);
    }
    return {{"checks", checks}};
}

}  // namespace herald::replicator
