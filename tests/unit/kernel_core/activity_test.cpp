// SPDX-License-Identifier: Apache-2.0
// The set of hot regions: its bounds, and a model of the meta device that is cut at every step.
// Each wrong order of the durable steps must turn the model's invariant red.
#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "core.hpp"
#include "tests/catch.hpp"

namespace {

enum class Order {
    kRight,
    kWriteBeforeLog,       // the write is submitted while its region is not in a durable block
    kDropBeforeBitmap,     // a region leaves the log while its bitmap block is not durable
    kDurableBeforeLanded,  // the block is called durable when it was only submitted
};

// Invariant: whatever of the blocks being written has landed, the region of every write that was
// submitted is in the log or its bit is in the bitmap. (Nothing is ever acknowledged here: no bit
// goes.)
class Model {
  public:
    Model(Order order, unsigned seed)
        : order_(order), random_(seed), set_(std::make_unique<cbt_activity>()) {
        cbt_activity_init(set_.get(), kCapacity);
    }

    bool run(int steps) {
        for (int i = 0; i < steps; i++) {
            step();
            if (!covered()) return false;
        }
        return true;
    }
    int submitted() const { return submitted_; }
    int dropped() const { return dropped_; }
    int rescued() const { return rescued_; }
    int between() const { return between_; }

  private:
    static constexpr u32 kCapacity = 4, kRegions = 12;
    struct Write {
        u32 first, count;
    };

    void submit(Write write) {
        for (u32 i = 0; i < write.count; i++) {
            memory_.insert(write.first + i);
            touched_.insert(write.first + i);
        }
        flying_.push_back(write);
        submitted_++;
    }

    void step() {
        switch (random_() % 6) {
            case 0:
            case 1: {
                u32 count = 1 + static_cast<u32>(random_()) % 2;
                enter({static_cast<u32>(random_()) % (kRegions - count + 1), count});
                break;
            }
            case 2:
                if (!flying_.empty()) {
                    size_t which = random_() % flying_.size();
                    cbt_activity_leave(set_.get(), flying_[which].first, flying_[which].count);
                    flying_.erase(flying_.begin() + static_cast<std::ptrdiff_t>(which));
                }
                break;
            case 3:
                if (phase_ == 0) {
                    u32 chosen[kCapacity];
                    u32 count = 0;
                    if (set_->used == kCapacity || random_() % 3 == 0)
                        count = cbt_activity_retire(set_.get(), 1 + static_cast<u32>(random_()) % 2,
                                                    chosen);
                    chosen_.assign(chosen, chosen + count);
                    if (!cbt_activity_is_due(set_.get())) break;
                    phase_ = 1;
                    // What the bitmap blocks say is taken now.
                    bitmap_writing_ = bitmap_;
                    for (u32 region : chosen_)
                        if (memory_.contains(region)) bitmap_writing_.insert(region);
                    if (order_ == Order::kDropBeforeBitmap) bitmap_writing_ = bitmap_;
                }
                break;
            case 4:
                advance();
                break;
            default: {
                std::vector<Write> waiting;
                waiting.swap(parked_);
                for (Write write : waiting) enter(write);
            }
        }
    }

    void enter(Write write) {
        u32 retiring = set_->retiring;
        auto answer = cbt_activity_enter(set_.get(), write.first, write.count);
        rescued_ += set_->retiring < retiring;
        if (answer == CBT_ACTIVITY_ENTERED ||
            (order_ == Order::kWriteBeforeLog && answer == CBT_ACTIVITY_WAIT))
            submit(write);
        else if (parked_.size() < 8)
            parked_.push_back(write);
    }

    void advance() {
        u32 numbers[CBT_ACTIVITY_REGIONS_MAX];
        if (phase_ == 1 && set_->added != 0 && random_() % 2 == 0) {
            // What is added does not wait for the bitmap blocks.
            u32 count =
                cbt_activity_compose(set_.get(), order_ == Order::kDropBeforeBitmap, numbers);
            log_writing_ = std::set<u32>(numbers, numbers + count);
            phase_ = 3;
        } else if (phase_ == 3) {
            log_ = log_writing_;
            cbt_activity_durable(set_.get());
            between_++;
            phase_ = 1;
        } else if (phase_ == 1) {
            bitmap_ = bitmap_writing_;
            u32 used = set_->used;
            u32 count = cbt_activity_compose(set_.get(), true, numbers);
            dropped_ += used > count;
            log_writing_ = std::set<u32>(numbers, numbers + count);
            phase_ = 2;
            if (order_ == Order::kDurableBeforeLanded) cbt_activity_durable(set_.get());
        } else if (phase_ == 2) {
            log_ = log_writing_;
            if (order_ != Order::kDurableBeforeLanded) cbt_activity_durable(set_.get());
            phase_ = 0;
        }
    }

