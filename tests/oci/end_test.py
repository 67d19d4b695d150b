#!/usr/bin/env python3
"""Whatever process of a sandbox dies, all of them go, and nothing stays on the host."""
import os
import pathlib
import signal
import unittest

from harness import IS_OURS, Case, alive, children_of, eventually, kill9, main


def comm(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@unittest.skipUnless(IS_OURS, "looks at runsc's own processes")
class End(Case):
    def start_attached(self):
        self.write(["/bin/sh", "-c", "echo ready; sleep 1000 & sleep 1000"])
        cid = self.new_id()
        p = self.popen("run", "--bundle", str(self.bundle), cid)
        self.assertEqual(p.stdout.readline(), "ready\n")
        eventually(lambda: len(self.named(p, "stub")) >= 3, what="three stubs")
        return p, cid

    @staticmethod
    def named(p, what):
        return [c for c in children_of(p.pid) if what in comm(c)]

    def all_gone(self, p, pids):
        p.wait(120)
        eventually(lambda: not any(alive(pid) for pid in pids), what=f"end of {pids}")
        eventually(lambda: not list(self.root.glob("*")), what="state removed")

    def kill_one(self, what):
        p, _ = self.start_attached()
        pids = children_of(p.pid)
        victims = self.named(p, what)
        self.assertTrue(victims, f"no process {what} among {[comm(c) for c in pids]}")
        kill9(victims[0])
        return p, pids

    def test_groups_that_nobody_removes(self):
        """Builds that count what is left at their end would fail here."""
        def change(c):
            caps = c["process"]["capabilities"]
            c["process"]["capabilities"] = {k: [*v, "CAP_SYS_ADMIN"] for k, v in caps.items()}
        p = self.shell("mkdir /tmp/v1 && mount -t cgroup -o none,name=left none /tmp/v1 &&"
                       " mkdir -p /tmp/v1/a/b /tmp/v1/c && umount /tmp/v1", change)
        self.assertEqual((p.returncode, p.stderr), (0, ""))

    def test_kill_sentry(self):
        p, pids = self.kill_one("runsc-sentry")
        self.all_gone(p, pids)
        self.assertEqual(p.returncode, 137)

    def test_kill_gofer(self):
        p, pids = self.kill_one("runsc-gofer")
        self.all_gone(p, pids)
        self.assertNotEqual(p.returncode, 0)

    def test_kill_gofer_that_owes_an_answer(self):
        """The guest looks up names that nobody knows, one after the other: it waits for the gofer when that is ended."""
        self.write(["/bin/sh", "-c", "echo ready; i=0; while :; do i=$((i + 1)); [ -e /none-$i ]; done"])
        p = self.popen("run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual(p.stdout.readline(), "ready\n")
        pids = children_of(p.pid)
        gofer = self.named(p, "runsc-gofer")[0]
        os.kill(gofer, signal.SIGSTOP)
        kill9(gofer)
        self.all_gone(p, pids)
        self.assertNotEqual(p.returncode, 0)

    def test_kill_runsc(self):
        p, _ = self.start_attached()
        pids = children_of(p.pid)
        kill9(p.pid)
        self.all_gone(p, pids)

    def test_kill_stub(self):
        """A stub is one guest process: it dies of it, as of SIGKILL, when it next runs."""
        self.write(["/bin/sh", "-c", "echo ready; while :; do :; done"])
        p = self.popen("run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual(p.stdout.readline(), "ready\n")
        pids = children_of(p.pid)
        # The youngest runs the guest; the first one is where all others come from.
        kill9(max(self.named(p, "stub")))
        self.all_gone(p, pids)
        self.assertEqual(p.returncode, 137)

    def test_host_prefers_stubs(self):
        """Short of memory, the host ends one guest process rather than all of them."""
        p, _ = self.start_attached()
        def scores(what):
            return [int(pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in self.named(p, what)]
        own = int(pathlib.Path("/proc/self/oom_score_adj").read_text())
        self.assertEqual(scores("runsc-sentry") + scores("runsc-gofer"), [own] * 2)
        self.assertEqual(set(scores("stub")), {min(own + 500, 1000)})

    def test_end_by_itself(self):
        p = self.shell("sleep 1000 & sleep 1000 & exit 0")
        self.assertEqual(p.returncode, 0)
        self.assert_nothing_left()

    def test_killed_detached_sentry_is_stopped(self):
        self.write(["/bin/sleep", "1000"])
        cid = self.new_id()
        self.assertEqual(self.call_quiet("run", "--detach", "--bundle", str(self.bundle),
                                         cid).returncode, 0)
        pid = self.state(cid)["pid"]
        pids = children_of(pid) + [pid]
        kill9(pid)
        self.wait_status(cid, "stopped")
        eventually(lambda: not any(alive(x) for x in pids), what="end of the detached sandbox")
        self.assertEqual(self.call("delete", cid).returncode, 0)
        self.assert_nothing_left()

    def test_nothing_leaks_in_a_loop(self):
        rounds = int(os.environ.get("LEAK_ROUNDS", "1000"))
        before = self.host_facts()
        self.write(["/bin/true"])
        for i in range(rounds):
            p = self.call("run", "--bundle", str(self.bundle), f"loop-{os.getpid()}-{i}")
            self.assertEqual(p.returncode, 0, p.stderr)
        eventually(lambda: self.host_facts() == before,
                   what=f"host as before: {before} now {self.host_facts()}")
        self.assert_nothing_left()

    def host_facts(self):
        """What this host has too much of when a sandbox of this test leaks."""
        ours = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            ours += str(self.root).encode() in line and alive(pid)
        mounts = pathlib.Path("/proc/self/mounts").read_text().count(str(self.dir))
        return ours, mounts


if __name__ == "__main__":
    main()
