#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads .hrl journals (version 3) without any of Herald's programs. See --help."""
import argparse
import json
import os
import sys

from journal import BlockDamaged, Journal, Refused
from key_files import KeyTrouble, read_machine_key, read_root_key, read_secret
from layout import KIND_NAMES, text_of_id
from sealing import NoCryptography
from xxh3 import xxh3_64

EXAMPLES = """examples:
  hrl_reader.py info 000001.hrl
  hrl_reader.py records 000001.hrl --json
  hrl_reader.py verify --root-key root.key --machine-key machine.key *.hrl

exit status:
  0  whole and valid   1  torn: the records before the tear were printed
  2  damaged or refused   3  could not be read, or wrong use
"""


def record_fields(record):
    fields = {"kind": KIND_NAMES[record.kind], "position": record.position,
              "offset": record.offset, "length": record.length, "time_ns": record.time_ns}
    if record.kind == 1:
        fields["data_xxh3"] = None if record.data is None else f"{xxh3_64(record.data):016x}"
    if record.fields:
        fields["payload"] = record.fields
    return fields


def header_fields(header):
    return {
        "version": 3, "contents": ["segment", "delta layer", "image layer"][header.contents],
        "record_order": ["", "position", "block"][header.record_order],
        "sealed_by": ["nobody", "server", "source"][header.sealed_by],
        "machine": text_of_id(header.machine), "disk": text_of_id(header.disk),
        "segment": text_of_id(header.segment),
        "previous_segment": text_of_id(header.previous_segment), "epoch": header.epoch,
        "first_position": header.first_position, "disk_bytes": header.disk_bytes,
        "features_optional": header.features_optional,
        "created_ns": header.created_ns, "block_bytes": header.block_bytes,
        "granule_log2": header.granule_log2, "key_id": text_of_id(header.key_id)}


def show(fields, as_json):
    if as_json:
        print(json.dumps(fields))
    else:
        print("  ".join(f"{name}={value}" for name, value in fields.items()))


def read(path, options, keys):
    """Prints what was asked for; the exit status."""
    try:
        with Journal(path, keys, options.blind, options.sealed_only) as journal:
            if options.verb == "info":
                fields = header_fields(journal.header)
                fields["whole"] = journal.whole
                fields["sections"] = [[kind, len(data)] for kind, data in journal.sections]
                show(fields, options.json)
                return 0 if journal.whole else 1
            count = 0
            for record in journal.records():
                count += 1
                if options.verb == "records":
                    show(record_fields(record), options.json)
            loss = journal.loss()
            if loss:
                print(f"{path}: torn: {count} records to position {loss.last_position}; lost "
                      f"from byte {loss.byte} on ({loss.why})", file=sys.stderr)
                return 1
            if options.verb == "verify":
                print(f"{path}: whole, {count} records")
            return 0
    except (Refused, BlockDamaged) as refusal:
        print(f"{path}: {refusal}", file=sys.stderr)
        return 2
    except (OSError, NoCryptography) as trouble:
        print(f"{path}: {trouble}", file=sys.stderr)
        return 3


def main():
    parser = argparse.ArgumentParser(
        description="Reads .hrl journals by docs/formats/hrl.md.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["info", "records", "verify"])
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--root-key", metavar="FILE", help="root key file (docs/formats/keys.md)")
    parser.add_argument("--machine-key", metavar="FILE", help="machine key file")
    parser.add_argument("--passphrase-file", metavar="FILE", help="its first line is the passphrase of the root key")
    parser.add_argument("--blind", action="store_true",
                        help="read sealed files without a key: all but the data")
    parser.add_argument("--sealed-only", action="store_true", help="refuse files that are not sealed")
    options = parser.parse_args()
    keys = {}
    try:
        if bool(options.root_key) != bool(options.machine_key):
            parser.error("--root-key and --machine-key go together")
        if options.root_key:
            passphrase = None
            if options.passphrase_file:
                passphrase = read_secret(options.passphrase_file)
            machine, key_id, key = read_machine_key(
                options.machine_key, read_root_key(options.root_key, passphrase))
            keys[machine, key_id] = key
    except (KeyTrouble, NoCryptography, OSError) as trouble:
        print(f"hrl_reader.py: {trouble}", file=sys.stderr)
        return 3
    try:
        return max(read(path, options, keys) for path in options.files)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 3


if __name__ == "__main__":
    sys.exit(main())
