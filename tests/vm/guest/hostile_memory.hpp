// SPDX-License-Identifier: Apache-2.0
// Places for what is handed to the driver: whole ones, ones that end at the end of what is mapped,
// that straddle pages, that are read-only, that are not there, that are the kernel's own. What is
// around them is poisoned. Promise: intact() says whether anything but the place itself was
// written. Callers: one thread for each Arena.
#ifndef HERALD_TESTS_VM_GUEST_HOSTILE_MEMORY_HPP
#define HERALD_TESTS_VM_GUEST_HOSTILE_MEMORY_HPP

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>

#include "cbt_reader.hpp"

using Random = std::mt19937_64;

constexpr std::size_t kPage = 4096;
constexpr std::uint8_t kPoison = 0xa5;

inline bool one_in(Random& random, unsigned count) { return random() % count == 0; }

struct Place {
    std::uint8_t* at = nullptr;
    // Of all of it.
    bool readable = true;
    bool writable = true;
};

class Arena {
  public:
    // For objects of up to `pages` pages.
    explicit Arena(std::size_t pages) : bytes_(2 * pages * kPage) {
        // [gap][bytes_ read-write][gap][bytes_ read-only][gap]
        auto* area = static_cast<std::uint8_t*>(
            mmap(nullptr, 2 * bytes_ + 3 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (area == MAP_FAILED) fail("no memory: %s", std::strerror(errno));
        whole_ = area + kPage;
        constant_ = whole_ + bytes_ + kPage;
        if (mprotect(whole_, bytes_, PROT_READ | PROT_WRITE) != 0 ||
            mprotect(constant_, bytes_, PROT_READ | PROT_WRITE) != 0)
            fail("mprotect: %s", std::strerror(errno));
    }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // Where an object of that many bytes with this content lies; mostly somewhere good.
    Place put(Random& random, const void* content, std::size_t bytes, bool odd) {
        std::memset(whole_, kPoison, bytes_);
        const std::size_t room = bytes_ - bytes;
        at_ = random() % (room + 1);
        held_ = bytes;
        Place place;
        if (one_in(random, 4))
            at_ = room;  // up to the end of what is mapped
        else if (one_in(random, 4))
            at_ &= ~std::size_t{7};
        place.at = whole_ + at_;
        switch (odd ? random() % 8 : 8) {
            case 0:  // runs out of what is mapped
                if (bytes < 2) break;
                at_ = room;
                held_ = 1 + random() % (bytes - 1);
                at_ = bytes_ - held_;
                place = {whole_ + at_, false, false};
                std::memcpy(place.at, content, held_);
                return place;
            case 1:
                mprotect(constant_, bytes_, PROT_READ | PROT_WRITE);
                std::memcpy(constant_ + room, content, bytes);
                mprotect(constant_, bytes_, PROT_READ);
                at_ = held_ = 0;
                return {constant_ + room, true, false};
            case 2:
                at_ = held_ = 0;
                return nowhere(random);
            default:
                break;
        }
        std::memcpy(place.at, content, bytes);
        return place;
    }

    // All around the object is as it was.
    [[nodiscard]] bool intact() const {
        return is_poison(whole_, at_) && is_poison(whole_ + at_ + held_, bytes_ - at_ - held_);
    }

    static bool is_poison(const std::uint8_t* from, std::size_t bytes) {
        return std::all_of(from, from + bytes, [](std::uint8_t byte) { return byte == kPoison; });
    }

  private:
    Place nowhere(Random& random) const {
        constexpr std::uint64_t kNowhere[] = {0,
                                              1,
                                              0x00007ffffffff000u,
                                              0x0000800000000000u,
                                              0xffff888000000000u,
                                              0xffffffff81000000u,
                                              0xfffffffffffff000u,
                                              0xffffffffffffffffu};
        std::uint64_t address = kNowhere[random() % std::size(kNowhere)];
        if (one_in(random, 3)) address = reinterpret_cast<std::uint64_t>(whole_ - kPage / 2);
        Place place{nullptr, false, false};
        std::memcpy(&place.at, &address, sizeof(address));
        return place;
    }

    std::size_t bytes_;
    std::uint8_t* whole_ = nullptr;
    std::uint8_t* constant_ = nullptr;
    std::size_t at_ = 0;
    std::size_t held_ = 0;
};

// An address of the kernel's, as memory of it that leaked would show first.
inline bool is_kernel_address(std::uint64_t word) {
    return word >= 0xffff800000000000u && word != ~std::uint64_t{0};
}

#endif
