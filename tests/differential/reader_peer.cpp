// SPDX-License-Identifier: Apache-2.0
// The C++ half of the comparison of the two readers.
//   reader_peer write DIR SEED COUNT   random journals 0.hrl, 1.hrl, ... in DIR
//   reader_peer read KEY               for each path on standard input: its records, and how it
//   ends
//   reader_peer keys DIR           file, phrase and token root keys and the machine keys they wrap
//   reader_peer unwrap             for each line "ROOT|MACHINE-KEY|SECRET-FILE": the machine key
//   reader_peer lz4                for each line "RAW-BYTES HEX": what the LZ4 block holds, hashed
// KEY: "key" opens what was sealed with the key below, "blind" reads without it, "none" refuses,
// "sealed" is "key" and refuses plain files.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <random>

#include "user/base/digest.h"
#include "user/base/file.h"
#include "user/hrl/lz4_block.h"
#include "user/hrl/segment_reader.h"
#include "user/seal/keyring.h"
#include "user/seal/root_key.h"

using namespace herald;
using namespace herald::hrl;

namespace {

Uuid id_of(uint8_t fill) {
    Uuid id;
    id.bytes.fill(std::byte{fill});
    return id;
}

// The key of the specification's example.
seal::MachineKey known_key() {
    Bytes bytes;
    for (uint8_t i = 0; i < 32; ++i) bytes.push_back(std::byte{i});
    return {id_of(0x11), id_of(0x77), seal::Secret(bytes)};
}

struct Sample {
    Record record;
    Bytes data;
};

uint64_t upto(std::mt19937_64& random, uint64_t most) { return random() % (most + 1); }

Sample random_record(std::mt19937_64& random, const SegmentHeader& header, uint64_t position) {
    Sample sample;
    Record& record = sample.record;
    record.position = position;
    record.time_ns = 1'700'000'000'000'000'000ull + position * 1000 + upto(random, 5000);
    const auto range = [&](uint64_t sectors) {
        record.length = 512 * (1 + upto(random, sectors - 1));
        record.offset = 512 * upto(random, (header.disk_bytes - record.length) / 512);
    };
    const bool image = header.contents == Contents::image_layer;
    switch (upto(random, image ? 5 : 13)) {
        case 0:
            record.kind = RecordKind::zeroes;
            range(64);
            break;
        case 1:
            record.kind = RecordKind::discard;
            range(64);
            break;
        case 2:
            record.kind = RecordKind::secure_erase;
            range(4);
            break;
        case 6:
            record.kind = RecordKind::reread;
            range(8);
            break;
        case 7:
            record.kind = RecordKind::tag;
            sample.data =
                encode_tag({id_of(uint8_t(random())), random(), TagKind(1 + upto(random, 3)),
                            Consistency(1 + upto(random, 2)), std::string(upto(random, 255), 'n')});
            break;
        case 8:
            record.kind = RecordKind::scan_begin;
            sample.data = encode_scan_begin({random(), ScanCause(1 + upto(random, 4))});
            break;
        case 9:
            record.kind = RecordKind::scan_end;
            sample.data = encode_scan_end({random(), bool(random() % 2), random()});
            break;
        case 10:
            record.kind = RecordKind::activation;
            sample.data = encode_activation(
                {id_of(9), StreamMode(1 + upto(random, 3)), "ebpf", "the map was lost"});
            break;
        case 11:
            record.kind = RecordKind::resize;
            record.length = 512 * (1 + upto(random, 4095));
            break;
        default:
            record.kind = RecordKind::write;
            range(upto(random, 9) ? 8 : 300);
            if (header.order == RecordOrder::by_block_then_position) {
                const uint64_t granule = uint64_t{1} << header.granule_log2;
                const uint64_t within = record.offset % granule;
                record.length = std::min(record.length, granule - within);
            }
            sample.data = Bytes(record.length, std::byte(random()));
            if (random() % 2) {
                for (std::byte& byte : sample.data) byte = std::byte(random());
            }
            break;
    }
    return sample;
}

Result<Bytes> random_file(std::mt19937_64& random, const seal::MachineKey& key) {
    SegmentHeader header;
    header.machine = id_of(0x11);
    header.disk = id_of(uint8_t(random()));
    header.segment = id_of(uint8_t(1 + upto(random, 200)));
    header.epoch = random();
    header.first_position = 1 + upto(random, 1) * upto(random, uint64_t{1} << 40);
    // The last positions that there are.
    if (random() % 8 == 0) header.first_position = HERALD_POSITION_MAX - upto(random, 200);
    header.disk_bytes = 1u << 20;
    header.created_ns = random();
    header.block_bytes = 512u << upto(random, 9);
    if (random() % 3 == 0) {
        header.contents = random() % 3 ? Contents::delta_layer : Contents::image_layer;
        if (header.contents == Contents::image_layer || random() % 4) {
            header.order = RecordOrder::by_block_then_position;
            header.granule_log2 = uint8_t(9 + upto(random, 6));
        }
    } else if (random() % 2) {
        header.previous_segment = id_of(uint8_t(random()));
    }
    std::vector<Sample> samples;
    uint64_t position = header.first_position;
    for (uint64_t left = 1 + upto(random, 40); left > 0 && position <= HERALD_POSITION_MAX;
         --left) {
        samples.push_back(random_record(random, header, position));
        position += header.contents == Contents::segment ? 1 : 1 + upto(random, 3);
    }
    std::sort(samples.begin(), samples.end(), [&](const Sample& a, const Sample& b) {
        return order_key(header, a.record) < order_key(header, b.record);
    });
    SegmentWriter writer = random() % 2
                               ? SegmentWriter(header)
                               : SegmentWriter(header, {SealedBy(1 + upto(random, 1)), &key});
    for (Sample& sample : samples) {
        sample.record.data = sample.data;
        auto appended = writer.append(sample.record);
        if (!appended) return pass(appended);
    }
    const bool wider = header.contents != Contents::segment && random() % 2;
    auto segment =
        std::move(writer).finish(wider ? std::min<uint64_t>(position + 7, HERALD_POSITION_MAX) : 0);
    if (!segment) return pass(segment);
    return std::move(segment->bytes);
}

int write_files(const std::string& folder, uint64_t seed, uint64_t count) {
    const seal::MachineKey key = known_key();
    std::mt19937_64 random(seed);
    for (uint64_t number = 0; number < count; ++number) {
        auto bytes = random_file(random, key);
        if (!bytes) {
            fmt::print(stderr, "file {}: {}\n", number, bytes.error().message);
            return 1;
        }
        std::ofstream out(fmt::format("{}/{}.hrl", folder, number), std::ios::binary);
        out.write(reinterpret_cast<const char*>(bytes->data()), std::streamsize(bytes->size()));
        if (!out.flush()) return 1;
    }
    return 0;
}

const char* refusal_of(HeaderState state) {
    switch (state) {
        case HeaderState::newer:
            return "newer";
        case HeaderState::unsealed:
            return "unsealed";
        case HeaderState::locked:
            return "locked";
        default:
            return "damaged";
    }
}

void read_file(const std::string& path, const ReadOptions& options) {
    fmt::print("FILE {}\n", path);
    auto source = file_source(path);
    if (!source) return fmt::print("END unreadable\n");
    const CheckedHeader header = read_header(**source, options);
    auto reader = SegmentReader::open(std::move(*source), options);
    if (!reader) return fmt::print("END refused {}\n", refusal_of(header.state));
    uint64_t last = header.header.first_position - 1;
    for (;;) {
        auto next = reader->next();
        if (!next) return fmt::print("END damaged {}\n", last);
        if (!*next) break;
        const Record& record = **next;
        last = record.position;
        fmt::print("{} {} {} {} {} {}\n", unsigned(record.kind), record.position, record.offset,
                   record.length, record.time_ns,
                   record.data_is_sealed ? "sealed" : fmt::format("{:016x}", xxh3_64(record.data)));
    }
    fmt::print("END {} {}\n", reader->whole() ? "whole" : "torn", last);
}

bool put(const std::string& path, ByteView bytes) {
    auto written = herald::replace_file(path, bytes, 0600);
    if (!written) fmt::print(stderr, "{}\n", written.error().message);
    return written.has_value();
}

// DIR/phrase.secret is there already.
int write_keys(const std::string& folder) {
    const std::string at = folder + "/";
    auto secret = seal::read_secret_file(at + "phrase.secret");
    if (!secret) return 1;
    const auto ask = [&](const std::string&) -> Result<seal::Secret> { return secret->copy(); };
    auto phrase = seal::new_passphrase_root(secret->view(), {1 << 14, 8, 1});
    if (!phrase) return 1;
    const seal::RootKeyFile plain = seal::new_root_key();
    for (const bool by_phrase : {true, false}) {
        const seal::RootKeyFile& file = by_phrase ? *phrase : plain;
        const std::string name = by_phrase ? "phrase" : "file";
        if (!put(at + name + ".root", seal::format_root_key(file).view())) return 1;
        auto root = seal::open_root_key(file, name, ask);
        if (!root) return 1;
        auto wrapped = seal::wrap_machine_key(seal::MachineKey::create(Uuid::random()), **root);
        if (!wrapped || !put(at + name + ".key", as_bytes(seal::format_machine_key(*wrapped)))) {
            return 1;
        }
    }
    const auto token = seal::new_token_root({"/nowhere/pkcs11.so", "backup", "herald"});
    return put(at + "token.root", seal::format_root_key(token).view()) ? 0 : 1;
}

Result<seal::MachineKey> unwrap(const std::string& root_path, const std::string& key_path,
                                const std::string& secret_path) {
    const auto ask = [&](const std::string&) { return seal::read_secret_file(secret_path); };
    auto root = seal::open_root_key(std::filesystem::path(root_path), ask);
    if (!root) return pass(root);
    auto text = herald::read_file(key_path, 1 << 20);
    if (!text) return pass(text);
    auto wrapped = seal::parse_machine_key(*text, key_path);
    if (!wrapped) return pass(wrapped);
    return seal::unwrap_machine_key(*wrapped, **root);
}

void unwrap_each() {
    for (std::string line; std::getline(std::cin, line);) {
        const size_t first = line.find('|'), second = line.rfind('|');
        auto key = unwrap(line.substr(0, first), line.substr(first + 1, second - first - 1),
                          line.substr(second + 1));
        if (!key) {
            const bool newer = key.error().message.find("-key version ") != std::string::npos;
            fmt::print("refused{}\n", newer ? " newer" : "");
            continue;
        }
        fmt::print("{} {} ", to_string(key->machine), to_string(key->id));
        for (const std::byte byte : key->key.view()) fmt::print("{:02x}", unsigned(byte));
        fmt::print("\n");
    }
}

void decompress_each() {
    for (std::string line; std::getline(std::cin, line);) {
        const size_t space = line.find(' ');
        Bytes block;
        for (size_t at = space + 1; at + 1 < line.size(); at += 2) {
            block.push_back(std::byte(std::stoi(line.substr(at, 2), nullptr, 16)));
        }
        Bytes raw(std::stoul(line.substr(0, space)));
        fmt::print("{}\n",
                   decompress_lz4(block, raw) ? fmt::format("{:016x}", xxh3_64(raw)) : "refused");
    }
}

}  // namespace

int main(int count, char** arguments) {
    const std::vector<std::string> words(arguments + 1, arguments + count);
    if (words.size() == 4 && words[0] == "write") {
        return write_files(words[1], std::stoull(words[2]), std::stoull(words[3]));
    }
    if (words.size() == 2 && words[0] == "keys") return write_keys(words[1]);
    if (words.size() == 1 && words[0] == "unwrap") {
        unwrap_each();
        return 0;
    }
    if (words.size() == 1 && words[0] == "lz4") {
        decompress_each();
        return 0;
    }
    if (words.size() != 2 || words[0] != "read") return 2;
    seal::Keyring keys;
    keys.add(known_key());
    ReadOptions options{.layers = true};
    options.without_key = words[1] == "blind";
    options.sealed_only = words[1] == "sealed";
    if (words[1] == "key" || words[1] == "sealed") options.keys = &keys;
    for (std::string path; std::getline(std::cin, path);) read_file(path, options);
    return 0;
}
