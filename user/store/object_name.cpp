// SPDX-License-Identifier: Apache-2.0
#include "user/store/object_name.h"

namespace herald::store {

namespace {

bool allowed(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool valid_segment(std::string_view segment) {
    if (segment.empty() || segment == "." || segment == "..") return false;
    for (char c : segment) {
        if (!allowed(c)) return false;
    }
    return true;
}

}  // namespace

Result<void> check_object_name(std::string_view name) {
    bool valid = name.size() <= kObjectNameBytesMax;
    for (size_t begin = 0; valid && begin <= name.size();) {
        const size_t end = std::min(name.find('/', begin), name.size());
        valid = valid_segment(name.substr(begin, end - begin));
        begin = end + 1;
    }
    if (!valid) {
        return fail(ErrorKind::operator_needed,
                    "'{}' is not the name of an object: parts of a-z 0-9 . _ - joined by / were "
                    "expected, none of them . or .., at most {} bytes in all",
                    name.substr(0, 300), kObjectNameBytesMax);
    }
    return {};
}

}  // namespace herald::store
