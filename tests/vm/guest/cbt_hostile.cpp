// SPDX-License-Identifier: Apache-2.0
// cbt_hostile SEED CALLS EACH SECONDS PROCESSES NODE: ioctls and mappings of the driver, valid ones
// and others, by several processes and threads over the same disks; see hostile_caller.hpp and
// hostile_maps.hpp for what is a finding. NODE is a disk to read from, tracked or not.
//
// Ends once CALLS were made and each ioctl succeeded EACH times, with counts of both; with status 1
// at the first finding, and when that does not come to be within SECONDS.
//
// cbt_hostile dirty MIB: fills so much memory with a pattern, and gives it back.
// cbt_hostile fresh NODE: whether the pages of a disk that nothing was written to are all zero but
// for what the interface defines.
#include <linux/capability.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <chrono>
#include <cinttypes>
#include <memory>
#include <string>
#include <thread>

#include "hostile_caller.hpp"
#include "hostile_maps.hpp"

namespace {

using std::chrono::steady_clock;

constexpr unsigned kThreads = 2;
constexpr std::size_t kSharedFiles = 2;
constexpr std::size_t kOwnFiles = 3;

// Some of the paths take a certain state of a disk to come about.
constexpr std::uint64_t kPathEach = 5;

struct Settings {
    std::uint64_t seed = 0, calls = 0, each = 0, seconds = 0, processes = 0;
    const char* node = nullptr;
};

bool is_landed(const Storm& storm, unsigned number, std::uint64_t each) {
    // Of these an answer says whether it did anything.
    const auto at_least = [&](Path path) { return storm.paths[path] >= each; };
    switch (number) {
        case kTag:
            return at_least(kTagLanded);
        case kHold:
            return at_least(kHoldLanded) && at_least(kHoldReleased);
        case kCookie:
            return at_least(kCookieRead) && at_least(kCookieWritten);
        case kMap:
            return at_least(kMapCopied);
        default:
            return storm.calls[number].succeeded >= each;
    }
}

bool is_complete(const Storm& storm, const Settings& settings) {
    for (unsigned number = 0; number < kCalls; ++number)
        if (storm.calls[number].succeeded < settings.each ||
            !is_landed(storm, number, settings.each))
            return false;
    for (unsigned path = 0; path < kPaths; ++path)
        if (storm.paths[path] < std::min(kPathEach, settings.each)) return false;
    return storm.total >= settings.calls;
}

void drop_capability() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
    if (syscall(SYS_capget, &header, data) != 0) fail("capget: %s", std::strerror(errno));
    for (__user_cap_data_struct& half : data) half.inheritable = 0;
    data[0].effective &= ~(1u << CAP_SYS_ADMIN);
    data[0].permitted &= ~(1u << CAP_SYS_ADMIN);
    if (syscall(SYS_capset, &header, data) != 0) fail("capset: %s", std::strerror(errno));
}

class Worker {
  public:
    Worker(Storm& storm, const Settings& settings, std::array<File, kSharedFiles>& shared,
           bool capable)
        : storm_(storm),
          settings_(settings),
          shared_(shared),
          capable_(capable),
          maps_(storm, settings.node) {}

    void run(std::uint64_t seed) {
        Caller caller(storm_, seed);
        Random& random = caller.random();
        for (std::uint64_t step = 0; !storm_.stop; ++step) {
            if (step % 32 == 0) caller.refresh(shared_[0].number);
            const unsigned number = a_call(random);
            if (is_readers(number) && one_in(random, 2)) {
                read_on(caller);
                continue;
            }
            File& file = pick(caller, is_readers(number) || number == kCookie);
            if (one_in(random, 16)) {
                maps_.one(random, pick(caller, true));
                continue;
            }
            if (one_in(random, 8)) poll_once(pick(caller, true));
            // Never closed: what the first of these owns, nobody else will.
            if (number == kOwn && file.is_shared &&
                (&file != shared_.data() || !one_in(random, 300)))
                continue;
            caller.one(file, number);
            // A hold ends by its file only, and before its deadline.
            if (number == kHold && one_in(random, 2)) caller.one(file, kHold);
            if (!file.is_shared && one_in(random, 16)) shut(file);
        }
    }

  private:
    static bool is_readers(unsigned number) {
        return number == kRelease || number == kAck || number == kSeal;
    }

