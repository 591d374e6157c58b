// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world.h"

#include <algorithm>

#include "user/hrl/segment_reader.h"

namespace herald::sim {

namespace {

constexpr uint64_t kBlocks = 40;
constexpr uint64_t kTimeoutMs = 400;
constexpr size_t kLogLines = 60;
constexpr uint64_t kSettleEvents = 60'000;

struct Failed {};

Bytes content(uint64_t version) {
    Bytes bytes(HERALD_BLOCK_BYTES);
    if (version != 0) store_le(bytes.data() + 4096, version);
    return bytes;
}

uint64_t version_of(ByteView block) { return load_le<uint64_t>(block.data() + 4096); }

}  // namespace

World::World(uint64_t seed, Break broken, Faults faults)
    : seed_(seed),
      random_(seed),
      broken_(broken),
      faults_(faults),
      machine_id_(random_.uuid()),
      disk_id_(random_.uuid()),
      pinned_(kBlocks),
      disk_(kBlocks),
      image_(kBlocks) {
    // Some runs are calm and long-lived, some are one crash after another.
    constexpr double kScales[] = {0, 0.05, 0.2, 1};
    const double scale = kScales[random_.below(4)];
    for (double* rate : {&faults_.agent_crash, &faults_.server_crash, &faults_.server_full,
                         &faults_.server_restored, &faults_.machine_reverted,
                         &faults_.foreign_session, &faults_.tracker_gap}) {
        *rate *= scale;
    }
    for (uint64_t block = 0; block < kBlocks; block += 1 + random_.below(3)) {
        disk_[block] = next_version_++;
    }
}

World::~World() = default;

void World::note(const std::string& what) {
    log_.push_back(fmt::format("{:>7} ms  {}", now_ms_, what));
    if (log_.size() > kLogLines) log_.pop_front();
}

void World::fail_with(const std::string& what) {
    if (!outcome_.failure.empty()) throw Failed{};
    outcome_.failure = fmt::format("HERALD_SEED={}: {}\n", seed_, what);
    for (const std::string& line : log_) outcome_.failure += line + "\n";
    if (agent_) outcome_.failure += agent_->describe() + "\n";
    throw Failed{};
}

Outcome World::run(uint64_t events) {
    try {
        boot_server();
        boot_agent();
        for (uint64_t i = 0; i < events; ++i) event();
        // The network is whole, nothing crashes, nobody writes: what is stored becomes the disk.
        quiet_ = true;
        full_until_ = 0;
        for (uint64_t i = 0; !writes_.empty(); ++i) event();
        const auto accepted = [&] {
            const auto found = kept_.catalog.find(disk_id_);
            return found == kept_.catalog.end() ? 0 : found->second.row.points;
        };
        const uint64_t points = accepted();
        for (uint64_t i = 0; accepted() == points || image_ != disk_ || !agent_->idle(); ++i) {
            if (i > kSettleEvents) fail_with("the disk was not delivered after the faults ended");
            if (agent_ && i % 500 == 0 && accepted() == points) agent_->want_point();
            event();
        }
        check_at_rest();
    } catch (const Failed&) {
    }
    return outcome_;
}

void World::event() {
    now_ms_ += random_.below(3);
    deliver();
    const uint64_t turn = random_.below(10);
    try {
        if (turn < 6) {
            if (!agent_ && now_ms_ >= agent_boots_at_) boot_agent();
            if (agent_) agent_->step();
        } else if (turn < 9) {
            write_something();
        } else {
            if (agent_ && random_.chance(0.1)) agent_->want_point();
        }
    } catch (const AgentCrash&) {
        note("agent crashed");
        outcome_.agent_crashes += 1;
        agent_.reset();
        frozen_ = false;  // the guardian
        outstanding_.clear();
        agent_boots_at_ = now_ms_ + random_.below(200);
    }
    if (!quiet_) fault();
    check();
}

void World::deliver() {
    while (!network_.empty() && network_.begin()->first.first <= now_ms_) {
        const auto arrive = std::move(network_.begin()->second);
        network_.erase(network_.begin());
        arrive();
    }
}

void World::travel(std::function<void()> arrive) {
    const auto once = [&] {
        uint64_t delay = 1 + random_.below(20);
        if (!quiet_ && random_.chance(faults_.slow)) delay += random_.below(3000);
        network_[{now_ms_ + delay, sequence_++}] = arrive;
    };
    if (!quiet_ && random_.chance(faults_.drop)) return;
    once();
    if (!quiet_ && random_.chance(faults_.repeat)) once();
}

void World::request(uint64_t ticket, std::function<Answer(Server&)> handle) {
    const uint64_t incarnation = incarnation_;
    outstanding_.insert(ticket);
    travel([this, ticket, incarnation, handle = std::move(handle)] {
        if (!server_ && now_ms_ >= server_boots_at_) boot_server();
        if (!server_) return;
        std::optional<Answer> answer;
        try {
            answer = handle(*server_);
        } catch (const ServerCrash&) {
            note("server crashed");
            outcome_.server_crashes += 1;
            server_.reset();
            server_boots_at_ = now_ms_ + random_.below(300);
            return;
        }
        if (const auto* ack = std::get_if<wire::SegmentAck>(&*answer)) acknowledged(ack->stored);
        travel([this, ticket, incarnation, answer = std::move(*answer)] {
            if (incarnation != incarnation_ || outstanding_.erase(ticket) == 0) return;
            if (agent_) agent_->answer(ticket, answer);
        });
    });
    network_[{now_ms_ + kTimeoutMs, sequence_++}] = [this, ticket, incarnation] {
        if (incarnation != incarnation_ || outstanding_.erase(ticket) == 0) return;
        if (agent_) agent_->timed_out(ticket);
    };
}

// The server's word: everything up to here is kept, and it is what the agent sent.
void World::acknowledged(uint64_t stored) {
    for (const auto& [first, row] : kept_.catalog[disk_id_].segments) {
        if (row.last_position > stored) break;
        acked_[first] = row.digest;
    }
    if (kept_.catalog[disk_id_].row.head < stored) {
        fail_with(fmt::format("acked_is_kept: {} acknowledged, not in the catalog", stored));
    }
}

void World::request_session(uint64_t ticket, const wire::SessionRequest& session) {
    request(ticket, [this, session](Server& server) {
        Answer answer = server.session(session);
        if (const auto* grant = std::get_if<wire::SessionGrant>(&answer)) {
            note(fmt::format("granted epoch {} head {}", grant->epoch, grant->head));
        }
        return answer;
    });
}

void World::request_put(uint64_t ticket, const replicator::Session::Send& send) {
    const Bytes& bytes = send.segment->bytes;
    const Digest128 digest = xxh3_128(bytes);
    const uint64_t first = send.segment->header.first_position;
    Bytes body = bytes;
    if (!quiet_ && random_.chance(faults_.damage)) {
        if (random_.chance(0.5)) {
            body.resize(random_.below(body.size()));
        } else {
            body[random_.below(body.size())] ^= std::byte(1 + random_.below(255));
        }
    }
    // TLS would drop the damaged body; here it is the server's checks alone that refuse it, in
    // half of the cases even with a digest that matches.
    const std::string hex = to_hex((random_.chance(0.5) ? xxh3_128(body) : digest).bytes);
    request(ticket, [first, hex, epoch = send.epoch, body = std::move(body)](Server& server) {
        return server.put(epoch, first, hex, body);
    });
}

void World::request_digests(uint64_t ticket) {
    request(ticket, [](Server& server) { return server.digests(kBlocks); });
}

Bytes World::read(uint64_t block) const { return content(disk_[block]); }

void World::write_something() {
    if (!writes_.empty() && (quiet_ || random_.chance(0.7))) {
        const size_t i = random_.below(writes_.size());
        Write& write = writes_[i];
        if (!write.applied) {
            disk_[write.block] = write.version;
            write.applied = true;
        } else {
            complete(write.id);
            writes_.erase(writes_.begin() + std::ptrdiff_t(i));
        }
        return;
    }
    if (quiet_ || frozen_ || writes_.size() >= 4) return;
    Write write;
    write.id = next_write_++;
    write.block = random_.chance(0.5) ? random_.below(6) : random_.below(kBlocks);
    write.version = random_.chance(0.1) ? 0 : next_version_++;
    // One block has at most one write in flight: which of two wins is nobody's promise.
    for (const Write& other : writes_) {
        if (other.block == write.block) return;
    }
    pinned_.submit(write.id, write.block);
    writes_.push_back(write);
}

void World::complete(uint64_t write) {
    if (!quiet_ && random_.chance(faults_.lost_completion)) {
        pinned_.lose_completion(write);
    } else {
        pinned_.complete(write);
    }
}

void World::freeze() {
    freeze_held_ = true;
    // One in five cannot stop every writer: the point must then be refused.
    if (!quiet_ && random_.chance(0.2)) return;
    for (Write& write : writes_) {
        if (!write.applied) disk_[write.block] = write.version;
        complete(write.id);
    }
    writes_.clear();
    frozen_ = true;
}

bool World::thaw() {
    frozen_ = false;
    // Sometimes the guardian had thawed before.
    return freeze_held_;
}

void World::tagged(const Uuid& tag) { tagged_[tag] = disk_; }

void World::adopted(const replicator::Verdict& verdict, uint64_t epoch) {
    note(fmt::format("adopted epoch {}: {} {}", epoch, to_string(verdict.baseline), verdict.gap));
    if (verdict.baseline == replicator::Baseline::compare) outcome_.compares += 1;
    if (epoch == kept_.catalog[disk_id_].row.epoch) agent_is_wrong_ = false;
}

void World::at_step(const char* step) {
    if (agent_crash_in_ == 0 || --agent_crash_in_ > 0) return;
    outcome_.crashed_at.insert(step);
    note(fmt::format("at {}", step));
    throw AgentCrash{};
}

void World::boot_agent() {
    ++incarnation_;
    outstanding_.clear();
    agent_ = std::make_unique<Agent>(*this, pinned_, random_, machine_id_, disk_id_, broken_);
}

void World::boot_server() {
    Server::Hooks hooks;
    hooks.at_step = [this](const char* step) {
        if (server_crash_in_ == 0 || --server_crash_in_ > 0) return;
        outcome_.crashed_at.insert(step);
        note(fmt::format("at {}", step));
        throw ServerCrash{};
    };
    hooks.full = [this] { return now_ms_ < full_until_; };
    hooks.torn = [this] { return random_.chance(0.5); };
    hooks.committed = [this](const vault::SegmentRow& row) { committed(row); };
    hooks.old_epoch = broken_ == Break::old_epoch;
    server_ = std::make_unique<Server>(kept_, machine_id_, disk_id_, std::move(hooks));
}

void World::fault() {
    if (random_.chance(faults_.agent_crash) && agent_crash_in_ == 0) {
        agent_crash_in_ = 1 + random_.below(30);
    }
    if (random_.chance(faults_.server_crash) && server_crash_in_ == 0) {
        server_crash_in_ = 1 + random_.below(6);
    }
    if (random_.chance(faults_.server_full)) {
        note("server full");
        full_until_ = now_ms_ + random_.below(1000);
    }
    if (frozen_ && random_.chance(0.005)) {
        note("the guardian thaws");
        frozen_ = false;
        freeze_held_ = false;
    }
    if (random_.chance(0.002)) backup_ = kept_.catalog;
    if (random_.chance(0.002) && !frozen_) snapshot_ = Snapshot{disk_, pinned_, writes_};
    if (random_.chance(faults_.server_restored) && backup_) restore_server();
    if (random_.chance(faults_.machine_reverted) && snapshot_) revert_machine();
    if (random_.chance(faults_.foreign_session)) foreign_session();
    if (random_.chance(faults_.tracker_gap) && agent_ == nullptr) {
        // A reboot: the bitmaps are gone, and the tracker says so.
        note("reboot");
        const uint64_t blocks = pinned_.blocks;
        pinned_ = test::Pinned(blocks);
        pinned_.gap = "the host was restarted";
        for (Write& write : writes_) {
            if (random_.chance(0.5)) disk_[write.block] = write.version;
        }
        writes_.clear();
    }
}

void World::restore_server() {
    note("server restored from a backup");
    const uint64_t newest = kept_.catalog[disk_id_].row.epoch;
    server_.reset();
    kept_.catalog = *backup_;
    if (const auto found = kept_.catalog.find(disk_id_); found != kept_.catalog.end()) {
        found->second.row.epoch = newest + 1;
    } else {
        // Older than the disk's first session: epochs must not begin again at 1.
        vault::DiskRow row;
        row.disk = disk_id_;
        row.machine = machine_id_;
        row.epoch = newest + 1;
        kept_.catalog[disk_id_].row = row;
    }
    acked_.clear();
    agent_is_wrong_ = true;
    rebuild_image();
}

void World::revert_machine() {
    note("machine reverted to a snapshot");
    agent_.reset();
    ++incarnation_;
    outstanding_.clear();
    agent_boots_at_ = now_ms_ + random_.below(100);
    disk_ = snapshot_->disk;
    pinned_ = snapshot_->pinned;
    writes_ = snapshot_->writes;
    frozen_ = false;
    agent_is_wrong_ = true;
}

// Another agent with this machine's certificate takes the disk over and writes something else.
void World::foreign_session() {
    if (!server_) return;
    note("foreign session");
    const uint64_t crash_in = std::exchange(server_crash_in_, 0);
    wire::SessionRequest request;
    request.session = random_.uuid();
    request.disk_bytes = kBlocks * HERALD_BLOCK_BYTES;
    request.block_bytes = HERALD_BLOCK_BYTES;
    const Answer answer = server_->session(request);
    const auto* grant = std::get_if<wire::SessionGrant>(&answer);
    if (grant && random_.chance(0.7)) {
        hrl::SegmentHeader header;
        header.machine = machine_id_;
        header.disk = disk_id_;
        header.segment = random_.uuid();
        header.previous_segment = grant->head_segment;
        header.epoch = grant->epoch;
        header.first_position = grant->head + 1;
        header.disk_bytes = request.disk_bytes;
        hrl::SegmentWriter writer(header);
        hrl::Activation activation;
        activation.session = request.session;
        activation.tracker = "foreign";
        const Bytes payload = hrl::encode_activation(activation);
        hrl::Record record;
        record.kind = hrl::RecordKind::activation;
        record.position = header.first_position;
        record.data = payload;
        HERALD_ASSERT(writer.append(record));
        const Bytes data = content(next_version_++);
        record.kind = hrl::RecordKind::write;
        record.position += 1;
        record.offset = random_.below(kBlocks) * HERALD_BLOCK_BYTES;
        record.length = data.size();
        record.data = data;
        HERALD_ASSERT(writer.append(record));
        auto segment = std::move(writer).finish();
        HERALD_ASSERT(segment);
        (void)server_->put(grant->epoch, header.first_position,
                           to_hex(xxh3_128(segment->bytes).bytes), segment->bytes);
    }
    server_crash_in_ = crash_in;
    agent_is_wrong_ = true;
}

void World::apply(const vault::SegmentRow& row, bool check_points) {
    const Bytes& object = kept_.objects.at(row.object);
    auto done = hrl::verify_segment(
        hrl::memory_source(object, row.object), [&](const hrl::Record& record) -> Result<void> {
            if (record.kind == hrl::RecordKind::tag && check_points) {
                auto tag = hrl::decode_tag(record.data);
                HERALD_ASSERT(tag);
                const auto& tags = kept_.catalog[disk_id_].tags;
                const bool accepted = std::any_of(tags.begin(), tags.end(), [&](const auto& point) {
                    return point.id == tag->id && point.refusal.empty();
                });
                if (!accepted) fail_with("a tag of ours was refused by the server");
                outcome_.points += 1;
                if (image_ != tagged_.at(tag->id)) {
                    fail_with(
                        "exact_at_point: the image at a point is not the disk at that moment");
                }
            }
            const bool data = record.kind == hrl::RecordKind::write;
            if (!data && record.kind != hrl::RecordKind::zeroes) return {};
            for (uint64_t at = 0; at < record.length; at += HERALD_BLOCK_BYTES) {
                image_[(record.offset + at) / HERALD_BLOCK_BYTES] =
                    data ? version_of(record.data.subspan(at)) : 0;
            }
            return {};
        });
    if (!done) fail_with("a committed segment does not verify: " + done.error().message);
}

void World::rebuild_image() {
    image_.assign(kBlocks, 0);
    for (const auto& [first, row] : kept_.catalog[disk_id_].segments) apply(row, false);
}

void World::committed(const vault::SegmentRow& row) {
    outcome_.segments += 1;
    if (row.epoch != kept_.catalog[disk_id_].row.epoch) {
        fail_with("fenced: a segment of a superseded epoch was committed");
    }
    apply(row, true);
}

void World::check() {
    const auto& continuity = pinned_.continuity;
    const bool distrusted = pinned_.gap || continuity.session.is_nil() || agent_is_wrong_;
    const vault::MemoryDisk* stored = nullptr;
    if (const auto found = kept_.catalog.find(disk_id_); found != kept_.catalog.end()) {
        stored = &found->second;
    }
    if (!distrusted) {
        for (uint64_t block = 0; block < kBlocks; ++block) {
            if (image_[block] == disk_[block] || pinned_.dirty(block)) continue;
            if (!pinned_.is_open(block)) {
                fail_with(
                    fmt::format("dirty_or_delivered: block {} holds {}, stored is {}, and it "
                                "is not in the dirty map",
                                block, disk_[block], image_[block]));
            }
        }
        if (stored && continuity.acked_position > stored->row.head) {
            fail_with(fmt::format("acked_is_kept: {} was acknowledged, the server ends at {}",
                                  continuity.acked_position, stored->row.head));
        }
    }
    if (stored) {
        for (const auto& [first, digest] : acked_) {
            const auto row = stored->segments.find(first);
            if (row == stored->segments.end() || row->second.digest != digest) {
                fail_with(fmt::format("acked_is_kept: the segment at {} is gone", first));
            }
        }
    }
}

// Every point once more from the kept objects alone, and a damaged object is never believed.
void World::check_at_rest() {
    const vault::MemoryDisk& disk = kept_.catalog[disk_id_];
    image_.assign(kBlocks, 0);
    for (const auto& [first, row] : disk.segments) {
        const Bytes& object = kept_.objects.at(row.object);
        if (xxh3_128(object) != row.digest) fail_with("an object is not what its row says");
        apply(row, false);
    }
    if (image_ != disk_) fail_with("the stored stream does not give the disk");
    for (const auto& [first, row] : disk.segments) {
        Bytes object = kept_.objects.at(row.object);
        if (random_.chance(0.5)) {
            object.resize(random_.below(object.size()));
        } else {
            object[random_.below(object.size())] ^= std::byte(1 + random_.below(255));
        }
        if (hrl::verify_segment(hrl::memory_source(object, "damaged"))) {
            fail_with(fmt::format("torn_is_refused: the damaged segment at {} verifies", first));
        }
    }
}

}  // namespace herald::sim
