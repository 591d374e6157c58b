// SPDX-License-Identifier: Apache-2.0
// Benchmark "hrl": how fast segments are written, and read with every check, plain and sealed,
// beside the floor of the same run: LZ4 and XXH3 (and AES-256-GCM) of the same bytes with nothing
// around them; and what the format costs in bytes. Rounds of both alternate, so that a noisy
// machine is noisy to both; the best round of each counts.
// Then two large files, in $TMPDIR, which are removed: opening one of 1 GiB to its index, with its
// tail in the page cache and not; listing files of 1 GiB and of 10 GiB of noise in records of 4 KiB
// with the hrl program, whose memory must not grow with them.
#include <fcntl.h>
#include <lz4.h>
#include <openssl/evp.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "user/base/digest.h"
#include "user/base/file.h"
#include "user/hrl/convert.h"
#include "user/hrl/segment_reader.h"

namespace {

using namespace herald;
using namespace herald::hrl;

constexpr size_t kPieceBytes = HERALD_HRL_BLOCK_BYTES_MAX;

// Half of the bytes repeat the 64 before them: about 2:1 for LZ4. Otherwise noise.
Bytes make_data(size_t size, bool compressible) {
    std::mt19937_64 random(7);
    Bytes data(size);
    for (size_t at = 0; at < size; at += 8) store_le<uint64_t>(data.data() + at, random());
    for (size_t at = 64; compressible && at + 64 <= size; at += 128) {
        std::memcpy(data.data() + at, data.data() + at - 64, 64);
    }
    return data;
}

const seal::MachineKey& bench_key() {
    static const seal::MachineKey key = seal::MachineKey::create(Uuid::random());
    return key;
}

Segment write_all(ByteView data, size_t record_bytes, bool sealed) {
    SegmentHeader header;
    header.segment = Uuid::random();
    header.first_position = 1;
    header.disk_bytes = data.size();
    header.machine = bench_key().machine;
    SegmentWriter writer =
        sealed ? SegmentWriter(header, {SealedBy::source, &bench_key()}) : SegmentWriter(header);
    for (size_t at = 0; at < data.size(); at += record_bytes) {
        Record record;
        record.position = writer.next_position();
        record.offset = at;
        record.length = record_bytes;
        record.data = data.subspan(at, record_bytes);
        HERALD_ASSERT(writer.append(record));
    }
    auto segment = std::move(writer).finish();
    HERALD_ASSERT(segment);
    return std::move(*segment);
}

void read_all(const Segment& segment) {
    static const seal::Keyring keys = [] {
        seal::Keyring ring;
        ring.add(bench_key().copy());
        return ring;
    }();
    auto summary = verify_segment(memory_source(segment.bytes, "bench"), nullptr, {.keys = &keys});
    HERALD_ASSERT(summary && summary->last_position == segment.last_position);
}

// AES-256-GCM as bare as libcrypto has it.
class Cipher {
  public:
    explicit Cipher(bool seals) : context_(EVP_CIPHER_CTX_new()) {
        HERALD_ASSERT(EVP_CipherInit_ex(context_, EVP_aes_256_gcm(), nullptr, key_, nullptr,
                                        seals ? 1 : 0) == 1);
    }
    Cipher(const Cipher&) = delete;
    Cipher& operator=(const Cipher&) = delete;
    ~Cipher() { EVP_CIPHER_CTX_free(context_); }
    void run(const void* from, void* to, int size, uint64_t number) {
        unsigned char nonce[12] = {};
        unsigned char none[16] = {};
        int done = 0;
        std::memcpy(nonce, &number, sizeof number);
        EVP_CipherInit_ex(context_, nullptr, nullptr, nullptr, nonce, -1);
        EVP_CipherUpdate(context_, static_cast<unsigned char*>(to), &done,
                         static_cast<const unsigned char*>(from), size);
        // The tag of the floor's reading is no tag: what is measured is the work.
        if (!EVP_CIPHER_CTX_encrypting(context_)) {
            EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_SET_TAG, 16, none);
        }
        EVP_CipherFinal_ex(context_, none, &done);
    }

  private:
    static constexpr unsigned char key_[32] = {1};
    EVP_CIPHER_CTX* context_;
};

// The floor: the same bytes in pieces of a block, each compressed (sealed) and hashed, into one
// buffer.
struct Floor {
    explicit Floor(bool with_seal) : sealed(with_seal) {}
    bool sealed;
    Cipher seals{true};
    Cipher opens{false};
    Bytes packed;
    Bytes opened = Bytes(size_t(LZ4_compressBound(int(kPieceBytes))));
    std::vector<int> sizes;
    uint64_t hash = 0;