    // As a true reader does: what is sealed goes only when its owner has stored and scanned it and
    // the disk was flushed, and until then every SEAL answers EAGAIN.
    void read_on(Caller& caller) {
        File* file = owner(caller.random());
        if (file == nullptr) {
            pick(caller, true);
            return;
        }
        poll_once(*file);
        caller.one(*file, kRelease);
        caller.one(*file, kAck);
        for (int tries = 0; tries < 3 && !storm_.stop; ++tries) {
            const std::uint64_t before = storm_.calls[kSeal].succeeded;
            caller.one(*file, kSeal);
            if (storm_.calls[kSeal].succeeded != before) return;
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }

    // A file with a disk, as far as is known. Null: there is none.
    File* owner(Random& random) {
        for (File& file : own_) {
            if (file.gone && one_in(random, 4)) shut(file);
            if (file.disk != 0 && !file.gone && one_in(random, 2)) return &file;
        }
        return shared_[0].disk != 0 && !shared_[0].gone ? shared_.data() : nullptr;
    }

    // Those which have not succeeded often enough come more often, in the end.
    unsigned a_call(Random& random) const {
        const auto number = static_cast<unsigned>(random() % kCalls);
        if (storm_.total < settings_.calls / 2 || one_in(random, 3)) return number;
        for (unsigned other = 0; other < kCalls; ++other) {
            const unsigned next = (number + other) % kCalls;
            if (!is_landed(storm_, next, settings_.each)) return next;
        }
        return number;
    }

    // An open one; with a disk, if that is wanted and there is one.
    File& pick(Caller& caller, bool wants_owner) {
        Random& random = caller.random();
        if (wants_owner && !one_in(random, 8))
            if (File* file = owner(random); file != nullptr) return *file;
        const std::size_t index = random() % (kSharedFiles + (capable_ ? 3 * kOwnFiles : 0));
        if (index < kSharedFiles) return shared_[index];
        File& file = own_[index % kOwnFiles];
        if (file.number >= 0) return file;
        const int number =
            open("/dev/" HERALD_CBT_DEVICE, (one_in(random, 2) ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (number < 0) finding(storm_, "open: %s", std::strerror(errno));
        int none = -1;
        if (!file.number.compare_exchange_strong(none, number)) {
            close(number);
            return file;
        }
        for (int tries = 0; tries < 3 && file.disk == 0 && !one_in(random, 8); ++tries)
            caller.one(file, kOwn);
        return file;
    }

    static void shut(File& file) {
        file.disk = 0;
        file.gone = false;
        if (const int open = file.number.exchange(-1); open >= 0) close(open);
    }

    void poll_once(File& file) {
        pollfd one{file.number, POLLIN | POLLPRI, 0};
        if (poll(&one, 1, 0) != 1) return;
        if ((one.revents & POLLHUP) != 0) {
            ++storm_.paths[kPolledGone];
            file.gone = true;
        } else if ((one.revents & (POLLIN | POLLPRI)) != 0) {
            ++storm_.paths[kPolledReady];
        }
    }

    Storm& storm_;
    const Settings& settings_;
    std::array<File, kSharedFiles>& shared_;
    bool capable_;
    Maps maps_;
    std::array<File, kOwnFiles> own_;
};

// One of several. Without the capability: no file of its own, those of its parent serve it.
[[noreturn]] void work(Storm& storm, const Settings& settings,
                       std::array<File, kSharedFiles>& shared, std::uint64_t process) {
    const bool capable = process != 0;
    // Some paths wait for what is done to the tables, which would hardly get a processor.
    if (setpriority(PRIO_PROCESS, 0, 5) != 0) fail("setpriority: %s", std::strerror(errno));
    if (!capable) drop_capability();
    Worker worker(storm, settings, shared, capable);
    std::vector<std::thread> threads;
    for (std::uint64_t thread = 0; thread < kThreads; ++thread)
        threads.emplace_back(
            [&, thread] { worker.run(settings.seed * 1000 + process * kThreads + thread); });
    while (!capable && !storm.stop) {
        const int number = open("/dev/" HERALD_CBT_DEVICE, O_RDWR | O_CLOEXEC);
        if (number >= 0 || errno != EPERM)
            finding(storm, "opened without CAP_SYS_ADMIN: %d, %d", number, errno);
        ++storm.without_capability;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    for (std::thread& thread : threads) thread.join();
    _exit(0);
}

void report(const Storm& storm, std::uint64_t each) {
    for (unsigned number = 0; number < kCalls; ++number) {
        const Storm::Count& count = storm.calls[number];
        std::printf("%-8s tried %" PRIu64 " spoiled %" PRIu64 " succeeded %" PRIu64 "%s;",
                    hostile::make_calls()[number].name, count.tried.load(), count.spoiled.load(),
                    count.succeeded.load(), is_landed(storm, number, each) ? "" : " TOO FEW");
        for (std::size_t error = 0; error < kErrors; ++error)
            if (count.errors[error] != 0)
                std::printf(" %s %" PRIu64, strerrorname_np(static_cast<int>(error)),
                            count.errors[error].load());
        std::printf("\n");
    }
    for (unsigned path = 0; path < kPaths; ++path)
        std::printf("%s %" PRIu64 "%s%s", kPathNames[path], storm.paths[path].load(),
                    storm.paths[path] < std::min(kPathEach, each) ? " TOO FEW" : "",
                    path + 1 < kPaths ? ", " : "\n");
    std::printf("calls %" PRIu64 ", maps %" PRIu64 " (refused %" PRIu64 "), opens refused %" PRIu64
                "\n",
                storm.total.load(), storm.maps.load(), storm.refused_maps.load(),
                storm.without_capability.load());
}

int storm_over(const Settings& settings) {
    // Zeroes, and never unmapped.
    auto* storm = static_cast<Storm*>(
        mmap(nullptr, sizeof(Storm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    auto* shared = static_cast<std::array<File, kSharedFiles>*>(
        mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    if (storm == MAP_FAILED || shared == MAP_FAILED) fail("no memory");
    for (File& file : *shared) {
        file.number = open_driver();
        file.is_shared = true;
    }
    std::vector<pid_t> children;
    for (std::uint64_t process = 0; process < settings.processes; ++process) {
        const pid_t child = fork();
        if (child < 0) fail("fork: %s", std::strerror(errno));
        if (child == 0) work(*storm, settings, *shared, process);
        children.push_back(child);
    }
    const auto end = steady_clock::now() + std::chrono::seconds(settings.seconds);
    while (!storm->stop && !is_complete(*storm, settings) && steady_clock::now() < end)
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const bool complete = is_complete(*storm, settings);
    storm->stop = true;
    bool good = true;
    for (const pid_t child : children) {
        int status = 0;
        if (waitpid(child, &status, 0) != child || status != 0) {
            std::printf("a process ended with status %x\n", static_cast<unsigned>(status));
            good = false;
        }
    }
    report(*storm, settings.each);
    if (!complete) std::printf("not complete within %" PRIu64 " s\n", settings.seconds);
    return complete && good && !storm->failed ? 0 : 1;
}

int dirty_memory(std::size_t bytes) {
    void* area = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) fail("mmap: %s", std::strerror(errno));
    std::memset(area, kPoison, bytes);
    return 0;
}

int look_at_fresh(const char* node) {
    Storm storm{};
    herald_cbt_own_abi own{};
    own.disk = disk_of(node);
    const int file = open_driver();
    if (call(file, HERALD_CBT_OWN, own) != 0) fail("own %s: %s", node, std::strerror(errno));
    const Sight sight = look(storm, file);
    if (!sight.is_owner || sight.header.head > own.slots) fail("%s: not a disk of its own", node);
    const auto area = [&](std::uint64_t offset, std::uint64_t bytes) {
        void* at = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, static_cast<off_t>(offset));
        if (at == MAP_FAILED) fail("mmap: %s", std::strerror(errno));
        return static_cast<const std::uint8_t*>(at);
    };
    const std::uint64_t used = sight.header.head * sizeof(herald_cbt_slot_abi);
    const std::uint64_t all = own.slots * sizeof(herald_cbt_slot_abi);
    if (!hostile::is_all_zero(area(HERALD_CBT_MMAP_SLOTS, all) + used, all - used))
        finding(storm, "a slot that was never used is not all zero");
    if (own.payload_bytes != 0 &&
        !hostile::is_all_zero(area(HERALD_CBT_MMAP_PAYLOAD, own.payload_bytes), own.payload_bytes))
        finding(storm, "payload that was never written is not all zero");
    std::printf("fresh: %" PRIu64 " slots, %" PRIu64 " bytes of payload: zeroes\n",
                std::uint64_t{own.slots}, std::uint64_t{own.payload_bytes});
    close(file);
    return 0;
}

}  // namespace

int main(int count, char** words) {
    if (count == 3 && std::string(words[1]) == "fresh") return look_at_fresh(words[2]);
    if (count == 3 && std::string(words[1]) == "dirty")
        return dirty_memory(std::strtoull(words[2], nullptr, 10) << 20);
    if (count != 7)
        fail("usage: cbt_hostile SEED CALLS EACH SECONDS PROCESSES NODE | fresh NODE | dirty MIB");
    Settings settings;
    std::uint64_t* numbers[] = {&settings.seed, &settings.calls, &settings.each, &settings.seconds,
                                &settings.processes};
    for (int index = 0; index < 5; ++index)
        *numbers[index] = std::strtoull(words[index + 1], nullptr, 10);
    settings.node = words[6];
    return storm_over(settings);
}
