#!/usr/bin/env python3
"""What the host's limits do to a container, with whatever controllers this machine has, in v1 or in v2. None of it
looks at a clock: times are those that the host's own counters give, held against one another."""
import json
import os
import pathlib
import shutil
import subprocess
import unittest

from harness import IS_OURS, RUNTIME, Case, children_of, copy_runtime, eventually, is_static, main
from layout import HAS_V1, HAS_V2, Layout

BUSY = ["/bin/sh", "-c", "while :; do :; done"]
ALL = {"cpu", "cpuset", "memory", "pids", "io"}

# A guest whose pages lie so far apart, or are in so many address spaces, that what the host's kernel needs to
# find them again (page tables, nodes of its index of the memory file) takes as much as they do.
TOUCH = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define FAR (2ul << 20)
#define NEAR 4096ul

static char *map(size_t size, int flags)
{
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    if (p != MAP_FAILED)
        return p;
    perror("mmap");
    exit(1);
}

static void touch(char *p, size_t size, size_t step)
{
    for (size_t i = 0; i < size; i += step)
        p[i] = 1;
}

/* The sandbox itself writes to them. */
static int receive(char *p, size_t size, size_t step)
{
    int fd[2];

    if (pipe(fd) != 0)
        return 1;
    for (size_t i = 0; i < size; i += step)
        if (write(fd[1], "x", 1) != 1 || read(fd[0], p + i, 1) != 1)
            return 1;
    return 0;
}

/* All have the same pages. */
static int share(char *p, size_t size)
{
    const pid_t parent = getpid();

    for (;;) {
        const pid_t pid = fork();
        if (pid < 0 || (pid == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) || (pid == 0 && getppid() != parent))
            return 1;
        touch(p, size, NEAR);
        while (pid == 0)
            pause();
    }
}