    void write(ByteView data) {
        sizes.clear();
        char* to = reinterpret_cast<char*>(packed.data());
        for (size_t at = 0; at < data.size(); at += kPieceBytes) {
            const ByteView piece = data.subspan(at, std::min(kPieceBytes, data.size() - at));
            const int size =
                LZ4_compress_default(reinterpret_cast<const char*>(piece.data()), to,
                                     int(piece.size()), LZ4_compressBound(int(piece.size())));
            if (sealed) seals.run(to, to, size, sizes.size());
            hash ^= xxh3_64({reinterpret_cast<const std::byte*>(to), size_t(size)});
            sizes.push_back(size);
            to += size;
        }
    }
    void read(ByteSpan piece) {
        const std::byte* from = packed.data();
        uint64_t number = 0;
        for (const int size : sizes) {
            hash ^= xxh3_64({from, size_t(size)});
            if (sealed) opens.run(from, opened.data(), size, number++);
            const std::byte* const stored = sealed ? opened.data() : from;
            HERALD_ASSERT(LZ4_decompress_safe(reinterpret_cast<const char*>(stored),
                                              reinterpret_cast<char*>(piece.data()), size,
                                              int(piece.size())) > 0);
            from += size;
        }
    }
};

double seconds(const std::function<void()>& work) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

nlohmann::ordered_json measure(size_t record_bytes, bool compressible, bool sealed, bool quick) {
    const size_t size = HERALD_SEGMENT_BYTES_DEFAULT;
    const Bytes data = make_data(size, compressible);
    Floor floor(sealed);
    floor.packed.resize(size_t(LZ4_compressBound(int(size))) + 4096);
    Bytes piece(kPieceBytes);
    Segment segment;
    double write = 1e9, write_floor = 1e9, read = 1e9, read_floor = 1e9;
    for (int round = 0; round < (quick ? 10 : 60); ++round) {
        write = std::min(write, seconds([&] { segment = write_all(data, record_bytes, sealed); }));
        // Each reads what it has just written: the same caches for both.
        read = std::min(read, seconds([&] { read_all(segment); }));
        write_floor = std::min(write_floor, seconds([&] { floor.write(data); }));
        read_floor = std::min(read_floor, seconds([&] { floor.read(piece); }));
    }
    const double mb = double(size) / 1e6;
    return {{"record_bytes", record_bytes},
            {"data", compressible ? "2:1" : "noise"},
            {"sealed", sealed},
            {"write_mb_s", mb / write},
            {"write_floor_mb_s", mb / write_floor},
            {"write_of_floor", write_floor / write},
            {"read_mb_s", mb / read},
            {"read_floor_mb_s", mb / read_floor},
            {"read_of_floor", read_floor / read},
            {"file_bytes", segment.bytes.size()},
            {"overhead_percent", 100.0 * (double(segment.bytes.size()) / double(size) - 1)}};
}

// A file that is removed, whatever happens meanwhile.
class LargeFile {
  public:
    // Writes of pieces of `data`, one behind the other and over again, `bytes` of them all
    // together.
    LargeFile(uint64_t bytes, ByteView data, size_t record_bytes, const char* name)
        : path_(std::filesystem::temp_directory_path() /
                fmt::format("herald-bench-{}-{}.hrl", name, ::getpid())) {
        auto sink = file_sink(path_);
        HERALD_ASSERT(sink);
        SegmentHeader header;
        header.segment = Uuid::random();
        header.first_position = 1;
        header.disk_bytes = bytes;
        SegmentStream stream(SegmentWriter(header), **sink);
        for (uint64_t at = 0; at < bytes; at += record_bytes) {
            Record record;
            record.position = stream.writer().next_position();
            record.offset = at;
            record.length = record_bytes;
            record.data = data.subspan(at % data.size(), record_bytes);
            HERALD_ASSERT(stream.append(record));
        }
        records_ = stream.writer().records();
        HERALD_ASSERT(stream.finish() && (*sink)->sync());
    }
    LargeFile(const LargeFile&) = delete;
    LargeFile& operator=(const LargeFile&) = delete;
    ~LargeFile() { ::unlink(path_.c_str()); }
    const std::filesystem::path& path() const { return path_; }
    uint64_t records() const { return records_; }

  private:
    std::filesystem::path path_;
    uint64_t records_ = 0;
};

