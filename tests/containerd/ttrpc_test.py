#!/usr/bin/env python3
"""The shim of our own, asked in containerd's protocol as containerd asks when its clients give up."""
import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

from harness import BUSYBOX, RUNTIME, SHIM_ROOT, eventually, processes_naming
from protobuf import pack, unpack

SHIM = os.path.join(os.path.dirname(RUNTIME), "containerd-shim-runsc-v1")
SOCKETS = pathlib.Path("/run/runsc-shim")
OK, NOT_FOUND = 0, 5
ROUNDS = 20


def die_of_fork():
    """Whoever makes a process from now on ends by SIGSYS."""
    calls = (56, 57, 58, 435)  # clone, fork, vfork, clone3
    program = [struct.pack("=HBBI", 0x20, 0, 0, 0)]  # the number of the call
    program += [struct.pack("=HBBI", 0x15, len(calls) - 1 - i, 0 if i + 1 < len(calls) else 1, nr)
                for i, nr in enumerate(calls)]
    program += [struct.pack("=HBBI", 6, 0, 0, action) for action in (0x80000000, 0x7fff0000)]
    code = ctypes.create_string_buffer(b"".join(program))
    libc = ctypes.CDLL(None, use_errno=True)
    fprog = struct.pack("HP", len(program), ctypes.addressof(code))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, fprog, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


class Client:
    """A connection to a shim. ask and answer are apart: containerd does not wait either."""

    def __init__(self, address):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(address)
        self.stream = -1
        self.codes = {}

    def ask(self, method, payload=b""):
        self.stream += 2
        body = pack((1, "containerd.task.v2.Task"), (2, method), (3, payload))
        self.sock.sendall(struct.pack(">IIBB", len(body), self.stream, 1, 0) + body)
        return self.stream

    def read(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def answer(self, stream):
        """The status code."""
        while stream not in self.codes:
            size, of, _, _ = struct.unpack(">IIBB", self.read(10))
            status = unpack(self.read(size)).get(1, [b""])[0]
            self.codes[of] = unpack(status).get(1, [OK])[0]
        return self.codes.pop(stream)

    def call(self, *args):
        return self.answer(self.ask(*args))


class Ttrpc(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory(prefix="rwshim-")
        self.addCleanup(tmp.cleanup)
        self.dir = pathlib.Path(tmp.name)
        self.namespace = f"ttrpc{os.getpid()}"
        self.serial = 0
        self.addCleanup(self.end_shims)

    def end_shims(self):
        for pid in processes_naming(str(self.dir)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            (SHIM_ROOT / self.namespace).rmdir()

    def new_bundle(self):
        self.serial += 1
        self.id = f"t{os.getpid()}-{self.serial}"
        self.bundle = self.dir / self.id
        (self.bundle / "rootfs/bin").mkdir(parents=True)
        shutil.copy(BUSYBOX, self.bundle / "rootfs/bin/sleep")
        (self.bundle / "config.json").write_text(json.dumps({
            "ociVersion": "1.0.2", "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "1000"], "cwd": "/"},
            "linux": {"namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")]}}))

    def start(self, **options):
        return subprocess.run([SHIM, "-namespace", self.namespace, "-address", str(self.dir / "none.sock"),
                               "-id", self.id, "start"], cwd=self.bundle, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True, check=False, **options)

    def new_shim(self):
        """A bundle and its shim."""
        self.new_bundle()
        p = self.start()
        p.check_returncode()
        self.address = p.stdout.removeprefix("unix://")
        client = Client(self.address)
        self.addCleanup(client.sock.close)
        return client

    def create_request(self):
        return pack((1, self.id), (2, str(self.bundle)))

    def assert_nothing_left(self):
        """No shim, and nothing that it had."""
        eventually(lambda: not processes_naming(str(self.dir)), what="the shim has ended")
        eventually(lambda: not processes_naming(self.id), what="the container has ended")
        self.assertFalse(os.path.exists(self.address))
        self.assertEqual(list((SHIM_ROOT / self.namespace).glob("t*")), [])

    def test_shim_that_nobody_asks_ends_with_its_bundle(self):
        self.new_shim()
        shutil.rmtree(self.bundle)
        self.assert_nothing_left()

    def test_start_that_is_killed_before_there_is_a_shim(self):
        self.new_bundle()
        p = self.start(preexec_fn=die_of_fork)
        self.assertEqual(p.returncode, -signal.SIGSYS)
        self.assertEqual(list(SOCKETS.glob(f"{self.id}-*")), [])

    def test_second_start_finds_the_shim(self):
        self.new_shim()
        p = self.start()
        self.assertEqual((p.returncode, p.stdout), (0, f"unix://{self.address}"))
        shutil.rmtree(self.bundle)
        self.assert_nothing_left()

    def test_shim_without_containers_ends_unasked(self):
        c = self.new_shim()
        self.assertEqual(c.call("Create", self.create_request()), OK)
        self.assertEqual(c.call("Delete", pack((1, self.id))), OK)
        self.assert_nothing_left()

    def test_shim_stays_with_its_container(self):
        c = self.new_shim()
        self.assertEqual(c.call("Create", self.create_request()), OK)
        self.assertEqual(c.call("Shutdown", pack((1, self.id))), OK)
        self.assertEqual(c.call("State", pack((1, self.id))), OK)
        self.assertEqual(c.call("Delete", pack((1, self.id))), OK)
        self.assertEqual(c.call("Shutdown", pack((1, self.id))), OK)
        self.assert_nothing_left()

    def test_container_ends_with_its_bundle(self):
        for _ in range(ROUNDS // 4):
            c = self.new_shim()
            self.assertEqual(c.call("Create", self.create_request()), OK)
            if self.serial % 2:
                self.assertEqual(c.call("Start", pack((1, self.id))), OK)
            self.bundle.rename(self.dir / f".{self.id}")
            self.assert_nothing_left()

    def test_container_ends_whose_bundle_goes_while_it_is_made(self):
        for i in range(ROUNDS // 4):
            c = self.new_shim()
            c.ask("Create", self.create_request())
            time.sleep(i / 500)
            self.bundle.rename(self.dir / f".{self.id}")
            self.assert_nothing_left()

    def test_delete_while_it_is_made(self):
        """Of what the calls overtake, too, nothing stays."""
        for i in range(ROUNDS):
            c = self.new_shim()
            create = c.ask("Create", self.create_request())
            time.sleep(i / 1000)
            deleted = c.call("Delete", pack((1, self.id)))
            self.assertIn(deleted, (OK, NOT_FOUND))
            self.assertEqual(c.answer(create), OK)
            if deleted == NOT_FOUND:
                self.assertEqual(c.call("Delete", pack((1, self.id))), OK)
            self.assertEqual(c.call("Shutdown", pack((1, self.id))), OK)
            self.assert_nothing_left()

    def test_two_delete_at_once(self):
        for _ in range(ROUNDS):
            c = self.new_shim()
            self.assertEqual(c.call("Create", self.create_request()), OK)
            asked = [c.ask("Delete", pack((1, self.id))) for _ in range(3)]
            self.assertEqual(sorted(c.answer(a) for a in asked), [OK, NOT_FOUND, NOT_FOUND])
            self.assertEqual(c.call("Shutdown", pack((1, self.id))), OK)
            self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main(verbosity=2)
