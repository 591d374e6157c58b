// SPDX-License-Identifier: Apache-2.0
// ServiceFixture: a Service over a directory and a SQLite catalog, called without a network, and
// the requests of a machine and an operator to it.
#pragma once

#include <spdlog/spdlog.h>

#include "tests/stream_builder.h"
#include "tests/temp_dir.h"
#include "user/base/digest.h"
#include "user/process_server/service.h"
#include "user/wire/messages.h"

namespace herald::test {

class ServiceFixture {
  public:
    explicit ServiceFixture(const std::filesystem::path& root)
        : ServiceFixture(root / "store", root / "catalog.sqlite") {}
    ServiceFixture(std::filesystem::path store, std::filesystem::path catalog)
        : store_path_(std::move(store)), catalog_path_(std::move(catalog)) {
        options.space.free_bytes_min = 0;
        spdlog::set_level(spdlog::level::off);
    }

    Result<void> open() {
        close();
        auto store = store::open_directory_store(store_path_);
        if (!store) return pass(store);
        auto catalog = vault::open_sqlite_catalog(catalog_path_);
        if (!catalog) return pass(catalog);
        auto opened = process_server::Service::open(**store, **catalog, options);
        if (!opened) return pass(opened);
        store_ = std::move(*store);
        catalog_ = std::move(*catalog);
        service = std::move(*opened);
        return {};
    }
    void close() {
        service.reset();
        catalog_.reset();
        store_.reset();
    }
    store::ObjectStore& store() { return *store_; }
    vault::Catalog& catalog() { return *catalog_; }

    // As HttpServer does it: the head first, then the body if it is admitted.
    wire::ServerResponse send(wire::RequestHead head, ByteView body) {
        head.content_bytes = body.size();
        auto admitted = service->admit(head);
        if (!admitted) return std::move(admitted.error());
        if (body.size() > *admitted) return wire::error_response(413, "too_large", "");
        return service->handle(head, Bytes(body.begin(), body.end()));
    }

    static wire::RequestHead machine_head(const Uuid& machine, std::string method,
                                          std::string path) {
        wire::RequestHead head;
        head.method = std::move(method);
        head.path = std::move(path);
        head.peer = {wire::Role::machine, to_string(machine), machine};
        return head;
    }
    static wire::RequestHead operator_head(std::string path) {
        wire::RequestHead head;
        head.method = "GET";
        head.path = std::move(path);
        head.peer = {wire::Role::operator_, "ann", {}};
        return head;
    }
    static std::string disk_path(const Uuid& disk, const std::string& rest) {
        return "/v1/disks/" + to_string(disk) + "/" + rest;
    }

    wire::ServerResponse ask_session(const Uuid& machine, const Uuid& disk, const Uuid& session,
                                     uint64_t disk_bytes) {
        wire::SessionRequest request;
        request.session = session;
        request.name = "disk";
        request.identity = "wwn:1";
        request.disk_bytes = disk_bytes;
        request.block_bytes = HERALD_BLOCK_BYTES;
        return send(machine_head(machine, "POST", disk_path(disk, "session")),
                    as_bytes(wire::encode(request)));
    }
    wire::ServerResponse put(const hrl::SegmentHeader& header, ByteView body) {
        auto head = machine_head(
            header.machine, "PUT",
            disk_path(header.disk, "segments/" + std::to_string(header.first_position)));
        head.headers[wire::kHeaderEpoch] = std::to_string(header.epoch);
        head.headers[wire::kHeaderDigest] = to_hex(xxh3_128(body).bytes);
        return send(head, body);
    }
    wire::ServerResponse put(const hrl::Segment& segment) {
        return put(segment.header, segment.bytes);
    }
    size_t objects() {
        size_t count = 0;
        (void)store_->list("", [&](const store::ObjectInfo&) -> Result<void> {
            ++count;
            return {};
        });
        return count;
    }

    process_server::ServiceOptions options;
    std::unique_ptr<process_server::Service> service;

  private:
    std::filesystem::path store_path_;
    std::filesystem::path catalog_path_;
    std::unique_ptr<store::ObjectStore> store_;
    std::unique_ptr<vault::Catalog> catalog_;
};

inline std::string body_of(const wire::ServerResponse& response) {
    return std::string(as_text(response.body));
}

// The status and the error's code: "409 fenced"; of a success the acknowledged position.
inline std::string outcome_of(const wire::ServerResponse& response) {
    if (response.status != 200) {
        auto error = wire::decode_error_body(as_text(response.body));
        return std::to_string(response.status) + " " + (error ? error->code : "?");
    }
    auto ack = wire::decode_segment_ack(as_text(response.body));
    return ack ? "stored " + std::to_string(ack->stored) : "200";
}

}  // namespace herald::test
