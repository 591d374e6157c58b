// SPDX-License-Identifier: Apache-2.0
// The names of objects: what ObjectStore accepts, checked before a name becomes a path or a URL.
#pragma once

#include <string_view>

#include "user/base/result.h"

namespace herald::store {

inline constexpr size_t kObjectNameBytesMax = 255;

// Refuses by name whatever the contract in object_store.h does not allow.
Result<void> check_object_name(std::string_view name);

}  // namespace herald::store
