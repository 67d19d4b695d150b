#!/usr/bin/env python3
"""The host's cgroups of a container, in every layout that this machine can show: as it is, v1 alone, and v2
alone. What is not mounted is hidden by a mount namespace around each command of the runtime, so the
layouts are real hierarchies of the kernel; controllers that it keeps in v1 are not to be had in v2."""
import os
import unittest

from harness import IS_OURS, Case, children_of, eventually, main
from layout import HAS_V1, HAS_V2, Layout, mounted


@unittest.skipUnless(os.geteuid() == 0, "makes cgroups")
class Everywhere(Layout):
    def test_everything_lives_there(self):
        cid = self.made(["/bin/sh", "-c", "sleep 1000 & sleep 1000"])
        pid = self.state(cid)["pid"]
        eventually(lambda: len(children_of(pid)) > 1 or not IS_OURS, what="processes")
        for d in self.dirs():
            procs = self.look(f"cat {d}/cgroup.procs").split()
            self.assertIn(str(pid), procs, d)
            for child in children_of(pid):
                self.assertIn(str(child), procs, d)
        self.assertEqual(self.call("delete", "--force", cid).returncode, 0)
        left = self.look("ls -d " + " ".join(self.dirs()) + " 2>/dev/null || :")
        self.assertEqual(left, "")

    def test_exec_lives_there(self):
        cid = self.made(["/bin/sleep", "1000"])
        pid_file = self.dir / "exec.pid"
        p = self.call_quiet("exec", "--detach", "--pid-file", str(pid_file), cid, "/bin/sleep", "1000")
        self.assertEqual(p.returncode, 0)
        for d in self.dirs():
            self.assertIn(pid_file.read_text(), self.look(f"cat {d}/cgroup.procs").split(), d)

    def test_pause(self):
        cid = self.made(["/bin/sh", "-c", "while :; do :; done"])
        if self.file("freezer.state") is None and self.file("cgroup.freeze") is None:
            self.skipTest("no freezer")
        self.assertEqual(self.call("pause", cid).returncode, 0)
        self.assertTrue(self.file("freezer.state") == "FROZEN" or self.file("cgroup.freeze") == "1")
        self.assertEqual(self.state(cid)["status"], "paused")
        self.assertEqual(self.call("resume", cid).returncode, 0)
        self.assertEqual(self.state(cid)["status"], "running")

    def limits(self):
        have = self.controllers()
        r = {}
        if "memory" in have:
            r["memory"] = {"limit": 64 << 20}
        if "cpu" in have:
            r["cpu"] = {"shares": 512, "quota": 20000, "period": 100000}
        if "pids" in have:
            r["pids"] = {"limit": 30}
        return r

    def test_limits(self):
        r = self.limits()
        if not r:
            self.skipTest("no controller here that limits anything")
        cid = self.made(["/bin/sleep", "1000"], r)
        self.check(64 << 20, 20000, 30)
        new = {"memory": ("--memory", "96m"), "cpu": ("--cpu-quota", "30000"), "pids": ("--pids-limit", "40")}
        p = self.call("update", *(word for controller in r for word in new[controller]), cid)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.check(96 << 20, 30000, 40)

    def check(self, memory, quota, pids):
        have = self.controllers()
        if "memory" in have:
            self.assertEqual(self.file("memory.limit_in_bytes") or self.file("memory.max"), str(memory))
        if "cpu" in have:
            self.assertEqual(self.file("cpu.cfs_quota_us") or self.file("cpu.max").split()[0], str(quota))
            self.assertIn(self.file("cpu.shares") or self.file("cpu.weight"), ("512", "20"))
        if "pids" in have:
            self.assertEqual(self.file("pids.max"), str(2 * pids + 64 if IS_OURS else pids))

    def test_processes_bite(self):
        if "pids" not in self.controllers():
            self.skipTest("no pids controller")
        def limit(c):
            c["linux"].update(cgroupsPath=self.path, resources={"pids": {"limit": 8}})
        script = "for i in $(seq 1 {}); do sleep 9 & done; echo all; kill $(jobs -p)"
        self.assertEqual(self.shell(script.format(5), limit).stdout, "all\n")
        p = self.shell(script.format(20), limit)
        self.assertEqual(p.stdout, "")
        self.assertIn("can't fork", p.stderr)

    def test_time_bites(self):
        if "cpu" not in self.controllers():
            self.skipTest("no cpu controller")
        self.made(["/bin/sh", "-c", "while :; do :; done"], {"cpu": {"quota": 5000, "period": 50000}})
        def throttled():
            words = (self.file("cpu.stat") or "").split()
            return int(words[words.index("nr_throttled") + 1]) > 2
        eventually(throttled, timeout=180, what="throttling")

    @unittest.skipUnless(IS_OURS, "in its own words")
    def test_a_limit_that_cannot_be(self):
        for name, r in (("memory", {"memory": {"limit": 64 << 20}}), ("cpu", {"cpu": {"shares": 512}}),
                        ("pids", {"pids": {"limit": 10}})):
            if name in self.controllers():
                continue
            self.write(["/bin/true"], lambda c, r=r: c["linux"].update(cgroupsPath=self.path, resources=r))
            p = self.call("create", "--bundle", str(self.bundle), self.new_id())
            self.assertNotEqual(p.returncode, 0)
            self.assertIn(f"linux.resources.{name}", p.stderr)
            self.assertIn("--ignore-cgroups", p.stderr)
            # The sandbox's own counting goes without them.
            p = self.call("--ignore-cgroups", "run", "--bundle", str(self.bundle), self.new_id())
            self.assertEqual(p.returncode, 0, p.stderr)


