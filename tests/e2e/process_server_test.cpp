// SPDX-License-Identifier: Apache-2.0
// The daemon as it runs: its own process, TLS, a machine and an operator with certificates.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <random>
#include <regex>
#include <sstream>
#include <thread>

#include "tests/service_fixture.h"
#include "user/wire/authority.h"

using namespace herald;
using namespace std::chrono_literals;

namespace {

constexpr uint64_t kDisk = 64 << 20;
const std::string kProgram = HERALD_BIN_DIR "/herald-process-server";

class Daemon {
  public:
    explicit Daemon(const std::filesystem::path& dir) : dir_(dir) {}
    ~Daemon() { stop(SIGKILL); }

    void start() {
        log_ = dir_ / ("log" + std::to_string(++starts_));
        child_ = ::fork();
        if (child_ == 0) {
            const int log = ::open(log_.c_str(), O_WRONLY | O_CREAT, 0600);
            ::dup2(log, STDERR_FILENO);
            const std::string config = dir_ / "server.toml";
            ::execl(kProgram.c_str(), "herald-process-server", "--config", config.c_str(), nullptr);
            ::_exit(127);
        }
        const std::regex listening("listening on 127.0.0.1 port ([0-9]+)");
        for (int i = 0; i < 500; ++i, std::this_thread::sleep_for(20ms)) {
            std::smatch match;
            const std::string text = log();
            if (!std::regex_search(text, match, listening)) continue;
            port = uint16_t(std::stoul(match[1]));
            return;
        }
        FAIL("the server did not start: " + log());
    }
    // The exit status as waitpid gives it.
    int stop(int signal) {
        if (child_ <= 0) return 0;
        int status = 0;
        ::kill(child_, signal);
        ::waitpid(child_, &status, 0);
        child_ = -1;
        return status;
    }
    std::string log() const {
        std::ifstream file(log_);
        std::stringstream text;
        text << file.rdbuf();
        return text.str();
    }
    // Most memory it ever had, in bytes.
    uint64_t peak_bytes() const {
        std::ifstream status("/proc/" + std::to_string(child_) + "/status");
        for (std::string line; std::getline(status, line);) {
            if (line.rfind("VmHWM:", 0) == 0) return std::stoull(line.substr(6)) * 1024;
        }
        return 0;
    }

    uint16_t port = 0;

  private:
    std::filesystem::path dir_;
    std::filesystem::path log_;
    pid_t child_ = -1;
    int starts_ = 0;
};

struct Site {
    test::TempDir dir;
    Uuid machine = Uuid::random();
    Daemon daemon{dir.path()};
    wire::AuthorityFiles authority{dir.path() / "ca.crt", dir.path() / "ca.key"};

    Site() {
        REQUIRE(wire::create_authority(authority, "test", 2));
        issue({wire::Role::server, "s", {}}, "server");
        issue({wire::Role::machine, to_string(machine), machine}, "machine");
        issue({wire::Role::operator_, "ann", {}}, "operator");
        std::ofstream(dir.path() / "server.toml") << R"([server]
address = "127.0.0.1"
port = 0
[tls]
authority = "ca.crt"
certificate = "server.crt"
key = "server.key"
[store]
path = "data/store"
[limits]
free_bytes_min = 1048576
free_bytes_plenty = 1048576
)";
    }
    void issue(const wire::Identity& who, const std::string& name) {
        auto issued = wire::issue_certificate(
            authority, who,
            who.role == wire::Role::server ? std::vector<std::string>{"127.0.0.1"}
                                           : std::vector<std::string>{},
            2, dir.path() / (name + ".crt"), dir.path() / (name + ".key"));
        if (!issued) FAIL(issued.error().message);
    }
    std::unique_ptr<wire::HttpClient> client(const std::string& name) {
        auto tls = wire::TlsContext::load(
            {authority.certificate, dir.path() / (name + ".crt"), dir.path() / (name + ".key")},
            wire::TlsSide::client);
        if (!tls) FAIL(tls.error().message);
        return std::make_unique<wire::HttpClient>(wire::Endpoint{"127.0.0.1", daemon.port}, *tls);
    }
    static wire::HttpResponse send(wire::HttpClient& client, const std::string& method,
                                   const std::string& target, ByteView body,
                                   wire::Headers headers = {}) {
        auto response = client.send({method, target, std::move(headers), body}, 60s);
        if (!response) return {0, {}, {}};
        return std::move(*response);
    }
    static unsigned session(wire::HttpClient& client, const Uuid& disk, const Uuid& session) {
        wire::SessionRequest request;
        request.session = session;
        request.name = "disk";
        request.identity = "wwn:1";
        request.disk_bytes = kDisk;
        request.block_bytes = HERALD_BLOCK_BYTES;
        const std::string body = wire::encode(request);
        return send(client, "POST", test::ServiceFixture::disk_path(disk, "session"),
                    as_bytes(body))
            .status;
    }
    static wire::HttpResponse put(wire::HttpClient& client, const hrl::Segment& segment) {
        return send(
            client, "PUT",
            test::ServiceFixture::disk_path(
                segment.header.disk, "segments/" + std::to_string(segment.header.first_position)),
            segment.bytes,
            {{wire::kHeaderEpoch, std::to_string(segment.header.epoch)},
             {wire::kHeaderDigest, to_hex(xxh3_128(segment.bytes).bytes)}});
    }
};

}  // namespace

