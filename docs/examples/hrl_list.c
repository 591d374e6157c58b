/* SPDX-License-Identifier: Apache-2.0 */
/* Lists the records of a journal. Build: cc hrl_list.c $(pkg-config --cflags --libs herald-hrl) */
#include <herald/hrl.h>
#include <inttypes.h>
#include <stdio.h>

int main(int argc, char** argv) {
    struct herald_hrl_options options = {.size = sizeof options, .without_key = 1, .logs = 1};
    struct herald_hrl_record record = {.size = sizeof record};
    herald_hrl_reader* reader = NULL;
    int status;

    if (argc != 2) {
        fprintf(stderr, "usage: hrl_list FILE\n");
        return 2;
    }
    status = herald_hrl_open(argv[1], &options, &reader);
    while (status >= 0 && (status = herald_hrl_next(reader, &record)) == HERALD_HRL_RECORD) {
        printf("%" PRIu64 " kind %u offset %" PRIu64 " length %" PRIu64 "\n", record.position,
               record.kind, record.offset, record.length);
    }
    if (status < 0) fprintf(stderr, "%s\n", herald_hrl_error(reader));
    if (status == HERALD_HRL_OK && *herald_hrl_loss(reader)) {
        fprintf(stderr, "%s\n", herald_hrl_loss(reader));
        status = HERALD_HRL_DAMAGED;
    }
    herald_hrl_close(reader);
    return status < 0;
}