    bool covered() const {
        return std::all_of(touched_.begin(), touched_.end(), [&](u32 region) {
            bool in_log = log_.contains(region) && (phase_ < 2 || log_writing_.contains(region));
            return in_log || bitmap_.contains(region);
        });
    }

    Order order_;
    std::mt19937 random_;
    std::unique_ptr<cbt_activity> set_;
    std::set<u32> memory_, touched_, bitmap_, bitmap_writing_, log_, log_writing_;
    std::vector<Write> flying_, parked_;
    std::vector<u32> chosen_;
    int phase_ = 0;
    int submitted_ = 0, dropped_ = 0, rescued_ = 0, between_ = 0;
};

int failures(Order order) {
    int count = 0;
    for (unsigned seed = 0; seed < 50; seed++) count += !Model(order, seed).run(400);
    return count;
}

}  // namespace

TEST_CASE("cut at any step, every submitted write is in the log or in the bitmap") {
    int submitted = 0, dropped = 0, rescued = 0, between = 0;
    for (unsigned seed = 0; seed < 300; seed++) {
        Model model(Order::kRight, seed);
        REQUIRE(model.run(1000));
        submitted += model.submitted();
        dropped += model.dropped();
        rescued += model.rescued();
        between += model.between();
    }
    CHECK(submitted > 10000);
    CHECK(dropped > 1000);
    CHECK(rescued > 100);
    CHECK(between > 1000);
}

TEST_CASE("each wrong order of the durable steps is noticed") {
    CHECK(failures(Order::kWriteBeforeLog) > 40);
    CHECK(failures(Order::kDropBeforeBitmap) > 40);
    CHECK(failures(Order::kDurableBeforeLanded) > 40);
}

TEST_CASE("a full set answers so, and retires what was unused longest") {
    auto set = std::make_unique<cbt_activity>();
    cbt_activity_init(set.get(), CBT_ACTIVITY_REGIONS_MAX + 5);
    u32 numbers[CBT_ACTIVITY_REGIONS_MAX];
    for (u32 i = 0; i < CBT_ACTIVITY_REGIONS_MAX; i++)
        REQUIRE(cbt_activity_enter(set.get(), i * 7, 1) == CBT_ACTIVITY_WAIT);
    CHECK(cbt_activity_enter(set.get(), 1, 1) == CBT_ACTIVITY_FULL);
    CHECK(cbt_activity_compose(set.get(), true, numbers) == CBT_ACTIVITY_REGIONS_MAX);
    CHECK(cbt_activity_enter(set.get(), 7, 1) == CBT_ACTIVITY_WAIT);
    cbt_activity_durable(set.get());
    CHECK_FALSE(cbt_activity_is_due(set.get()));
    for (u32 i = 0; i < CBT_ACTIVITY_REGIONS_MAX; i++) {
        REQUIRE(cbt_activity_enter(set.get(), i * 7, 1) == CBT_ACTIVITY_ENTERED);
        if (i != 3) cbt_activity_leave(set.get(), i * 7, 1);
    }
    u32 chosen[4];
    REQUIRE(cbt_activity_retire(set.get(), 4, chosen) == 4);
    std::sort(chosen, chosen + 4);
    CHECK((chosen[0] == 0 && chosen[1] == 7 && chosen[2] == 14 && chosen[3] == 28));
    CHECK(cbt_activity_enter(set.get(), 14, 1) == CBT_ACTIVITY_ENTERED);
    CHECK(cbt_activity_compose(set.get(), true, numbers) == CBT_ACTIVITY_REGIONS_MAX - 3);
    CHECK(cbt_activity_enter(set.get(), 7, 1) == CBT_ACTIVITY_WAIT);
    cbt_activity_durable(set.get());
    CHECK_FALSE(cbt_activity_has(set.get(), 0));
    CHECK(cbt_activity_has(set.get(), 7));
    CHECK(set->added == 1);
    CHECK(set->used == CBT_ACTIVITY_REGIONS_MAX - 2);
}
