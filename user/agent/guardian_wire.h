// SPDX-License-Identifier: Apache-2.0
// Messages between a freezer and the guardian: one packet each way on a SOCK_SEQPACKET unix socket.
//   arm     with `count` descriptors (SCM_RIGHTS), before the first FIFREEZE; answered when armed
//   disarm  after the last FITHAW; the answer says whether the guardian thawed first
//   probe   asks whether a guardian is there
// A peer that closes, or only shuts down its writing, while armed: thawed at once, then answered.
// One arm for each connection. Both ends are of one host: the bytes are the host's own order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace herald::agent {

inline constexpr uint32_t kGuardianMagic = 0x44524748;  // "HGRD"
inline constexpr uint16_t kGuardianVersion = 1;

enum class GuardianOp : uint16_t { arm = 1, disarm = 2, probe = 3 };

struct GuardianRequest_wire {
    uint32_t magic;
    uint16_t version;
    uint16_t op;
    uint32_t deadline_ms;  // arm: from now on
    uint32_t count;        // arm: descriptors that come with the packet
};
static_assert(sizeof(GuardianRequest_wire) == 16 && offsetof(GuardianRequest_wire, count) == 12);

struct GuardianReply_wire {
    uint32_t magic;
    uint16_t version;
    uint16_t fired;  // 1: the deadline passed and the guardian began to thaw
    uint32_t error;  // errno; 0: done as asked
    uint32_t reserved;
};
static_assert(sizeof(GuardianReply_wire) == 16 && offsetof(GuardianReply_wire, error) == 8);

}  // namespace herald::agent
