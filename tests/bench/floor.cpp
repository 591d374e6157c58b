// SPDX-License-Identifier: Apache-2.0
// bench_floor: the least work that any replication of this kind must do, in CPU seconds per GB of
// disk: LZ4 and XXH3 of every byte, TLS 1.3 records (AES-256-GCM, 16 KiB) sealed and opened once
// for the compressed bytes, and one write of them to a file, synced. Nothing else: no reads, no
// sockets, no verification.
// With --fill it writes the same kind of data to the disk of a benchmark instead.
#include <fcntl.h>
#include <lz4.h>
#include <openssl/evp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "herald/limits.h"
#include "tests/bench/compressible.h"
#include "user/base/digest.h"
#include "user/base/file.h"

using namespace herald;

namespace {

constexpr size_t kBlockBytes = HERALD_HRL_BLOCK_BYTES_MAX;
constexpr size_t kDataBytes = 64 << 20;
constexpr size_t kTlsRecordBytes = 16 << 10;

double cpu_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
        return double(t.tv_sec) + double(t.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class TlsRecords {
  public:
    TlsRecords() : context_(EVP_CIPHER_CTX_new()) { HERALD_ASSERT(context_ != nullptr); }
    ~TlsRecords() { EVP_CIPHER_CTX_free(context_); }
    TlsRecords(const TlsRecords&) = delete;
    TlsRecords& operator=(const TlsRecords&) = delete;

    // Seals each record of `plain` and opens it again.
    void seal_and_open(ByteView plain) {
        for (size_t at = 0; at < plain.size(); at += kTlsRecordBytes) {
            const ByteView record = plain.subspan(at, std::min(kTlsRecordBytes, plain.size() - at));
            ++nonce_;
            run(true, record.data(), record.size(), sealed_.data());
            run(false, sealed_.data(), record.size(), opened_.data());
        }
    }

  private:
    void run(bool seal, const std::byte* from, size_t bytes, std::byte* to) {
        unsigned char iv[12] = {};
        std::memcpy(iv, &nonce_, sizeof nonce_);
        int n = 0;
        bool ok = EVP_CipherInit_ex(context_, EVP_aes_256_gcm(), nullptr, key_, iv, seal) == 1;
        if (!seal) ok = ok && EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_SET_TAG, 16, tag_) == 1;
        ok = ok && EVP_CipherUpdate(context_, reinterpret_cast<unsigned char*>(to), &n,
                                    reinterpret_cast<const unsigned char*>(from), int(bytes)) == 1;
        ok = ok && EVP_CipherFinal_ex(context_, reinterpret_cast<unsigned char*>(to) + n, &n) == 1;
        if (seal) ok = ok && EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_GET_TAG, 16, tag_) == 1;
        HERALD_ASSERT(ok);
    }

    EVP_CIPHER_CTX* context_;
    unsigned char key_[32] = {1};
    unsigned char tag_[16] = {};
    uint64_t nonce_ = 0;
    std::array<std::byte, kTlsRecordBytes + 32> sealed_;
    std::array<std::byte, kTlsRecordBytes + 32> opened_;
};

// Each part from another seed: no two blocks of the disk are alike.
void fill(const std::string& disk) {
    Fd fd(::open(disk.c_str(), O_WRONLY | O_CLOEXEC));
    HERALD_ASSERT(bool(fd));
    const uint64_t bytes = uint64_t(::lseek(fd.get(), 0, SEEK_END));
    for (uint64_t at = 0; at < bytes; at += kDataBytes) {
        const Bytes data = bench::compressible(std::min(kDataBytes, bytes - at), at + 1);
        HERALD_ASSERT(write_exact(fd.get(), at, data, disk).has_value());
    }
    HERALD_ASSERT(sync_fd(fd.get(), disk).has_value());
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("CPU seconds per GB that replication cannot do without");
    bool quick = false;
    std::string json_path;
    std::string directory = "/tmp";
    app.add_flag("--quick", quick, "256 MiB instead of 2 GiB");
    app.add_option("--json", json_path, "write the figures to this file");
    app.add_option("--dir", directory, "where the one write goes");
    std::string disk;
    app.add_option("--fill", disk, "fill this disk with the data, measure nothing");
    CLI11_PARSE(app, argc, argv);
    if (!disk.empty()) {
        fill(disk);
        return 0;
    }

    const Bytes data = bench::compressible(kDataBytes, 1);
    const size_t rounds = quick ? 4 : 32;
    std::string path = directory + "/herald-floor-XXXXXX";
    Fd fd(::mkstemp(path.data()));
    HERALD_ASSERT(bool(fd));
    ::unlink(path.c_str());

    TlsRecords tls;
    Bytes packed(size_t(LZ4_compressBound(kBlockBytes)));
    uint64_t packed_bytes = 0;
    uint64_t sum = 0;
    const double before = cpu_seconds();
    for (size_t round = 0; round < rounds; ++round) {
        for (size_t at = 0; at < data.size(); at += kBlockBytes) {
            const ByteView block = ByteView(data).subspan(at, kBlockBytes);
            sum += xxh3_64(block);
            const int n = LZ4_compress_default(reinterpret_cast<const char*>(block.data()),
                                               reinterpret_cast<char*>(packed.data()),
                                               int(block.size()), int(packed.size()));
            HERALD_ASSERT(n > 0);
            const ByteView stored = ByteView(packed).first(size_t(n));
            tls.seal_and_open(stored);
            HERALD_ASSERT(
                write_exact(fd.get(), packed_bytes % (1u << 30), stored, path).has_value());
            packed_bytes += size_t(n);
        }
    }
    HERALD_ASSERT(sync_fd(fd.get(), path).has_value());
    const double cpu = cpu_seconds() - before;
    const double gb = double(data.size() * rounds) / 1e9;
    const double ratio = double(data.size() * rounds) / double(packed_bytes);
    fmt::print("floor: {:.2f} CPU seconds per GB at {:.2f} : 1 (check {:x})\n", cpu / gb, ratio,
               sum);
    HERALD_ASSERT(ratio > 1.98 && ratio < 2.02);
    if (!json_path.empty()) {
        std::ofstream(json_path) << nlohmann::json{{"cpu_s_per_gb", cpu / gb}, {"ratio", ratio}};
    }
    return 0;
}
