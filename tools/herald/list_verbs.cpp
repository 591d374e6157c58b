// SPDX-License-Identifier: Apache-2.0
// disks, points, status: ask the server, print what it says.
#include "tools/herald/api_client.h"
#include "tools/herald/output.h"
#include "tools/herald/time_text.h"
#include "tools/herald/verbs.h"
#include "user/base/output.h"

namespace herald::cli {

namespace {

Result<std::unique_ptr<ApiClient>> connect(const CommonOptions& common, std::string* server) {
    const auto config = load_operator_config(common.config);
    if (!config) return pass(config);
    if (server) *server = fmt::format("{}:{}", config->server.host, config->server.port);
    return ApiClient::make(*config);
}

void print(const std::string& text) { print_out("{}", text); }

}  // namespace

Result<void> run_disks(const CommonOptions& common) {
    auto client = connect(common, nullptr);
    if (!client) return pass(client);
    const auto disks = (*client)->disks();
    if (!disks) return pass(disks);
    print(common.json ? disks_json(*disks) : disks_table(*disks, now_ns()));
    return {};
}

Result<void> run_points(const CommonOptions& common, const std::string& disk_text,
                        bool refused_too) {
    auto client = connect(common, nullptr);
    if (!client) return pass(client);
    const auto disks = (*client)->disks();
    if (!disks) return pass(disks);
    const auto disk = select_disk(*disks, disk_text);
    if (!disk) return pass(disk);
    const auto points = (*client)->points(disk->disk, refused_too);
    if (!points) return pass(points);
    print(common.json ? points_json(*disk, *points) : points_table(*disk, *points, now_ns()));
    return {};
}

Result<void> run_status(const CommonOptions& common) {
    std::string server;
    auto client = connect(common, &server);
    if (!client) return pass(client);
    const auto status = (*client)->status();
    if (!status) return pass(status);
    print(common.json ? status_json(server, *status) : status_text(server, *status));
    return {};
}

}  // namespace herald::cli
