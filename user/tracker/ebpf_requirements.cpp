// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <memory>

#include "user/tracker/bpf_object.h"
#include "user/tracker/ebpf_tracker.h"

namespace herald::tracker {
namespace {

constexpr const char* kBtfPath = "/sys/kernel/btf/vmlinux";

// Linux 5.11 and later hand the request alone to the handler of block_rq_issue: `void *` and it.
bool issue_passes_request_alone(const btf& types) {
    const int id = btf__find_by_name_kind(&types, "btf_trace_block_rq_issue", BTF_KIND_TYPEDEF);
    if (id < 0) return false;
    const btf_type* type = btf__type_by_id(&types, uint32_t(id));
    type = btf__type_by_id(&types, type->type);
    if (!type || !btf_is_ptr(type)) return false;
    type = btf__type_by_id(&types, type->type);
    return type && btf_is_func_proto(type) && btf_vlen(type) == 2;
}

bool kernel_knows_filesystem(std::string_view name) {
    std::ifstream list("/proc/filesystems");
    for (std::string line; std::getline(list, line);) {
        if (line.ends_with(name) && line.size() > name.size() &&
            line[line.size() - name.size() - 1] == '\t') {
            return true;
        }
    }
    return false;
}

}  // namespace

Result<void> check_ebpf_requirements() {
    const auto missing = [](const auto&... text) -> Result<void> {
        return fail(ErrorKind::operator_needed,
                    "tracking without a kernel module is not possible here: {}", text...);
    };
    if (::geteuid() != 0) return missing("it needs root; run it with sudo or as a system service");
    if (::access(kBtfPath, R_OK) != 0) {
        return missing(fmt::format(
            "the kernel does not describe its types ({} is missing); run one built with "
            "CONFIG_DEBUG_INFO_BTF=y, as those of Debian 12 and every current distribution are",
            kBtfPath));
    }
    if (!kernel_knows_filesystem("bpf")) {
        return missing(
            "the kernel has no bpf file system; run one built with CONFIG_BPF_SYSCALL=y");
    }
    if (auto probe = create_array("herald_probe", 8, 1); !probe) {
        return missing(fmt::format(
            "{}; if the kernel is locked down (/sys/kernel/security/lockdown says "
            "confidentiality) or this is a container without CAP_BPF and CAP_SYS_ADMIN, allow it",
            probe.error().message));
    }
    const std::unique_ptr<btf, void (*)(btf*)> types(btf__load_vmlinux_btf(), btf__free);
    if (!types || !issue_passes_request_alone(*types)) {
        return missing(
            "the kernel's tracepoint block_rq_issue is missing or of another shape; Linux 6.1 or "
            "newer, built with CONFIG_BLOCK and tracepoints, is needed");
    }
    if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_FUNC_loop, nullptr) != 1) {
        return missing("the kernel has no bpf_loop helper; Linux 6.1 or newer is needed");
    }
    return {};
}

}  // namespace herald::tracker
