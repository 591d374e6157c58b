// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world.h"

#include "user/wire/messages.h"

namespace herald::sim {

namespace {

constexpr uint64_t kCalmStepsMax = 20'000;

uint64_t disk_bytes_of(Random& random) {
    const uint64_t blocks = random.chance(0.1) ? 66 + random.below(4) : 1 + random.below(14);
    const uint64_t short_by = random.chance(0.5) ? 512 * random.below(127) : 0;
    return blocks * kBlockBytes - short_by;
}

}  // namespace

Figures& Figures::operator+=(const Figures& other) {
    agent_crashes += other.agent_crashes;
    server_crashes += other.server_crashes;
    clones += other.clones;
    twins += other.twins;
    reverts += other.reverts;
    reboots += other.reboots;
    gaps += other.gaps;
    catalog_restores += other.catalog_restores;
    damaged += other.damaged;
    commits += other.commits;
    points += other.points;
    boundaries += other.boundaries;
    sank_to_extents += other.sank_to_extents;
    sank_to_map += other.sank_to_map;
    calm_steps_max = std::max(calm_steps_max, other.calm_steps_max);
    return *this;
}

World::World(uint64_t seed, bool ordered)
    : seed_(seed),
      ordered_(ordered),
      random_(seed),
      machine_id_(random_.id()),
      disk_id_(random_.id()),
      oracle_(trace_, disk_id_, plan_.disk_bytes = disk_bytes_of(random_)),
      network_(random_) {
    make_plan();
    wire_server();
    main_.machine = std::make_unique<Machine>(plan_.disk_bytes);
    for (uint64_t& cell : main_.machine->cells) cell = random_.chance(0.6) ? ++version_ : 0;
    if (ordered_) {
        main_.machine->make_ordered(random_);
        oracle_.expect_ordered();
        plan_.gaps = false;  // the driver loses nothing without a power cut
    }
    main_.agent = boot(*main_.machine, "main");
    start_server();
}

World::~World() = default;

// Each seed has some kinds of trouble and not others, so that rare combinations get their turn.
void World::make_plan() {
    plan_.steps = 400 + random_.below(2000);
    const auto sometimes = [&](double share, double most) {
        return random_.chance(share) ? most * random_.uniform() : 0.0;
    };
    network_.faults.loss = sometimes(0.6, 0.15);
    network_.faults.twice = sometimes(0.6, 0.2);
    network_.faults.damage = sometimes(0.5, 0.1);
    network_.faults.very_late = sometimes(0.5, 0.1);
    plan_.agent_crash = sometimes(0.6, 0.01);
    plan_.server_crash = sometimes(0.6, 0.05);
    plan_.server_trouble = sometimes(0.5, 0.1);
    plan_.write = sometimes(0.8, 0.5);
    plan_.clones = random_.chance(0.35);
    plan_.reverts = random_.chance(0.35);
    plan_.reboots = random_.chance(0.25);
    plan_.gaps = random_.chance(0.3);
    plan_.restores = random_.chance(0.35);
    plan_.full = random_.chance(0.2);
}

// A few steps of each seed are singled out, so that a crash meets rare ones, too.
double World::crash_chance(const char* step, double base) const {
    if (calm_ || base == 0) return 0;
    uint64_t hash = seed_;
    for (const char* c = step; *c; ++c) hash = Random(hash ^ uint64_t(*c)).next();
    return hash % 12 == 0 ? 0.15 : base;
}

void World::wire_server() {
    const auto at_step = [this](const char* step) {
        if (random_.chance(crash_chance(step, plan_.server_crash))) {
            trace_.add("server: dies at {}", step);
            throw ServerCrash{};
        }
        if (random_.chance(plan_.write)) writes(*main_.machine, !calm_);
    };
    server_.store.at_step = at_step;
    server_.store.between = [this] {
        while (depth_ < 3 && random_.chance(0.3)) deliver_request(depth_);
    };
    server_.store.cut = [this](size_t bytes) { return size_t(random_.below(bytes)); };
    server_.store.fault = [this] {
        if (calm_ || !random_.chance(plan_.server_trouble)) return PutFault::none;
        return PutFault(1 + random_.below(3));
    };
    server_.catalog->at_step = at_step;
    server_.catalog->fault = [this] {
        if (calm_ || !random_.chance(plan_.server_trouble)) return 0u;
        return unsigned(1 + random_.below(2));
    };
    server_.catalog->on_grant = [this](const auto& request, const auto& reply) {
        oracle_.granted(request, reply);
        newest_epoch_ = std::max(newest_epoch_, reply.grant.epoch);
    };
    server_.catalog->on_commit = [this](const vault::Commit& commit) {
        oracle_.committed(server_, commit);
        ++figures_.commits;
    };
}

std::unique_ptr<Agent> World::boot(Machine& machine, const std::string& name) {
    Host host{random_, trace_, oracle_, now_ms_, calm_, machine_id_, disk_id_, {}, {}};
    host.send = [this, &machine](Request request) {
        const Protected& sender = main_.machine.get() == &machine ? main_ : clone_;
        if (sender.cut_off && request.head.method == "PUT") return;
        request.head.peer.role = wire::Role::machine;
        request.head.peer.machine = machine_id_;
        network_.send(std::move(request), now_ms_);
    };
    host.at_step = [this, &machine](const char* step) {
        check();
        while (random_.chance(plan_.write)) writes(machine, !calm_);
        // More often where it hurts: while a point is read, and while a session is asked for.
        if (plan_.gaps && !calm_ && random_.chance(machine.frozen ? 0.05 : 0.004)) {
            lose_events(machine);
        }
        if (plan_.reverts && !calm_ && step == std::string_view("replicator.intended") &&
            random_.chance(0.15)) {
            take_snapshot();
        }
        if (plan_.clones && step == std::string_view("replicator.intended")) {
            clone_due_ = random_.chance(0.2);
        }
        if (random_.chance(crash_chance(step, plan_.agent_crash))) {
            trace_.add("a replicator dies at {}", step);
            throw AgentCrash{};
        }
    };
    return std::make_unique<Agent>(std::move(host), machine, name);
}

void World::run_agent(Protected& who, void (Agent::*what)()) {
    try {
        (who.agent.get()->*what)();
    } catch (const AgentCrash&) {
        ++figures_.agent_crashes;
        const std::string name = who.agent->name();
        who.agent.reset();
        check();
        who.agent = boot(*who.machine, name);
    }
}

void World::writes(Machine& machine, bool may_begin) {
    machine.producer.wall_ns = now_ms_ * 1'000'000;
    machine.step_writes(random_, version_, may_begin);
}

void World::take_snapshot() {
    trace_.add("a snapshot of the machine is taken");
    snapshot_ = *main_.machine;
    snapshot_->frozen = false;
}

void World::lose_events(Machine& machine) {
    trace_.add("the tracker loses events");
    ++figures_.gaps;
    machine.lose_events(random_, version_);
}

wire::ServerResponse World::serve(const Request& request) {
    auto admitted = server_.service->admit(request.head);
    if (!admitted) return std::move(admitted.error());
    if (request.body.size() > *admitted) {
        return wire::error_response(413, wire::kErrorBadRequest, "too large");
    }
    return server_.service->handle(request.head, request.body);
}

void World::deliver_request(unsigned depth) {
    auto request = network_.take_request(now_ms_);
    if (!request) return;
    Answer answer{request->life, request->ticket, std::nullopt};
    if (!server_.service) return network_.send(std::move(answer), now_ms_);
    wire::ServerResponse response;
    const bool put = request->head.method == "PUT";
    if (put && being_put_.contains(request->head.path)) {
        // DiskGate would wait for the first request to end; here that is what a long wait gives.
        response = wire::error_response(503, wire::kErrorBusy, "still being stored", 1);
    } else {
        if (put) being_put_.insert(request->head.path);
        depth_ = depth + 1;
        try {
            response = serve(*request);
        } catch (const ServerCrash&) {
            depth_ = depth;
            being_put_.clear();
            if (depth > 0) throw;
            return crash_server();
        }
        depth_ = depth;
        if (put) being_put_.erase(request->head.path);
    }
    const bool good = response.status / 100 == 2;
    if (request->damaged) {
        ++figures_.damaged;
        if (good) violated("torn_is_refused: a damaged {} was taken", request->head.path);
    }
    if (put && good) {
        auto ack = wire::decode_segment_ack(as_text(response.body));
        if (!ack) violated("an acknowledgement that does not decode");
        oracle_.acknowledged(*ack, server_);
    }
    trace_.add("server: {} {:.70} -> {} {:.100}", request->head.method,
               request->head.path.substr(46), response.status,
               response.headers.contains("content-type") &&
                       response.headers["content-type"] == "application/json"
                   ? as_text(response.body)
                   : "");
    answer.response = wire::HttpResponse{response.status, response.headers, response.body};
    network_.send(std::move(answer), now_ms_);
}

void World::deliver_answer() {
    const auto answer = network_.take_answer(now_ms_);
    if (!answer) return;
    if (main_.agent) main_.agent->answered(*answer);
    if (clone_.agent && trace_.step >= clone_.wakes_at) clone_.agent->answered(*answer);
}

void World::crash_server() {
    ++figures_.server_crashes;
    server_.crash();
    oracle_.check_stored(server_, false);
}

void World::start_server() {
    try {
        auto started = server_.start();
        if (!started) violated("the server does not start: {}", started.error().message);
        trace_.add("server: starts, {} objects", server_.store.objects.size());
    } catch (const ServerCrash&) {
        crash_server();
    }
}

// Promise 11: a catalog from a backup gets an epoch above all that were ever granted, of nobody's
// session. Where the backup is of the session that still runs, nothing was granted since, and none
// is needed.
void World::restore_catalog() {
    if (backups_.empty()) return;
    const size_t chosen = random_.below(backups_.size());
    vault::MemoryCatalog::State state = backups_[chosen];
    backups_.resize(chosen + 1);  // newer ones name objects that go now
    const auto found = state.find(disk_id_);
    if (found == state.end()) return;
    const vault::DiskRow& then = found->second.row;
    const vault::DiskRow& now = server_.catalog->state().at(disk_id_).row;
    const bool same_session = then.session == now.session && then.epoch == now.epoch;
    const bool new_epoch = !same_session || random_.chance(0.5);
    // An epoch of which the store has no object: the clock is what is above it.
    server_.restore(std::move(state), new_epoch ? std::optional(newest_epoch_ + 1) : std::nullopt,
                    random_.id());
    const vault::DiskRow& row = server_.catalog->state().at(disk_id_).row;
    newest_epoch_ = std::max(newest_epoch_, row.epoch);
    trace_.add("server: the catalog is restored to head {}, epoch {}", row.head, row.epoch);
    ++figures_.catalog_restores;
    oracle_.rewound(server_);
    // Then only the head says that something is amiss, and a new process knows no other.
    if (!new_epoch && random_.chance(0.5)) {
        main_.agent.reset();
        main_.agent = boot(*main_.machine, "main");
    }
}

void World::make_clone() {
    trace_.add("the machine is cloned");
    ++figures_.clones;
    // The process that runs stays with the clone; the machine goes on with a new one.
    Protected twin;
    twin.machine = std::make_unique<Machine>(*main_.machine);
    twin.machine->frozen = false;
    clone_ = std::exchange(main_, std::move(twin));
    clone_.agent->rename("clone");
    clone_.dies_at = 0;
    clone_.cut_off = false;
    clone_.wakes_at = trace_.step + random_.below(300);
    // Both get the session that is asked for when both are quick: two writers of one epoch. One of
    // them dies, at times cut off and before it learns of the other.
    if (!main_.machine->continuity().next_session.is_nil() && random_.chance(0.7)) {
        clone_.wakes_at = trace_.step + random_.below(5);
        Protected& slower = random_.chance(0.5) ? main_ : clone_;
        slower.dies_at = trace_.step + 100 + random_.below(200);
        slower.cut_off = random_.chance(0.6);
    }
    const uint64_t dies_at = std::max(main_.dies_at, clone_.dies_at);
    clone_.ends_at = std::max(clone_.wakes_at, dies_at) + random_.below(300);
    main_.agent = boot(*main_.machine, "main");
}

void World::misfortune() {
    switch (random_.below(9)) {
        case 0:
            if (plan_.clones && !clone_.agent) make_clone();
            return;
        case 1:
            if (plan_.reverts && (!snapshot_ || random_.chance(0.3))) {
                take_snapshot();
            }
            return;
        case 2:
            if (!plan_.reverts || !snapshot_) return;
            trace_.add("the machine is reverted to the snapshot");
            ++figures_.reverts;
            main_.agent.reset();
            *main_.machine = *snapshot_;
            main_.agent = boot(*main_.machine, "main");
            return;
        case 3:
            if (!plan_.reboots) return;
            trace_.add("the machine reboots");
            ++figures_.reboots;
            main_.agent.reset();
            main_.machine->reboot(random_);
            main_.agent = boot(*main_.machine, "main");
            return;
        case 4:
            if (plan_.gaps) lose_events(*main_.machine);
            return;
        case 5:
            if (plan_.restores && backups_.size() < 4) backups_.push_back(server_.catalog->state());
            return;
        case 6:
            if (plan_.restores) restore_catalog();
            return;
        case 7:
            if (plan_.full) server_.store.full = !server_.store.full;
            return;
        case 8:
            if (plan_.server_crash > 0 && server_.service) crash_server();
            return;
    }
}

void World::one_step() {
    ++trace_.step;
    now_ms_ += random_.below(calm_ ? 20 : 6);
    if (!server_.service && (calm_ || random_.chance(0.1))) start_server();
    if (!calm_ && random_.chance(0.03)) misfortune();
    if (std::exchange(clone_due_, false) && !calm_ && !clone_.agent) make_clone();
    if (clone_.agent && trace_.step >= clone_.ends_at) clone_.end();
    for (Protected* each : {&main_, &clone_}) {
        if (!each->agent || trace_.step != each->dies_at) continue;
        trace_.add("{}: dies", each->agent->name());
        each->cut_off = false;
        const auto session_of = [](const Protected& who) {
            if (!who.machine) return Uuid{};
            const tracker::Continuity ours = who.machine->continuity();
            return ours.next_session.is_nil() ? ours.session : Uuid{};
        };
        if (session_of(main_) == session_of(clone_) && !session_of(main_).is_nil())
            ++figures_.twins;
        const std::string name = each->agent->name();
        each->agent.reset();
        each->agent = boot(*each->machine, name);
    }
    // The other one's disk changes meanwhile.
    if (trace_.step < main_.dies_at && clone_.machine && random_.chance(0.3)) {
        writes(*clone_.machine, !calm_);
    } else if (trace_.step < clone_.dies_at && random_.chance(0.3)) {
        writes(*main_.machine, !calm_);
    }
    const bool two = clone_.agent && trace_.step >= clone_.wakes_at;
    Protected& who = two && random_.chance(0.5) ? clone_ : main_;
    const uint64_t what = random_.below(100);
    if (what < 45) {
        run_agent(who, &Agent::step);
    } else if (what < 60) {
        run_agent(who, &Agent::upload);
    } else if (what < 75) {
        deliver_request(0);
    } else if (what < 88) {
        deliver_answer();
    } else if (what < 97) {
        writes(*who.machine, !calm_);
    } else {
        const auto until = who.agent->waits_until();
        now_ms_ = until && *until > now_ms_ && random_.chance(0.5) ? *until
                                                                   : now_ms_ + random_.below(300);
    }
    check();
}

void World::check() {
    oracle_.check_dirty(*main_.machine, "main", server_);
    if (clone_.machine) oracle_.check_dirty(*clone_.machine, "clone", server_);
}

bool World::converged() const {
    const Machine& machine = *main_.machine;
    for (uint64_t block = 0; block < machine.blocks(); ++block) {
        if (machine.dirty(block)) return false;
    }
    const auto disk = server_.catalog->state().find(disk_id_);
    return main_.agent->idle() && machine.writes.empty() && oracle_.image() == machine.cells &&
           disk != server_.catalog->state().end() && disk->second.row.state.state() == "protected";
}

void World::converge() {
    trace_.add("calm from here on");
    calm_ = true;
    clone_.end();
    network_.faults = {};
    server_.store.full = false;
    const uint64_t from = trace_.step;
    const auto until = [&](const char* what, const auto& reached) {
        while (!reached()) {
            if (trace_.step - from > kCalmStepsMax) {
                violated("liveness: {} not {} steps after the last fault; {}", what, kCalmStepsMax,
                         main_.agent->describe());
            }
            one_step();
        }
    };
    until("converged", [&] { return converged(); });
    // A crash of everything while nothing is to do: nothing is sent again.
    const uint64_t data_records = oracle_.data_records();
    crash_server();
    main_.agent.reset();
    main_.agent = boot(*main_.machine, "main");
    until("converged after an idle crash", [&] { return converged(); });
    // Of a block that was written in part the server has no digest: where a late request for a
    // session led to a compare, that sends it.
    const bool may_send = ordered_ && main_.agent->compared();
    if (oracle_.data_records() != data_records && !may_send) {
        violated("no_full_resync: an idle crash sent data");
    }
    const size_t points = oracle_.points_accepted();
    until("a point", [&] {
        if (!main_.agent->idle()) return false;
        if (oracle_.points_accepted() > points) return true;
        // Also again: a late request for a session may have ended the one of the first try.
        main_.agent->want_point();
        return false;
    });
    figures_.calm_steps_max = trace_.step - from;
}

void World::run() {
    while (trace_.step < plan_.steps) one_step();
    oracle_.check_stored(server_, true);
    converge();
    oracle_.check_stored(server_, true);
    figures_.points = oracle_.points_accepted();
    figures_.boundaries = oracle_.boundaries();
    if (ordered_) {
        const cbt_mode& mode = main_.machine->producer.disk(0).mode;
        figures_.sank_to_extents = mode.sank[HERALD_CBT_MODE_EXTENTS - 1];
        figures_.sank_to_map = mode.sank[HERALD_CBT_MODE_MAP - 1];
    }
}

}  // namespace herald::sim