int main(int argc, char **argv)
{
    const char *what = argv[argc - 1];
    const size_t large = 64ul << 30, small = 16ul << 20;

    if (strcmp(what, "apart") == 0)
        touch(map(large, MAP_PRIVATE), large, FAR);
    else if (strcmp(what, "received") == 0)
        return receive(map(large, MAP_PRIVATE), large, FAR);
    else if (strcmp(what, "shared") == 0)
        touch(map(large / 64, MAP_SHARED), large / 64, NEAR);
    else if (strcmp(what, "many") == 0)
        return share(map(small, MAP_SHARED), small);
    return 0;
}
"""


def needs(*controllers):
    """For a test that needs controllers in some hierarchy."""
    def wrap(test):
        def run(self):
            missing = set(controllers) - set(self.controllers())
            if missing:
                self.skipTest(f"no controller {missing} here")
            test(self)
        run.__name__ = test.__name__
        return run
    return wrap


class Counters(Layout):
    def stat(self, name, key):
        words = (self.file(name) or "").split()
        return int(words[words.index(key) + 1]) if key in words else None

    def used(self):
        """Microseconds of CPU time."""
        us = self.stat("cpu.stat", "usage_usec")
        return us if us is not None else int(self.file("cpuacct.usage")) // 1000

    def periods(self):
        return self.stat("cpu.stat", "nr_periods")

    def processes(self, pid):
        return [pid, *children_of(pid)]


@unittest.skipUnless(IS_OURS and os.geteuid() == 0 and (HAS_V1 or HAS_V2), "makes cgroups")
class Limits(Counters, Case):
    def update(self, cid, *args):
        p = self.call("update", *args, cid)
        self.assertEqual(p.returncode, 0, p.stderr)

    def over(self, count):
        """How many times the quota is used in each of the next count periods. The kernel makes both longer by itself
        when a busy machine lets timers pass."""
        first = self.periods()
        used = self.used()
        eventually(lambda: self.periods() >= first + count, timeout=120, what="periods")
        used = self.used() - used
        quota = int(self.file("cpu.cfs_quota_us") or self.file("cpu.max").split()[0])
        return used / (self.periods() - first) / quota

    @needs("cpu")
    def test_cpu_quota(self):
        """Two busy loops get no more than one quota between them, and the next one as soon as it is set."""
        cid = self.made(["/bin/sh", "-c", "while :; do :; done & while :; do :; done"],
                        {"cpu": {"quota": 5000, "period": 50000}})
        # The kernel takes the time away in slices; what was too much in one period is missing in the next.
        self.assertLess(self.over(30), 2)
        self.update(cid, "--cpu-quota", "50000")
        self.over(10)
        self.update(cid, "--cpu-quota", "5000")
        self.over(10)
        self.assertLess(self.over(30), 2)

    @needs("cpu", "cpuset")
    def test_cpu_shares(self):
        """Of two on one CPU the one with eight times the weight gets more."""
        used = []
        path = self.path
        for shares in 2048, 256:
            self.path = f"{path}/{shares}"
            self.made(BUSY, {"cpu": {"shares": shares, "cpus": "0"}})
        def both():
            used[:] = []
            for shares in 2048, 256:
                self.path = f"{path}/{shares}"
                used.append(self.used())
            return used
        start = list(both())
        eventually(lambda: sum(both()) - sum(start) > 1500000, timeout=120, what="time for both")
        self.path = path
        self.assertGreater(used[0] - start[0], 3 * (used[1] - start[1]))

    def ticks(self, cid, *pids):
        """CPU time of processes of the guest."""
        p = self.call("exec", cid, "cat", *[f"/proc/{pid}/stat" for pid in pids])
        self.assertEqual(p.returncode, 0, p.stderr)
        return [int(l.rpartition(")")[2].split()[11]) for l in p.stdout.splitlines()]

    @needs("cpuset")
    def test_who_is_nice_yields(self):
        """Two compute on one CPU; the first leaves most of it to the other."""
        for scheduler in {"policy": "SCHED_OTHER", "nice": 19}, {"policy": "SCHED_IDLE"}:
            def change(c):
                c["linux"]["cgroupsPath"] = self.path
                c["linux"]["resources"] = {"cpu": {"cpus": "0"}}
                c["process"]["scheduler"] = scheduler
            cid = self.create(BUSY, change)
            self.assertEqual(self.call("start", cid).returncode, 0)
            plain = json.loads((self.bundle / "config.json").read_text())["process"]
            del plain["scheduler"]
            (self.bundle / "plain.json").write_text(json.dumps(plain))
            p = self.call_quiet("exec", "--detach", "--process", str(self.bundle / "plain.json"), cid)
            self.assertEqual(p.returncode, 0)
            nice, plain = self.ticks(cid, 1, 2)
            eventually(lambda: self.ticks(cid, 2)[0] >= plain + 100, timeout=120, what="time for who is not nice")
            self.assertLess(self.ticks(cid, 1)[0] - nice, 60, scheduler)
            self.assertEqual(self.call("delete", "--force", cid).returncode, 0)

    @needs("cpuset")
    def test_cpus(self):
        cid = self.made(BUSY, {"cpu": {"cpus": "0", "mems": "0"}})
        self.assertEqual(self.file("cpuset.cpus"), "0")
        self.assertEqual(self.file("cpuset.mems"), "0")
        for pid in self.processes(self.state(cid)["pid"]):
            text = pathlib.Path(f"/proc/{pid}/status").read_text()
            self.assertIn("Cpus_allowed_list:\t0\n", text)

    @needs("memory")
    def test_memory(self):
        """The program that needs too much ends; the sandbox, which stands in the same cgroup, does not."""
        script = """for i in 1 2; do awk 'BEGIN {s="x"; for (;;) s=s s}'; echo $?; done; sleep 1000"""
        def change(c):
            c["linux"].update(cgroupsPath=self.path, resources={"memory": {"limit": 64 << 20}})
        self.write(["/bin/sh", "-c", script], change)
        cid = self.new_id()
        p = self.popen("run", "--bundle", str(self.bundle), cid)
        self.assertEqual([p.stdout.readline() for _ in range(2)], ["137\n"] * 2)
        self.assertEqual(self.file("memory.limit_in_bytes") or self.file("memory.max"), str(64 << 20))
        killed = self.stat("memory.events", "oom_kill")  # the host's own
        self.assertIn(killed, (0, None))
        self.assertEqual(self.state(cid)["status"], "running")
        self.update(cid, "--memory", "128m")
        self.assertEqual(self.file("memory.limit_in_bytes") or self.file("memory.max"), str(128 << 20))
        p = self.call("exec", cid, "sh", "-c", "awk '/^MemTotal/ {print $2}' /proc/meminfo")
        self.assertEqual(p.stdout, f"{128 << 10}\n", p.stderr)

    def touch(self, what):
        """The host sees no reason to end anything: what it keeps for the guest's pages counts as the guest's."""
        if not is_static(RUNTIME[0]):
            self.skipTest("does not count its heap")
        program = self.rootfs / "bin/touch-memory"
        if not program.exists():
            subprocess.run(["cc", "-O1", "-static", "-x", "c", "-", "-o", str(program)], input=TOUCH, check=True,
                           text=True)
        script = (f"mkfifo /tmp/never; touch-memory {what} 2>/dev/null; echo $?;"
                  " until read line < /tmp/never; do :; done 2>/dev/null")
        def change(c):
            c["linux"].update(cgroupsPath=self.path, resources={"memory": {"limit": 64 << 20}})
        self.write(["/bin/sh", "-c", script], change)
        cid = self.new_id()
        p = self.popen("run", "--bundle", str(self.bundle), cid)
        self.assertIn(p.stdout.readline(), ("137\n", "1\n"))
        eventually(lambda: self.call("exec", cid, "true").returncode == 0, what="there is memory again")
        killed = [self.stat(name, "oom_kill") for name in ("memory.events", "memory.oom_control")]
        self.assertLessEqual(set(killed), {0, None}, "the host had to choose")
        self.assertEqual(self.state(cid)["status"], "running")

    @needs("memory")
    def test_memory_of_pages_apart(self):
        self.touch("apart")

    @needs("memory")
    def test_memory_of_pages_apart_that_the_sandbox_writes(self):
        self.touch("received")

    @needs("memory")
    def test_memory_that_is_shared(self):
        self.touch("shared")

    @needs("memory")
    def test_memory_of_many_address_spaces(self):
        self.touch("many")

    @needs("pids")
    def test_processes(self):
        cid = self.made(["/bin/sleep", "1000"], {"pids": {"limit": 4}})
        count = "for i in 1 2 3 4 5 6; do sleep 100 >/dev/null 2>&1 & done; kill $(jobs -p); echo all"
        p = self.call("exec", cid, "sh", "-c", count)
        self.assertNotIn("all", p.stdout)
        self.update(cid, "--pids-limit", "20")
        p = self.call("exec", cid, "sh", "-c", count)
        self.assertEqual(p.stdout, "all\n", p.stderr)

    def frozen(self):
        self.assertTrue(self.file("freezer.state") == "FROZEN" or
                        "frozen 1" in (self.file("cgroup.events") or ""))

    def test_pause(self):
        """What is paused does not run: its time stands, whoever looks."""
        cid = self.made(BUSY)
        if self.file("freezer.state") is None and self.file("cgroup.freeze") is None:
            self.skipTest("no freezer")
        for _ in range(3):
            first = self.used()
            eventually(lambda first=first: self.used() > first, what="it runs")
            self.assertEqual(self.call("pause", cid).returncode, 0)
            self.frozen()
            used = self.used()
            self.assertEqual(self.state(cid)["status"], "paused")
            p = self.call("events", "--stats", cid)
            self.assertEqual(p.returncode, 0, p.stderr)
            self.assertEqual(json.loads(p.stdout)["data"]["cpu"]["usage"]["total"] // 1000, used)
            self.assertEqual(self.used(), used)
            self.assertEqual(self.call("resume", cid).returncode, 0)
        self.assertEqual(self.call("pause", cid).returncode, 0)
        self.assertEqual(self.call("kill", cid, "KILL").returncode, 0)
        self.wait_status(cid, "stopped")
        self.assertEqual(self.call("delete", cid).returncode, 0)
        self.assertEqual(self.look("ls -d " + " ".join(self.dirs()) + " 2>/dev/null || :"), "")

    @needs("memory", "pids", "cpu")
    def test_stats(self):
        cid = self.made(["/bin/sleep", "1000"], {"memory": {"limit": 64 << 20}, "pids": {"limit": 30},
                                                 "cpu": {"quota": 20000, "period": 100000}})
        before = self.used()
        eventually(lambda: self.periods() > 0, what="the end of the first period")
        p = self.call("events", "--stats", cid)
        self.assertEqual(p.returncode, 0, p.stderr)
        data = json.loads(p.stdout)["data"]
        self.assertEqual(data["memory"]["usage"]["limit"], 64 << 20)
        self.assertGreater(data["memory"]["usage"]["usage"], 0)
        self.assertEqual(data["pids"], {"current": 1, "limit": 30})
        self.assertGreaterEqual(data["cpu"]["usage"]["total"] // 1000, before)
        self.assertGreater(data["cpu"]["throttling"]["periods"], 0)

    def test_kill_all(self):
        cid = self.made(["/bin/sh", "-c", "sleep 1000 & sleep 1000 & sleep 1000"])
        self.assertEqual(self.call("kill", "--all", cid, "KILL").returncode, 0)
        self.wait_status(cid, "stopped")
        eventually(lambda: self.file("cgroup.procs") is None, what="an empty cgroup")
        self.assertEqual(self.call("delete", cid).returncode, 0)
        self.assertEqual(self.look("ls -d " + " ".join(self.dirs()) + " 2>/dev/null || :"), "")


def all_in_v2():
    return (HAS_V2 and os.path.exists("/sys/fs/cgroup/cgroup.controllers") and
            ALL <= set(pathlib.Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()))


@unittest.skipUnless(IS_OURS and os.geteuid() == 0 and all_in_v2(), "needs every controller in v2")
class Unified(Counters, Case):
    def test_files(self):
        cid = self.made(["/bin/sleep", "1000"], {
            "memory": {"limit": 64 << 20, "swap": 80 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 1024, "quota": 20000, "period": 50000, "burst": 1000, "idle": 0, "cpus": "0", "mems": "0"},
            "pids": {"limit": 10},
            "unified": {"memory.high": str(60 << 20), "pids.max": "500", "cgroup.max.depth": "3"}})
        for name, value in (("memory.max", 64 << 20), ("memory.swap.max", 16 << 20), ("memory.low", 32 << 20),
                            ("memory.high", 60 << 20), ("cpu.weight", 39), ("cpu.max", "20000 50000"),
                            ("cpu.max.burst", 1000), ("cpu.idle", 0), ("cpuset.cpus", "0"), ("pids.max", 500),
                            ("cgroup.max.depth", 3)):
            self.assertEqual(self.file(name), str(value), name)
        # Swap is told together with memory; the kernel counts it alone.
        for args, name, value in ((["--memory-swap", "96m"], "memory.swap.max", 32 << 20),
                                  (["--memory", "32m", "--memory-swap", "40m"], "memory.swap.max", 8 << 20),
                                  (["--memory-swap", "-1"], "memory.swap.max", "max"),
                                  (["--cpu-quota", "-1"], "cpu.max", "max 50000"),
                                  (["--cpu-quota", "30000"], "cpu.max", "30000 50000"),
                                  (["--memory", "-1"], "memory.max", "max"),
                                  (["--memory", "64m"], "memory.max", 64 << 20),
                                  (["--pids-limit", "-1"], "pids.max", "max")):
            p = self.call("update", *args, cid)
            self.assertEqual(p.returncode, 0, p.stderr)
            self.assertEqual(self.file(name), str(value), args)

    def test_a_file_that_is_not(self):
        for name, why in (("memory.nothing", "memory.nothing"), ("../cgroup.max.depth", "no file of a cgroup")):
            self.write(["/bin/true"], lambda c, name=name: c["linux"].update(
                cgroupsPath=self.path, resources={"unified": {name: "1"}}))
            p = self.call("run", "--bundle", str(self.bundle), self.new_id())
            self.assertNotEqual(p.returncode, 0)
            self.assertIn(why, p.stderr)
        self.assert_nothing_left()

    def test_slices(self):
        """systemd's name for a unit: every dash of a slice is a level."""
        top = f"rw{os.getpid()}"
        def change(c):
            c["linux"]["cgroupsPath"] = f"{top}-pods-one.slice:ringwall:box"
        cid = self.create(["/bin/sleep", "1000"], change)
        place = pathlib.Path(f"/sys/fs/cgroup/{top}.slice/{top}-pods.slice/{top}-pods-one.slice")
        self.addCleanup(subprocess.run, ["rmdir", place, place.parent, place.parent.parent], check=True)
        self.assertIn(str(self.state(cid)["pid"]), (place / "ringwall-box.scope/cgroup.procs").read_text().split())
        self.assertEqual(self.call("delete", "--force", cid).returncode, 0)
        self.assertEqual([p.name for p in place.iterdir() if p.is_dir()], [])


