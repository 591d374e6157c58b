# SPDX-License-Identifier: Apache-2.0
"""A disk with a volatile write cache that a power cut empties: an NBD server for QEMU.

Promise: what was flushed, or written with FUA, survives cut(); each other write since is kept,
dropped or torn at a sector, independently and by the seed. A reset of a machine alone shows none of
that: the host's page cache keeps everything.
Protocol: fixed newstyle handshake, simple replies (the NBD project's doc/proto.md).
Callers: the test's thread; one thread of its own for each connection of QEMU's.
Owns: the image and the socket. The cache is bounded: beyond CACHE_BYTES_MAX the oldest writes are
destaged, as a real one does.
"""
import collections
import mmap
import pathlib
import random
import socket
import struct
import threading

SECTOR = 512
CACHE_BYTES_MAX = 64 << 20
MAGIC, OPTION_MAGIC, REPLY_MAGIC = 0x4e42444d41474943, 0x49484156454F5054, 0x3e889045565a9
REQUEST_MAGIC, ANSWER_MAGIC = 0x25609513, 0x67446698
OPT_EXPORT_NAME, OPT_ABORT, OPT_INFO, OPT_GO = 1, 2, 6, 7
REP_ACK, REP_INFO, REP_UNSUPPORTED = 1, 3, (1 << 31) + 1
CMD_READ, CMD_WRITE, CMD_DISCONNECT, CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES = 0, 1, 2, 3, 4, 6
FLAG_FUA = 1
# Has flags, flush, FUA, trim, write zeroes; several connections see one cache.
EXPORT_FLAGS = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8


class LossyDisk:
    def __init__(self, folder: pathlib.Path, name: str, size_mib: int, seed: int):
        self.bytes = size_mib << 20
        self.random = random.Random(seed)
        self.socket = folder / f"{name}.nbd"
        self.seen, self.durable = self._map(folder / f"{name}.seen"), self._map(folder / f"{name}.durable")
        # Since the last flush, oldest first: offset, content, whether it was forced (FUA).
        self.cache: collections.deque[tuple[int, bytes, bool]] = collections.deque()
        self.cache_bytes = 0
        self.lock = threading.Lock()
        self.outcomes = collections.Counter()
        self.connections: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _map(self, path: pathlib.Path) -> mmap.mmap:
        with open(path, "w+b") as file:
            file.truncate(self.bytes)
            return mmap.mmap(file.fileno(), self.bytes)

    # -- what the test does --
    def cut(self) -> collections.Counter:
        """The machine is off: what becomes of each write that was not flushed. Its next boot sees that."""
        with self.lock:
            outcomes = collections.Counter()
            unsure = [(offset, len(content)) for offset, content, _ in self.cache]
            for offset, content, forced in self.cache:
                fate = "kept" if forced else self.random.choice(("kept", "dropped", "torn"))
                outcomes["forced" if forced else fate] += 1
                if fate == "torn":
                    # Sectors are whole, in any selection of them.
                    for at in range(0, len(content), SECTOR):
                        if self.random.random() < 0.5:
                            self.durable[offset + at:offset + at + SECTOR] = content[at:at + SECTOR]
                elif fate == "kept":
                    self.durable[offset:offset + len(content)] = content
            self.cache.clear()
            self.cache_bytes = 0
            for offset, length in unsure:
                self.seen[offset:offset + length] = self.durable[offset:offset + length]
            self.outcomes = outcomes
            return outcomes

    def close(self) -> None:
        for stream in [self.listener, *self.connections]:
            # Wakes the thread that waits on it; closing alone does not.
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            stream.close()

    # -- the cache --
    def _write(self, offset: int, content: bytes, forced: bool) -> None:
        self.seen[offset:offset + len(content)] = content
        # In the order of the cache, so that what an older write of the same place becomes is
        # decided before it.
        self.cache.append((offset, content, forced))
        self.cache_bytes += len(content)
        while self.cache_bytes > CACHE_BYTES_MAX:
            self._destage()

    def _destage(self) -> None:
        offset, content, _ = self.cache.popleft()
        self.durable[offset:offset + len(content)] = content
        self.cache_bytes -= len(content)

    def _flush(self) -> None:
        while self.cache:
            self._destage()

    # -- the protocol --
    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            self.connections = [other for other in self.connections if other.fileno() >= 0] + [stream]
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        try:
            if self._agree(stream):
                while self._request(stream):
                    pass
        except (OSError, EOFError):
            pass  # QEMU was killed
        finally:
            stream.close()

    @staticmethod
    def _receive(stream: socket.socket, count: int) -> bytes:
        parts = []
        while count:
            part = stream.recv(count)
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _agree(self, stream: socket.socket) -> bool:
        # Fixed newstyle, no zero padding.
        stream.sendall(struct.pack(">QQH", MAGIC, OPTION_MAGIC, 1 | 2))
        self._receive(stream, 4)
        while True:
            _, option, length = struct.unpack(">QII", self._receive(stream, 16))
            self._receive(stream, length)
            if option == OPT_EXPORT_NAME:
                stream.sendall(struct.pack(">QH", self.bytes, EXPORT_FLAGS))
                return True
            if option in (OPT_GO, OPT_INFO):
                info = struct.pack(">HQH", 0, self.bytes, EXPORT_FLAGS)
                stream.sendall(struct.pack(">QIII", REPLY_MAGIC, option, REP_INFO, len(info)) + info)
                stream.sendall(struct.pack(">QIII", REPLY_MAGIC, option, REP_ACK, 0))
                if option == OPT_GO:
                    return True
            elif option == OPT_ABORT:
                stream.sendall(struct.pack(">QIII", REPLY_MAGIC, option, REP_ACK, 0))
                return False
            else:
                stream.sendall(struct.pack(">QIII", REPLY_MAGIC, option, REP_UNSUPPORTED, 0))

    def _request(self, stream: socket.socket) -> bool:
        magic, flags, command, handle, offset, length = struct.unpack(">IHHQQI", self._receive(stream, 28))
        if magic != REQUEST_MAGIC or command == CMD_DISCONNECT:
            return False
        content = self._receive(stream, length) if command == CMD_WRITE else b""
        answer = b""
        error = 0
        with self.lock:
            if command != CMD_FLUSH and offset + length > self.bytes:
                error = 22
            elif command == CMD_READ:
                answer = self.seen[offset:offset + length]
            elif command == CMD_WRITE:
                self._write(offset, content, bool(flags & FLAG_FUA))
            elif command in (CMD_TRIM, CMD_WRITE_ZEROES):
                self._write(offset, bytes(length), bool(flags & FLAG_FUA))
            elif command == CMD_FLUSH:
                self._flush()
            else:
                error = 22
        stream.sendall(struct.pack(">IIQ", ANSWER_MAGIC, error, handle) + answer)
        return True
