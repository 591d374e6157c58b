// SPDX-License-Identifier: Apache-2.0
// Bytes, spans of them, and little-endian integers in them. All of Herald's formats are
// little-endian and packed; nothing else in the tree shifts bytes.
#pragma once

#include <algorithm>
#include <bit>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <span>
#include <string_view>
#include <utility>

#include "user/base/large_memory.h"

namespace herald {

using ByteView = std::span<const std::byte>;
using ByteSpan = std::span<std::byte>;

// A growing array of bytes: what std::vector does, by its names, with memory that is recycled and
// page-aligned from kLargeMemoryBytes on (large_memory.h). Not a std::vector with an allocator:
// through one that is not its own, libstdc++ copies, fills and moves byte by byte, a tenth as fast.
// Failure: std::bad_alloc, as of a vector; nothing has changed then.
class Bytes {
  public:
    using value_type = std::byte;
    using size_type = size_t;
    using difference_type = ptrdiff_t;
    using reference = std::byte&;
    using const_reference = const std::byte&;
    using iterator = std::byte*;
    using const_iterator = const std::byte*;

    Bytes() = default;
    explicit Bytes(size_t size, std::byte value = {}) { resize(size, value); }
    template <std::contiguous_iterator From>
    Bytes(From first, From last) {
        append(ByteView(first, last));
    }
    Bytes(std::initializer_list<std::byte> values) {
        append(ByteView(values.begin(), values.size()));
    }
    Bytes(const Bytes& other) { append(other); }
    Bytes(Bytes&& other) noexcept { swap(other); }
    Bytes& operator=(const Bytes& other) {
        if (this != &other) assign(other);
        return *this;
    }
    Bytes& operator=(Bytes&& other) noexcept {
        Bytes(std::move(other)).swap(*this);
        return *this;
    }
    ~Bytes() {
        if (capacity_ > 0) give_memory(data_, capacity_);
    }

    std::byte* data() { return data_; }
    const std::byte* data() const { return data_; }
    size_t size() const { return size_; }
    size_t capacity() const { return capacity_; }
    bool empty() const { return size_ == 0; }
    iterator begin() { return data_; }
    iterator end() { return data_ + size_; }
    const_iterator begin() const { return data_; }
    const_iterator end() const { return data_ + size_; }
    std::byte& operator[](size_t at) { return data_[at]; }
    const std::byte& operator[](size_t at) const { return data_[at]; }
    std::byte& front() { return data_[0]; }
    std::byte& back() { return data_[size_ - 1]; }
    const std::byte& back() const { return data_[size_ - 1]; }

    // Room for `capacity` bytes, exactly; what is there stays.
    void reserve(size_t capacity) {
        if (capacity > capacity_) move_to(capacity);
    }
    void shrink_to_fit() {
        if (size_ < capacity_) move_to(size_);
    }
    void clear() { size_ = 0; }
    void resize(size_t size, std::byte value = {}) {
        const size_t before = size_;
        resize_for_overwrite(size);
        if (size > before) std::memset(data_ + before, int(value), size - before);
    }
    // As resize(), for bytes that are written before they are read: what is new is anything.
    void resize_for_overwrite(size_t size) {
        if (size > capacity_) move_to(std::max(size, grown()));
        size_ = size;
    }

    void push_back(std::byte value) {
        resize_for_overwrite(size_ + 1);
        back() = value;
    }
    void pop_back() { --size_; }
    // `bytes` must not be of this array, here and below.
    void append(ByteView bytes) { insert(end(), bytes); }
    void assign(ByteView bytes) {
        clear();
        append(bytes);
    }
    void assign(size_t size, std::byte value) {
        clear();
        resize(size, value);
    }
    template <std::contiguous_iterator From>
    void assign(From first, From last) {
        assign(ByteView(first, last));
    }
    iterator insert(const_iterator where, ByteView bytes) {
        const size_t at = size_t(where - data_);
        const size_t behind = size_ - at;
        resize_for_overwrite(size_ + bytes.size());
        std::byte* const gap = data_ + at;
        if (behind > 0) std::memmove(gap + bytes.size(), gap, behind);
        if (!bytes.empty()) std::memcpy(gap, bytes.data(), bytes.size());
        return gap;
    }
    template <std::contiguous_iterator From>
    iterator insert(const_iterator where, From first, From last) {
        return insert(where, ByteView(first, last));
    }
    iterator erase(const_iterator first, const_iterator last) {
        std::byte* const at = data_ + (first - data_);
        const size_t behind = size_t(end() - last);
        if (behind > 0) std::memmove(at, last, behind);
        size_ -= size_t(last - first);
        return at;
    }
    void swap(Bytes& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
    }

    friend bool operator==(const Bytes& a, const Bytes& b) {
        return a.size_ == b.size_ && (a.size_ == 0 || std::memcmp(a.data_, b.data_, a.size_) == 0);
    }
    friend auto operator<=>(const Bytes& a, const Bytes& b) {
        return std::lexicographical_compare_three_way(a.begin(), a.end(), b.begin(), b.end());
    }

  private:
    size_t grown() const { return capacity_ < 32 ? 64 : 2 * capacity_; }

    void move_to(size_t capacity) {
        std::byte* const moved = capacity > 0 ? take_memory(capacity) : nullptr;
        if (size_ > 0) std::memcpy(moved, data_, size_);
        if (capacity_ > 0) give_memory(data_, capacity_);
        data_ = moved;
        capacity_ = capacity;
    }

    std::byte* data_ = nullptr;
    size_t size_ = 0;
    size_t capacity_ = 0;
};

static_assert(std::endian::native == std::endian::little,
              "load and store copy bytes as they are: a big-endian host needs a swap here");

template <std::unsigned_integral T>
T load_le(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <std::unsigned_integral T>
void store_le(std::byte* to, T value) {
    std::memcpy(to, &value, sizeof value);
}

inline ByteView as_bytes(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

inline std::string_view as_text(ByteView bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// True when every byte is zero. About 20 GB/s: one memcmp of the range with itself, shifted.
inline bool all_zero(ByteView bytes) {
    if (bytes.empty()) return true;
    return bytes[0] == std::byte{0} &&
           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

}  // namespace herald
