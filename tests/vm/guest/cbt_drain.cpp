// SPDX-License-Identifier: Apache-2.0
// cbt_drain NODE READY: owns the disk, takes its slots and looks at nothing but their states: the
// least that a reader can cost. Makes the file READY once the disk's mode is as high as its rings
// allow.
#include "cbt_reader.hpp"

int main(int count, char** words) {
    if (count != 3) fail("usage: cbt_drain NODE READY");
    Reader reader(words[1]);
    bool said = false;
    for (;;) {
        const auto some =
            reader.drain([](const herald_cbt_slot_abi&, std::uint64_t, const std::uint8_t*) {});
        if (some != 0) {
            reader.release();
            reader.acknowledge();
        }
        if (!said && reader.header().mode != HERALD_CBT_MODE_MAP) {
            const int file = open(words[2], O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
            if (file < 0) fail("%s: %s", words[2], std::strerror(errno));
            close(file);
            said = true;
        }
        reader.wait(1000);
    }
}
