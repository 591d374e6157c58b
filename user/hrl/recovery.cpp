// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/recovery.h"

#include "user/base/result.h"

namespace herald::hrl {

namespace {

using H = HeaderState;
using T = TailState;
using B = BlockState;
using A = RecoveryAction;
constexpr std::nullopt_t any = std::nullopt;

// Row by row the table of the specification.
constexpr RecoveryRow kTable[] = {
    {H::unreadable, any, any, A::report_trouble},
    {H::damaged, any, any, A::refuse_damaged},
    {H::newer, any, any, A::refuse_newer},
    {H::unsealed, any, any, A::refuse_unsealed},
    {H::locked, any, any, A::refuse_locked},
    {H::good, T::unreadable, any, A::report_trouble},
    {H::good, T::whole, B::good, A::hand_out},
    {H::good, T::whole, B::damaged, A::fail},
    {H::good, T::whole, B::none, A::end},
    {H::good, T::whole, B::unreadable, A::report_trouble},
    {H::good, T::torn, B::good, A::hand_out},
    {H::good, T::torn, B::damaged, A::end_torn},
    {H::good, T::torn, B::none, A::end_torn},
    {H::good, T::torn, B::unreadable, A::report_trouble},
};

}  // namespace

std::span<const RecoveryRow> recovery_table() { return kTable; }

RecoveryAction recovery_action(HeaderState header, TailState tail, BlockState block) {
    for (const RecoveryRow& row : kTable) {
        if (row.header == header && row.tail.value_or(tail) == tail &&
            row.block.value_or(block) == block) {
            return row.action;
        }
    }
    bug("every state has a row", __FILE__, __LINE__);
}

}  // namespace herald::hrl