TEST_CASE("the daemon stores, lists, survives SIGKILL and ends cleanly on SIGTERM") {
    Site site;
    const Uuid disk = Uuid::random();
    const Uuid session = Uuid::random();
    test::StreamBuilder stream(site.machine, disk, kDisk);
    const auto one =
        stream.activation().scan_begin().write(0, 65536, 1).scan_end().tag("one").segment();
    const auto two = stream.write(65536, 65536, 2).segment();

    site.daemon.start();
    auto machine = site.client("machine");
    REQUIRE(Site::session(*machine, disk, session) == 200);
    REQUIRE(Site::put(*machine, one).status == 200);
    CHECK(WTERMSIG(site.daemon.stop(SIGKILL)) == SIGKILL);

    site.daemon.start();
    machine = site.client("machine");
    auto answer = Site::put(*machine, two);
    REQUIRE(answer.status == 200);
    CHECK(wire::decode_segment_ack(as_text(answer.body))->stored == two.last_position);
    auto ann = site.client("operator");
    auto disks = wire::decode_disks(as_text(Site::send(*ann, "GET", "/v1/disks", {}).body));
    REQUIRE(disks);
    REQUIRE(disks->size() == 1);
    CHECK(disks->front().head == two.last_position);
    auto points = wire::decode_points(
        as_text(Site::send(*ann, "GET", test::ServiceFixture::disk_path(disk, "points"), {}).body));
    REQUIRE(points);
    REQUIRE(points->size() == 1);
    CHECK(points->front().name == "one");
    auto download =
        Site::send(*ann, "GET", test::ServiceFixture::disk_path(disk, "segments/1"), {});
    CHECK(download.status == 200);
    CHECK(download.body == one.bytes);
    auto status =
        wire::decode_server_status(as_text(Site::send(*ann, "GET", "/v1/status", {}).body));
    REQUIRE(status);
    CHECK(status->connections == 2);
    CHECK(status->requests >= 4);
    // The wrong role, and a body that no route takes.
    CHECK(Site::send(*machine, "GET", "/v1/disks", {}).status == 403);
    CHECK(Site::session(*ann, disk, session) == 403);
    CHECK(Site::send(*ann, "GET", "/v1/disks", as_bytes("body")).status == 413);

    const int ended = site.daemon.stop(SIGTERM);
    CHECK((WIFEXITED(ended) && WEXITSTATUS(ended) == 0));
    CHECK(site.daemon.log().find("stopped") != std::string::npos);
}

TEST_CASE("many full segments over many connections keep the daemon under 256 MiB") {
    Site site;
    site.daemon.start();
    constexpr int kDisks = 6;
    constexpr int kSegments = 6;
    std::atomic<int> stored{0};
    std::vector<std::thread> threads;
    for (int d = 0; d < kDisks; ++d) {
        const Uuid disk = Uuid::random();
        auto first = site.client("machine");
        REQUIRE(Site::session(*first, disk, Uuid::random()) == 200);
        auto segments = std::make_shared<std::vector<hrl::Segment>>();
        auto next = std::make_shared<std::atomic<int>>(0);
        test::StreamBuilder stream(site.machine, disk, kDisk);
        stream.activation();
        std::mt19937_64 random{uint64_t(d)};
        Bytes noise(1 << 20);
        for (int i = 0; i < kSegments; ++i) {
            for (int part = 0; part < 8; ++part) {
                for (size_t at = 0; at < noise.size(); at += 8) {
                    store_le<uint64_t>(&noise[at], random());
                }
                stream.write(uint64_t(part) << 20, noise);
            }
            segments->push_back(stream.segment());
        }
        for (unsigned c = 0; c < HERALD_UPLOADS_PER_DISK; ++c) {
            threads.emplace_back([&site, &stored, segments, next] {
                auto client = site.client("machine");
                for (int i; (i = (*next)++) < kSegments;) {
                    for (int attempt = 0; attempt < 500; ++attempt) {
                        const auto response = Site::put(*client, (*segments)[size_t(i)]);
                        if (response.status == 200) {
                            ++stored;
                            break;
                        }
                        std::this_thread::sleep_for(20ms);
                    }
                }
            });
        }
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(stored == kDisks * kSegments);
    auto ann = site.client("operator");
    auto disks = wire::decode_disks(as_text(Site::send(*ann, "GET", "/v1/disks", {}).body));
    REQUIRE(disks);
    for (const auto& disk : *disks) CHECK(disk.segments == kSegments);
    const uint64_t peak = site.daemon.peak_bytes();
    std::printf("peak memory of the server: %llu MiB\n", (unsigned long long)(peak >> 20));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(peak < 256u << 20);
#endif
}

TEST_CASE("a configuration is checked without starting, and a second server is refused") {
    Site site;
    const std::string check = kProgram + " --check-config --config " +
                              (site.dir.path() / "server.toml").native() + " >/dev/null 2>" +
                              (site.dir.path() / "error").native();
    CHECK(std::system(check.c_str()) == 0);
    site.daemon.start();
    const std::string start = kProgram + " --config " + (site.dir.path() / "server.toml").native() +
                              " 2>" + (site.dir.path() / "error").native();
    CHECK(std::system(start.c_str()) != 0);
    CHECK(as_text(*read_file(site.dir.path() / "error", 10000)).find("in use") !=
          std::string::npos);
    std::ofstream(site.dir.path() / "server.toml", std::ios::app) << "\ntypo = 1\n";
    CHECK(std::system(check.c_str()) != 0);
    CHECK(as_text(*read_file(site.dir.path() / "error", 10000)).find("limits.typo") !=
          std::string::npos);
}
