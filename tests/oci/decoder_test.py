#!/usr/bin/env python3
"""The process that disassembles for a sandbox: what it answers, and that nobody depends on it."""
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import unittest

from harness import IS_OURS, RUNTIME, Case, children_of, eventually, main

DECODER = pathlib.Path(RUNTIME[0]).with_name("runsc-decoder")
WINDOW = 258
CALL = b"\x0f\x05"
GETPPID = b"\x90" * 40 + b"\xb8\x6e\0\0\0" + CALL + b"\xc3" + b"\x90" * 40
BUSY = "while :; do dd if=/dev/zero of=/dev/null bs=1 count=500 2>/dev/null; done"


def question(number, code, off):
    """As platform/patch/shape.h has it."""
    return struct.pack("<QII", number, len(code), off) + code.ljust(WINDOW, b"\0") + bytes(6)


@unittest.skipUnless(IS_OURS and DECODER.exists(), "needs the build folder")
class Program(unittest.TestCase):
    def setUp(self):
        self.end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen([DECODER], stdin=theirs)
        theirs.close()
        self.addCleanup(self.stop)

    def stop(self):
        self.end.close()
        self.process.kill()
        self.process.wait()

    def ask(self, *args):
        self.end.send(question(*args))
        return struct.unpack("<Q9B7x", self.end.recv(100))

    def test_a_site(self):
        self.assertEqual(self.ask(7, GETPPID, 45), (7, 1, 5, 1, 7, 7, 0, 0, 0, 0))
        self.assertEqual(self.ask(8, GETPPID, 44), (8, *[0] * 9))

    def test_any_bytes(self):
        """Whatever stands there, the few calls that it may make do."""
        rng = random.Random(5)
        found = 0
        for i in range(3000):
            code = rng.randbytes(rng.randrange(2, WINDOW))
            off = min(rng.randrange(len(code) - 1), 128)
            code = code[:off] + (CALL + rng.choice((b"", b"\x48\x89\xc7", b"\x48\x3d")) + code[off + 2:])[:WINDOW - off]
            answer = self.ask(i, code, off)
            self.assertEqual(answer[0], i)
            found += answer[1]
        self.assertGreater(found, 30)

    def test_its_end(self):
        self.end.close()
        self.assertEqual(self.process.wait(60), 0)

    def test_what_is_no_question(self):
        for message in (b"x", question(1, GETPPID, 45)[:-1], question(1, GETPPID, WINDOW),
                        struct.pack("<QII", 1, WINDOW + 1, 0) + bytes(WINDOW + 6)):
            with self.subTest(size=len(message)):
                self.stop()
                self.setUp()
                self.end.send(message)
                self.assertEqual(self.end.recv(100), b"")
                self.assertEqual(self.process.wait(60), 1)


@unittest.skipUnless(IS_OURS and DECODER.exists() and "ptrace" not in RUNTIME, "needs a platform that patches")
class Sandbox(Case):
    def start(self, runtime=None):
        """A guest that calls often, and what is in the log of its sandbox."""
        self.write(["/bin/sh", "-c", f"read line; {BUSY}"])
        log = self.dir / "log"
        command = [*(runtime or RUNTIME), "--root", str(self.root), "--debug", "--log", str(log), "run",
                   "--bundle", str(self.bundle), self.new_id()]
        p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self._reap, p)
        return p, lambda: log.read_text() if log.exists() else ""

    @staticmethod
    def decoder_of(p):
        def look():
            for pid in children_of(p.pid):
                try:
                    if pathlib.Path(f"/proc/{pid}/comm").read_text() == "runsc-decoder\n":
                        return pid
                except OSError:
                    pass
            return None
        return eventually(look, what="the decoder")

    @staticmethod
    def go(p):
        p.stdin.write(b"go\n")
        p.stdin.flush()

    def test_sites_are_patched(self):
        p, log = self.start()
        self.go(p)
        eventually(lambda: "needs no trap from now on" in log(), what="a patched site")
        self.assertNotIn("decoder", log())

    def test_gone(self):
        p, log = self.start()
        os.kill(self.decoder_of(p), signal.SIGKILL)
        self.go(p)
        eventually(lambda: "the decoder is gone" in log(), what="a warning")
        eventually(lambda: log().count("goes on with traps") > 3, what="calls that go on")
        self.assertIsNone(p.poll())

    def test_stopped(self):
        p, log = self.start()
        decoder = self.decoder_of(p)
        os.kill(decoder, signal.SIGSTOP)
        self.go(p)
        eventually(lambda: log().count("is being looked at") > 3, what="calls that go on")
        self.assertNotIn("needs no trap", log())
        os.kill(decoder, signal.SIGCONT)
        eventually(lambda: "needs no trap from now on" in log(), what="a patched site")

    def test_not_installed(self):
        alone = self.dir / "runsc"
        shutil.copy(RUNTIME[0], alone)
        p, log = self.start([alone, *RUNTIME[1:]])
        self.go(p)
        eventually(lambda: "there is no decoder" in log(), what="a warning")
        eventually(lambda: log().count("goes on with traps") > 3, what="calls that go on")
        self.assertIsNone(p.poll())


if __name__ == "__main__":
    main()