@unittest.skipUnless(HAS_V1 or HAS_V2, "no cgroups")
class AsItIs(Everywhere, Case):
    pass


@unittest.skipUnless(HAS_V1 and HAS_V2, "one kind alone is as it is")
class V1(Everywhere, Case):
    hide = "for d in $(awk '$3 == \"cgroup2\" {print $2}' /proc/mounts); do umount $d; done"


@unittest.skipUnless(HAS_V1 and HAS_V2, "one kind alone is as it is")
class V2(Everywhere, Case):
    hide = "umount -R -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"

    def remove(self):
        top = self.path.split("/")[1]
        self.look(f"for i in 1 2 3 4 5; do rmdir /sys/fs/cgroup/{top}/* /sys/fs/cgroup/{top} 2>/dev/null; "
                  f"[ -e /sys/fs/cgroup/{top} ] || break; sleep 0.2; done; :")


@unittest.skipUnless(HAS_V1 and HAS_V2 and "/sys/fs/cgroup/freezer" in mounted("cgroup"), "no such mix")
class FreezerInV2(Everywhere, Case):
    """A mixed layout in which only v2 can freeze."""
    hide = "umount /sys/fs/cgroup/freezer"

    @unittest.skipUnless(IS_OURS, "others look in v1 alone")
    def test_pause(self):
        super().test_pause()


@unittest.skipUnless(IS_OURS and os.geteuid() == 0 and (HAS_V1 or HAS_V2), "in its own words")
class NotAllowed(Layout, Case):
    hide = ("for d in $(awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/mounts); do "
            "mount -o remount,bind,ro $d; done")

    def test_it_says_so(self):
        self.write(["/bin/echo", "on"], lambda c: c["linux"].update(cgroupsPath=self.path))
        p = self.call("run", "--bundle", str(self.bundle), self.new_id())
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("cannot make the cgroup", p.stderr)
        self.assertIn("--ignore-cgroups", p.stderr)
        p = self.call("--ignore-cgroups", "run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual((p.returncode, p.stdout), (0, "on\n"), p.stderr)
        self.assert_nothing_left()


if __name__ == "__main__":
    main()
