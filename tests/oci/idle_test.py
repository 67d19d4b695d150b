#!/usr/bin/env python3
"""What runs when nothing does: sleeping guests use no CPU, their sandbox gives back what its start took,
and a platform that does not start is replaced by the next one, with the reason in the log."""
import ctypes
import errno
import os
import pathlib
import re
import struct
import subprocess
import time
import unittest

from harness import IS_OURS, RUNTIME, Case, children_of, eventually, main

SLEEPERS = """
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *sleeper(void *a) { for (;;) pause(); return a; }
int main(void)
{
    pthread_t t;
    for (int i = 0; i < 100; i++)
        if (pthread_create(&t, NULL, sleeper, NULL))
            return 1;
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}
"""


def compile_guest(source, path):
    subprocess.run(["cc", "-O1", "-static", "-pthread", "-x", "c", "-", "-o", str(path)],
                   input=source, text=True, check=True)


def cpu_ns(pids):
    """What all threads of these processes have run so far."""
    total = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass
    return total


def code_kib(pid):
    """Of the program of a process: size of its code, and how much of that it has mapped."""
    program = os.readlink(f"/proc/{pid}/exe")
    size = mapped = 0
    inside = False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = " r-xp " in line and line.endswith(" " + program)
        elif inside and line.startswith("Size:"):
            size += int(line.split()[1])
        elif inside and line.startswith("Rss:"):
            mapped += int(line.split()[1])
    return size, mapped


class Idle(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        compile_guest(SLEEPERS, cls.rootfs / "bin" / "sleepers")

    def start(self, args, *options):
        self.write(args)
        p = subprocess.Popen([*RUNTIME, *options, "--root", str(self.root), "run", "--bundle",
                              str(self.bundle), self.new_id()], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self._reap, p)
        self.assertEqual(p.stdout.readline(), "ready\n")
        return p

    def rests(self, p):
        """Once the last of them is asleep, 4 s cost no more than 0.05 % of a CPU, which is 0.0 % in any table."""
        def rest():
            pids = [p.pid, *children_of(p.pid)]
            begin = cpu_ns(pids)
            time.sleep(4)
            return cpu_ns(pids) - begin <= 2_000_000
        eventually(rest, what="rest")

    def test_sleeping_threads_use_no_cpu(self):
        p = self.start(["/bin/sleepers"])
        self.rests(p)

    @unittest.skipUnless(IS_OURS, "names of processes are ours")
    def test_code_that_is_not_used_is_not_mapped(self):
        p = self.start(["/bin/sleepers"])
        sentry = [pid for pid in children_of(p.pid) if
                  pathlib.Path(f"/proc/{pid}/comm").read_text() == "runsc-sentry\n"]
        self.assertEqual(len(sentry), 1)

        def given_back():
            size, mapped = code_kib(sentry[0])
            self.assertGreater(size, 0)
            return mapped < size / 3
        eventually(given_back, what="the sentry's code is given back")

    def test_no_process_spins(self):
        # Two that wait for each other, neither ever woken.
        p = self.start(["/bin/sh", "-c", "mkfifo /tmp/a; cat /tmp/a & echo ready; wait"])
        self.rests(p)


# struct seccomp_data and BPF: mmap(2) of the size of systrap's areas fails in this process and all
# that come from it, and everything else is as it was.
AREAS = 65536 * 65536


def refuse_areas():
    libc = ctypes.CDLL(None, use_errno=True)
    load, jeq, ret = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 0), (jeq, 0, 5, 9), (load, 0, 0, 24), (jeq, 0, 3, AREAS & 0xffffffff),
            (load, 0, 0, 28), (jeq, 0, 1, AREAS >> 32), (ret, 0, 0, 0x00050000 | errno.ENOMEM),
            (ret, 0, 0, 0x7fff0000)]
    text = b"".join(struct.pack("HBBI", *c) for c in code)
    array = ctypes.create_string_buffer(text)
    prog = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(array))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(prog), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


@unittest.skipUnless(IS_OURS, "platforms are ours")
class FallBack(Case):
    def run_refused(self, *options):
        self.write(["/bin/echo", "hello"])
        command = [RUNTIME[0], *options, "--root", str(self.root), "run", "--bundle",
                   str(self.bundle), self.new_id()]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=180, preexec_fn=refuse_areas)

    def test_the_next_platform_is_taken_and_the_log_says_why(self):
        p = self.run_refused()
        self.assertEqual((p.returncode, p.stdout), (0, "hello\n"), p.stderr)
        self.assertIn("platform systrap does not start: " + os.strerror(errno.ENOMEM), p.stderr)

    def test_a_platform_that_is_named_is_not_replaced(self):
        p = self.run_refused("--platform", "systrap")
        self.assertNotEqual(p.returncode, 0)
        self.assertEqual(p.stdout, "")
        self.assertIn("platform systrap", p.stderr)
        p = self.run_refused("--platform", "ptrace")
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, "hello\n", ""))


if __name__ == "__main__":
    main()