nlohmann::ordered_json measure_open(bool quick) {
    const LargeFile file(quick ? 64u << 20 : 1u << 30, make_data(kPieceBytes, false), kPieceBytes,
                         "open");
    const auto open_ms = [&](bool cached) {
        std::vector<double> rounds;
        for (int round = 0; round < 21; ++round) {
            auto fd = open_file(file.path(), O_RDONLY);
            HERALD_ASSERT(fd);
            if (!cached) ::posix_fadvise(fd->get(), 0, 0, POSIX_FADV_DONTNEED);
            rounds.push_back(1e3 * seconds([&] {
                                 auto source = file_source(file.path());
                                 HERALD_ASSERT(source);
                                 auto reader = SegmentReader::open(std::move(*source));
                                 HERALD_ASSERT(reader && reader->whole() &&
                                               !reader->blocks().empty());
                             }));
        }
        std::ranges::sort(rounds);
        return rounds[rounds.size() / 2];
    };
    return {{"file_bytes", std::filesystem::file_size(file.path())},
            {"open_ms_cached", open_ms(true)},
            {"open_ms_not_cached", open_ms(false)},
            {"goal_ms", 10}};
}

nlohmann::ordered_json measure_list(uint64_t bytes) {
    constexpr size_t kRecordBytes = 4096;
    // Of several blocks, so that no block holds anything twice.
    const LargeFile file(bytes, make_data(8 * kPieceBytes, false), kRecordBytes, "list");
    const auto program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "hrl";
    struct rusage usage {};
    int status = -1;
    const double took = seconds([&] {
        const pid_t child = ::fork();
        HERALD_ASSERT(child >= 0);
        if (child == 0) {
            const int null = ::open("/dev/null", O_WRONLY);
            ::dup2(null, STDOUT_FILENO);
            ::execl(program.c_str(), "hrl", "records", file.path().c_str(), nullptr);
            ::_exit(127);
        }
        HERALD_ASSERT(::wait4(child, &status, 0, &usage) == child);
    });
    HERALD_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return {{"records", file.records()},
            {"file_bytes", std::filesystem::file_size(file.path())},
            {"records_per_second", double(file.records()) / took},
            {"peak_rss_bytes", uint64_t(usage.ru_maxrss) * 1024}};
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Writing and verifying .hrl segments beside bare LZ4 and XXH3; large files",
                 "hrl"};
    bool quick = false;
    std::string json_file;
    app.add_flag("--quick", quick, "fewer rounds");
    app.add_option("--json", json_file, "write the results to this file");
    CLI11_PARSE(app, argc, argv);

    auto results = nlohmann::ordered_json::array();
    fmt::print("{:>8} {:>6} {:>6} {:>12} {:>12} {:>6} {:>12} {:>12} {:>6} {:>10}\n", "record",
               "data", "", "write MB/s", "floor", "", "read MB/s", "floor", "", "overhead");
    for (const bool sealed : {false, true}) {
        for (const bool compressible : {false, true}) {
            for (const size_t record_bytes : {4096, 65536, 262144}) {
                const auto r = measure(record_bytes, compressible, sealed, quick);
                results.push_back(r);
                fmt::print(
                    "{:>8} {:>6} {:>6} {:>12.0f} {:>12.0f} {:>6.2f} {:>12.0f} {:>12.0f} {:>6.2f} "
                    "{:>9.3f}%\n",
                    record_bytes, r["data"].get<std::string>(), sealed ? "sealed" : "plain",
                    r["write_mb_s"].get<double>(), r["write_floor_mb_s"].get<double>(),
                    r["write_of_floor"].get<double>(), r["read_mb_s"].get<double>(),
                    r["read_floor_mb_s"].get<double>(), r["read_of_floor"].get<double>(),
                    r["overhead_percent"].get<double>());
            }
        }
    }
    const auto opened = measure_open(quick);
    fmt::print("open {:.1f} MiB to its index: {:.3f} ms cached, {:.3f} ms not (goal {} ms)\n",
               opened["file_bytes"].get<double>() / (1 << 20),
               opened["open_ms_cached"].get<double>(), opened["open_ms_not_cached"].get<double>(),
               opened["goal_ms"].get<int>());
    auto listed = nlohmann::ordered_json::array();
    for (const uint64_t tenths : {1, 10}) {
        const auto r = measure_list((quick ? 1ull << 30 : 10ull << 30) / 10 * tenths / 4096 * 4096);
        listed.push_back(r);
        fmt::print("list a file of {:.2f} GiB, {} records: {:.0f} records/s, peak RSS {:.1f} MiB\n",
                   r["file_bytes"].get<double>() / (1 << 30), r["records"].get<uint64_t>(),
                   r["records_per_second"].get<double>(),
                   r["peak_rss_bytes"].get<double>() / (1 << 20));
    }
    if (json_file.empty()) return 0;
    const nlohmann::ordered_json json{{"benchmark", "hrl"},
                                      {"quick", quick},
                                      {"results", results},
                                      {"open", opened},
                                      {"list", listed}};
    auto written = replace_file(json_file, as_bytes(json.dump(2) + "\n"), 0644);
    if (written) return 0;
    fmt::print(stderr, "hrl: {}\n", written.error().message);
    return 1;
}
