#!/usr/bin/env python3
"""The KVM platform from outside: what its sentry holds, and what it says when the host will not do."""
import contextlib
import os
import pathlib
import re
import subprocess
import unittest

from harness import IS_OURS, RUNTIME, Case, children_of, eventually, main

FDS = (r"/dev/null", r"pipe:", r"socket:", r"anon_inode:\[eventpoll\]", r"anon_inode:\[eventfd\]",
       r"/memfd:ringwall-memory", r"/memfd:patched-sites", r"anon_inode:kvm-vm",
       r"anon_inode:kvm-vcpu:\d+", r"/bin/busybox$")  # which the guest has mapped


def status(path, field):
    text = (path / "status").read_text()
    return re.search(rf"^{field}:\s+(.*)$", text, re.M).group(1).split()


@unittest.skipUnless(IS_OURS and os.geteuid() == 0 and os.path.exists("/dev/kvm"),
                     "needs runsc, root and /dev/kvm")
class Kvm(Case):
    def runtime(self, *args):
        return [*RUNTIME, "--platform", "kvm", "--root", str(self.root), *args]

    def test_the_sentry_is_confined(self):
        self.write(["/bin/sh", "-c", "echo ready; sleep 1000 & sleep 1000"])
        p = self.popen("run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual(p.stdout.readline(), "ready\n")
        def names():
            return {pid: pathlib.Path(f"/proc/{pid}/comm").read_text().strip() for pid in children_of(p.pid)}
        # Guests are no processes of the host here. A decoder that has nothing to do ends.
        eventually(lambda: sorted(set(names().values()) - {"runsc-decoder"}) == ["runsc-gofer", "runsc-sentry"],
                   what="two processes and the decoder")
        procs = names()
        sentry = next(pathlib.Path(f"/proc/{pid}") for pid, n in procs.items() if n == "runsc-sentry")
        links = [os.readlink(fd) for fd in (sentry / "fd").iterdir()]
        self.assertNotIn("/dev/kvm", links)
        self.assertIn("anon_inode:kvm-vm", links)
        for link in links:
            self.assertRegex(link, "|".join(f"^{r}" for r in FDS))
        for task in (sentry / "task").iterdir():
            if (task / "comm").read_text().startswith("kvm-"):
                continue  # a thread of the host's kernel, which has no user mode
            with self.subTest(thread=task.name):
                self.assertEqual(status(task, "Seccomp"), ["2"])
                self.assertEqual(status(task, "NoNewPrivs"), ["1"])
                self.assertEqual(status(task, "Uid"), ["65534"] * 4)
                for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                    self.assertEqual(int(status(task, field)[0], 16), 0, field)

    def test_a_host_without_it(self):
        """Something else is where the device should be."""
        self.write(["/bin/true"])
        run = self.runtime("run", "--bundle", str(self.bundle), self.new_id())
        p = subprocess.run(["unshare", "-m", "sh", "-c",
                            "mount --bind /dev/null /dev/kvm && exec \"$@\"", "sh", *run],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("/dev/kvm is not KVM's", p.stdout)
        self.assert_nothing_left()

    def test_it_is_not_taken_by_itself(self):
        """What is not asked for is not opened."""
        self.write(["/bin/sh", "-c", "echo ready; sleep 1000"])
        p = subprocess.Popen([*RUNTIME, "--root", str(self.root), "run", "--bundle",
                              str(self.bundle), self.new_id()], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self._reap, p)
        self.assertEqual(p.stdout.readline(), "ready\n")
        for pid in children_of(p.pid):
            # A decoder that has nothing to do ends, with what it had open.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                    self.assertNotIn("kvm", os.readlink(fd))


if __name__ == "__main__":
    main()