UID = 61234  # nobody's


@unittest.skipUnless(IS_OURS and os.geteuid() == 0 and all_in_v2(), "needs every controller in v2")
class Delegated(Counters, Case):
    """An ordinary user who was given a part of the hierarchy, as systemd does with Delegate=yes."""

    def setUp(self):
        super().setUp()
        self.path = f"/rw-user-{os.getpid()}"
        self.place = pathlib.Path("/sys/fs/cgroup" + self.path)
        control = "+" + " +".join(sorted(ALL))
        (self.place.parent / "cgroup.subtree_control").write_text(control)
        (self.place / "session").mkdir(parents=True)
        for f in (self.place, self.place / "session"):
            for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
                os.chown(f / name, UID, UID)
        self.home = self.dir / "home"
        shutil.copytree(self.rootfs, self.home / "rootfs", symlinks=True)
        subprocess.run(["chown", "-R", f"{UID}:{UID}", self.home], check=True)
        self.program = copy_runtime(self.dir)

    def remove(self):
        for d in (self.place / "session", self.place):
            eventually(lambda d=d: self.rmdir(d), what="empty cgroup")

    def become(self):
        (self.place / "session/cgroup.procs").write_text("0")
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)

    def user(self, *args, out=subprocess.PIPE):
        return subprocess.run([self.program, *RUNTIME[1:], *args], preexec_fn=self.become, cwd=self.home,
                              stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True, timeout=120,
                              env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(self.home)})

    def configure(self, args, path, **resources):
        p = self.user("spec", "--rootless")
        self.assertEqual(p.returncode, 0, p.stderr)
        config = json.loads((self.home / "config.json").read_text())
        config["process"].update(terminal=False, args=args)
        config["linux"].update(cgroupsPath=path, resources=resources)
        (self.home / "config.json").write_text(json.dumps(config))

    def test_limits(self):
        self.configure(["sleep", "1000"], self.path + "/box", memory={"limit": 64 << 20}, pids={"limit": 10},
                       cpu={"quota": 20000, "period": 100000})
        box = self.place / "box"
        with open(self.dir / "out", "w+") as out:
            self.assertEqual(self.user("run", "-d", "box", out=out).returncode, 0, out.seek(0) or out.read())
        try:
            self.assertEqual((box / "memory.max").read_text(), f"{64 << 20}\n")
            self.assertEqual((box / "cpu.max").read_text(), "20000 100000\n")
            pid = json.loads(self.user("state", "box").stdout)["pid"]
            procs = (box / "cgroup.procs").read_text().split()
            for p in self.processes(pid):
                self.assertIn(str(p), procs)
            self.assertEqual(self.user("update", "--memory", "96m", "box").returncode, 0)
            self.assertEqual((box / "memory.max").read_text(), f"{96 << 20}\n")
            self.assertEqual(self.user("pause", "box").returncode, 0)
            self.assertIn("frozen 1", (box / "cgroup.events").read_text())
            self.assertEqual(self.user("resume", "box").returncode, 0)
            self.assertEqual(self.user("exec", "box", "true").returncode, 0)
        finally:
            p = self.user("delete", "--force", "box")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertFalse(box.exists())

    def test_elsewhere(self):
        self.configure(["true"], "/rw-elsewhere/box", memory={"limit": 64 << 20})
        p = self.user("run", "box")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("cannot make the cgroup", p.stderr)
        self.assertIn("--ignore-cgroups", p.stderr)
        p = self.user("--ignore-cgroups", "run", "box")
        self.assertEqual(p.returncode, 0, p.stderr)


if __name__ == "__main__":
    main()
