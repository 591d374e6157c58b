// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/operator_requests.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "user/wire/messages.h"

namespace herald::process_server {

using wire::error_response;
using wire::json_response;
using wire::RequestHead;
using wire::ServerResponse;

namespace {

constexpr size_t kSegmentsListedDefault = 1000;

ServerResponse unknown_disk(const Route& route) {
    return error_response(404, wire::kErrorNotFound,
                          fmt::format("disk {} is not known here", to_string(route.disk)));
}

// The rows of a list as the protocol sends them.
template <class Rows>
ServerResponse listed(const Rows& rows) {
    std::vector<decltype(vault::to_info(rows[0]))> infos;
    for (const auto& row : rows) infos.push_back(vault::to_info(row));
    return json_response(200, wire::encode(infos));
}

}  // namespace

ServerResponse OperatorRequests::disks() {
    auto rows = catalog_.disks();
    if (!rows) return trouble(rows.error(), options_.retry_after_s);
    auto store = store_.space();
    if (!store) return trouble(store.error(), options_.retry_after_s);
    auto catalog = catalog_.space();
    if (!catalog) return trouble(catalog.error(), options_.retry_after_s);
    const char* const full = full_place(options_.space, *store, *catalog);
    std::vector<wire::DiskInfo> infos;
    for (const vault::DiskRow& row : *rows) {
        infos.push_back(vault::to_info(row));
        // What is written now is not taken, so nobody who reads this may think that it is safe.
        if (full && infos.back().cause.empty()) {
            infos.back().state = "paused";
            infos.back().cause = fmt::format(
                "the server's {} is full and takes no segments until there is space; what was "
                "acknowledged is kept",
                full);
        }
        last_heard_.judge(infos.back());
    }
    return json_response(200, wire::encode(infos));
}

ServerResponse OperatorRequests::points(const RequestHead& head, const Route& route) {
    if (!gates_.find(route.disk)) return unknown_disk(route);
    auto refused = query_number(head, "refused", 0);
    if (!refused) return std::move(refused.error());
    auto rows = catalog_.points(route.disk);
    if (!rows) return trouble(rows.error(), options_.retry_after_s);
    if (*refused > 0) {
        auto tags =
            catalog_.refused_tags(route.disk, std::min<uint64_t>(*refused, HERALD_LIST_ROWS_MAX));
        if (!tags) return trouble(tags.error(), options_.retry_after_s);
        rows->insert(rows->end(), tags->begin(), tags->end());
        std::ranges::sort(*rows, {}, &vault::PointRow::position);
    }
    return listed(*rows);
}

ServerResponse OperatorRequests::segments(const RequestHead& head, const Route& route) {
    if (!gates_.find(route.disk)) return unknown_disk(route);
    auto after = query_number(head, "after", 0);
    if (!after) return std::move(after.error());
    auto limit = query_number(head, "limit", kSegmentsListedDefault);
    if (!limit) return std::move(limit.error());
    auto rows =
        catalog_.segments(route.disk, *after, std::min<uint64_t>(*limit, HERALD_LIST_ROWS_MAX));
    if (!rows) return trouble(rows.error(), options_.retry_after_s);
    return listed(*rows);
}

ServerResponse OperatorRequests::get_segment(const Route& route) {
    auto row = catalog_.segment(route.disk, route.first);
    if (!row) return trouble(row.error(), options_.retry_after_s);
    if (!*row) {
        return error_response(404, wire::kErrorNotFound,
                              fmt::format("disk {} has no segment that begins at position {}",
                                          to_string(route.disk), route.first));
    }
    ServerResponse response;
    response.headers["content-type"] = "application/octet-stream";
    response.headers[wire::kHeaderDigest] = to_hex((*row)->digest.bytes);
    auto info = store_.stat((*row)->object);
    if (!info) return trouble(info.error(), options_.retry_after_s);
    if (info->bytes != (*row)->bytes) {
        spdlog::error("object {} has {} bytes, the catalog says {}", info->name, info->bytes,
                      (*row)->bytes);
        return error_response(500, wire::kErrorCorrupt,
                              fmt::format("segment {} is damaged in the store: {} bytes of {}",
                                          to_string((*row)->segment), info->bytes, (*row)->bytes));
    }
    // From the file where there is one: many downloads at once must not fill the memory.
    auto file = store_.open_file((*row)->object);
    if (!file) return trouble(file.error(), options_.retry_after_s);
    if (*file) {
        response.file.emplace(ServerResponse::FileBody{std::move(**file), 0, (*row)->bytes});
        return response;
    }
    auto bytes = store_.get((*row)->object, 0, (*row)->bytes);
    if (!bytes) return trouble(bytes.error(), options_.retry_after_s);
    response.body = std::move(*bytes);
    return response;
}

ServerResponse OperatorRequests::status(const wire::ServerCounters& counters) {
    auto free = store_.space();
    if (!free) return trouble(free.error(), options_.retry_after_s);
    wire::ServerStatus status;
    status.version = HERALD_VERSION;
    status.free_bytes = free->free_bytes;
    status.total_bytes = free->total_bytes;
    status.store_state = to_string(space_state(options_.space, *free));
    auto catalog = catalog_.space();
    if (!catalog) return trouble(catalog.error(), options_.retry_after_s);
    status.catalog_free_bytes = catalog->free_bytes;
    status.catalog_total_bytes = catalog->total_bytes;
    status.catalog_state = to_string(space_state(catalog_limits(options_.space), *catalog));
    status.connections = counters.connections;
    status.requests = counters.requests;
    auto rows = catalog_.disks();
    if (!rows) return trouble(rows.error(), options_.retry_after_s);
    status.disks = rows->size();
    return json_response(200, wire::encode(status));
}

}  // namespace herald::process_server
