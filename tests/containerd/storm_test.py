#!/usr/bin/env python3
"""Eight clients of containerd make 200 containers at once and end them, and themselves, at random
moments: nothing is left on the host."""
import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import threading
import time
import unittest

from harness import IMAGE, OWN_SHIM, Case, eventually, processes_naming

CLIENTS = 8
EACH = 25


class Storm(Case):
    def ctr_that_may_be_killed(self, rng, *args):
        p = subprocess.Popen(["ctr", "-a", self.cd.address, "-n", self.cd.namespace, *args],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if rng.random() < 0.2:
            time.sleep(rng.random() * 0.3)
            p.kill()
        p.wait(120)

    def act(self, rng, name):
        self.ctr_that_may_be_killed(rng, *self.run_args("-d", "--null-io", IMAGE, name, "sh", "-c",
                                                        "sleep 1000 & exec sleep 1000"))
        if rng.random() < 0.3:
            self.ctr_that_may_be_killed(rng, "task", "exec", "-d", "--exec-id", "e", name, "sleep", "999")
        time.sleep(rng.random() * 0.02)
        if rng.random() < 0.3:
            rows = self.cd.ctr("task", "ls").stdout.splitlines()
            for pid in [int(r.split()[1]) for r in rows[1:] if r.split()[0] == name]:
                if pid > 0:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        elif rng.random() < 0.5:
            self.ctr_that_may_be_killed(rng, "task", "kill", "-s", "KILL", name)
        if rng.random() < 0.2:
            self.ctr_that_may_be_killed(rng, "task", "rm", "-f", name)

        def gone():
            self.cd.ctr("task", "rm", "-f", name)
            self.cd.ctr("container", "rm", name)
            return not [n for what in ("task", "container")
                        for n in self.cd.ctr(what, "ls", "-q").stdout.split() if n == name]
        eventually(gone, 120, what=f"{name} is removed")

    def client(self, number, seed, failures):
        rng = random.Random(seed)
        for i in range(EACH):
            try:
                self.act(rng, f"s{os.getpid()}-{number}-{i}")
            except Exception as e:
                failures.append(f"client {number}, container {i}: {e!r}")

    def shims(self):
        return set(processes_naming(self.cd.address)) - {self.cd.process.pid}

    def described(self, pid):
        """What there is to see of a process that should have ended."""
        proc = pathlib.Path(f"/proc/{pid}")
        text = f"{pid}: " + (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        for task in sorted((proc / "task").iterdir()):
            text += f"\n  {task.name}: " + " ".join((task / n).read_text().strip() for n in ("wchan", "syscall"))
        for fd in sorted((proc / "fd").iterdir(), key=lambda f: int(f.name)):
            text += f"\n  {fd.name} -> {os.readlink(fd)}"
        return text

    @staticmethod
    def children(pid):
        with contextlib.suppress(OSError):
            return "".join(c.read_text() for c in pathlib.Path(f"/proc/{pid}/task").glob("*/children"))
        return ""

    def end_orphans(self, seed):
        """A client that is killed between the start of a shim and that of its task leaves containerd's own
        shim with nothing to do, whatever the runtime; ours ends."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.shims(), 120 if OWN_SHIM else 20, what="no shim left")
        left = self.shims()
        if OWN_SHIM:
            self.assertEqual([self.described(pid) for pid in left], [], f"seed {seed}")
        for pid in left:
            eventually(lambda pid=pid: not self.children(pid), what=f"a shim's processes end, seed {seed}")
            with contextlib.suppress(OSError, IndexError):
                name = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[4].decode()
                os.kill(pid, signal.SIGKILL)
                shutil.rmtree(self.tasks() / name, ignore_errors=True)
        eventually(lambda: not self.shims(), what=f"shims end, seed {seed}")

    def tasks(self):
        return self.cd.dir / "state/io.containerd.runtime.v2.task" / self.cd.namespace

    def test_storm(self):
        failures = []
        seed = random.randrange(1 << 30)
        threads = [threading.Thread(target=self.client, args=(n, seed + n, failures)) for n in range(CLIENTS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [], f"seed {seed}")
        self.end_orphans(seed)
        eventually(lambda: not processes_naming(f"s{os.getpid()}-"), what=f"no process left, seed {seed}")
        root = self.runtime_root()
        self.assertEqual(list(root.glob("s*")) if root.exists() else [], [], f"seed {seed}")
        cgroups = [d for h in pathlib.Path("/sys/fs/cgroup").glob("*") for d in (h / self.cd.namespace).glob("s*")]
        self.assertEqual(cgroups, [], f"seed {seed}")
        tasks = self.tasks()
        self.assertEqual(list(tasks.glob("*")) if tasks.exists() else [], [], f"seed {seed}")
        self.assertNotIn(str(tasks), pathlib.Path("/proc/self/mounts").read_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
