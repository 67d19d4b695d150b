#!/usr/bin/env python3
"""Containers that join a running sandbox, as the containers of a Kubernetes pod do."""
import glob
import json
import os
import pathlib
import unittest

from harness import IS_OURS, Case, alive, eventually, main, make_rootfs

TYPE = "io.kubernetes.cri.container-type"
SANDBOX = "io.kubernetes.cri.sandbox-id"


@unittest.skipUnless(IS_OURS, "other runtimes make a pod out of namespaces")
class Pod(Case):
    def pod(self, args=("/bin/sleep", "1000")):
        def change(c):
            c["annotations"] = {TYPE: "sandbox", SANDBOX: "x"}
        pod = self.create(list(args), change)
        self.assertEqual(self.call("start", pod).returncode, 0)
        return pod

    def join(self, pod, args, change=None, rootfs=None, **kw):
        def annotate(c):
            c["annotations"] = {TYPE: "container", SANDBOX: pod}
            if rootfs:
                c["root"]["path"] = str(rootfs)
            if change:
                change(c)
        return self.create(args, annotate, **kw)

    def output(self):
        f = (self.dir / f"out{self.serial}").open("w+")
        self.addCleanup(f.close)
        return f, pathlib.Path(f.name)

    def test_second_container(self):
        pod = self.pod()
        other = make_rootfs(self.dir / "other")
        (other / "mark").write_text("other\n")
        f, out = self.output()
        cid = self.join(pod, ["/bin/sh", "-c", "cat /mark; exec sleep 1000"], rootfs=other, stdout=f)
        self.assertEqual(self.state(cid)["status"], "created")
        self.assertEqual(self.call("start", cid).returncode, 0)
        eventually(lambda: out.read_text() == "other\n", what="output")
        state = self.state(cid)
        self.assertEqual(state["status"], "running")
        self.assertNotEqual(state["pid"], self.state(pod)["pid"])
        self.assertEqual(self.call("exec", cid, "/bin/cat", "/mark").stdout, "other\n")
        self.assertNotEqual(self.call("exec", pod, "/bin/cat", "/mark").returncode, 0)
        self.assertEqual(self.call("kill", cid, "KILL").returncode, 0)
        self.wait_status(cid, "stopped")
        self.assertEqual(self.state(pod)["status"], "running", "the pod goes on")
        self.assertEqual(self.call("delete", cid).returncode, 0)
        self.assertEqual(self.call("exec", pod, "/bin/echo", "on").stdout, "on\n")

    def test_exit_code_is_its_own(self):
        pod = self.pod()
        self.write(["/bin/sh", "-c", "exit 7"], lambda c: c.update(
            annotations={TYPE: "container", SANDBOX: pod}))
        for _ in range(5):
            p = self.call("run", "--bundle", str(self.bundle), self.new_id())
            self.assertEqual(p.returncode, 7, p.stderr)
        self.assertEqual(self.state(pod)["status"], "running")

    def test_ends_with_the_sandbox(self):
        pod = self.pod()
        cids = [self.join(pod, ["/bin/sleep", "1000"]) for _ in range(2)]
        for cid in cids:
            self.assertEqual(self.call("start", cid).returncode, 0)
        pids = [self.state(cid)["pid"] for cid in cids]
        self.assertEqual(self.call("kill", pod, "KILL").returncode, 0)
        for cid, pid in zip(cids, pids):
            self.wait_status(cid, "stopped")
            self.assertFalse(alive(pid))
            self.assertEqual(self.call("delete", cid).returncode, 0)
        self.assertEqual(self.call("delete", pod).returncode, 0)
        self.assert_nothing_left()

    def test_all_of_it_ends(self):
        pod = self.pod()
        cid = self.join(pod, ["/bin/sh", "-c", "sleep 998 & sleep 999 & wait"])
        self.assertEqual(self.call("start", cid).returncode, 0)
        eventually(lambda: self.call("ps", cid).stdout.count("sleep") == 2, what="its processes")
        self.assertEqual(self.call("ps", pod).stdout.count("sleep"), 1)
        self.assertEqual(self.call("delete", "--force", cid).returncode, 0)
        eventually(lambda: self.call("ps", pod).stdout.count("sleep") == 1, what="their end")
        self.assertEqual(self.state(pod)["status"], "running")

    def test_keeper_killed(self):
        pod = self.pod()
        cid = self.join(pod, ["/bin/sleep", "1000"])
        self.assertEqual(self.call("start", cid).returncode, 0)
        os.kill(self.state(cid)["pid"], 9)
        self.wait_status(cid, "stopped")
        self.assertEqual(self.call("delete", cid).returncode, 0)
        # The name is free again, in the sandbox too.
        again = self.join(pod, ["/bin/true"])
        self.assertEqual(self.call("start", again).returncode, 0)
        self.wait_status(again, "stopped")

    def test_failures_leave_nothing(self):
        pod = self.pod()
        self.write(["/no-such-program"], lambda c: c.update(
            annotations={TYPE: "container", SANDBOX: pod}))
        for _ in range(3):
            p = self.call("create", "--bundle", str(self.bundle), self.new_id())
            self.assertNotEqual(p.returncode, 0)
            self.assertIn("no-such-program", p.stderr)
        self.write(["/bin/true"], lambda c: c.update(annotations={TYPE: "container", SANDBOX: "none"}))
        p = self.call("create", "--bundle", str(self.bundle), self.new_id())
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("does not exist", p.stderr)
        rows = json.loads(self.call("list", "--format", "json").stdout)
        self.assertEqual([r["id"] for r in rows], [pod])

    # ---- namespaces ----

    def started(self, pod, args, change=None, **kw):
        cid = self.join(pod, args, change, **kw)
        self.assertEqual(self.call("start", cid).returncode, 0)
        return cid

    def run_in(self, pod, script, change=None):
        """Output of a container of the pod that runs to its end."""
        def annotate(c):
            c["annotations"] = {TYPE: "container", SANDBOX: pod}
            if change:
                change(c)
        self.write(["/bin/sh", "-c", script], annotate)
        p = self.call("run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual(p.returncode, 0, p.stderr)
        return p.stdout

    def test_own_processes(self):
        pod = self.pod()
        out = self.run_in(pod, "echo $$; ls /proc | grep -c '^[0-9]'; ps -o pid,args | grep -v grep")
        first, count, *rows = out.splitlines()
        # The shell, and the two sides of its pipe.
        self.assertEqual((first, int(count) <= 3), ("1", True), out)
        self.assertNotIn("1000", " ".join(rows))
        cid = self.started(pod, ["/bin/sh", "-c", "sleep 901 & wait"])
        table = eventually(lambda: [t for t in [self.call("ps", cid).stdout] if "sleep" in t], what="ps")
        self.assertEqual([r.split()[1] for r in table[0].splitlines()[1:]], ["1", "2"])
        self.assertEqual(self.call("exec", cid, "/bin/sh", "-c", "echo $$ $PPID").stdout, "3 0\n")

    def test_own_host_name(self):
        pod = self.pod()
        def rename(c):
            c["hostname"], c["domainname"] = "second", "example.org"
        self.assertEqual(self.run_in(pod, "hostname; cat /proc/sys/kernel/domainname", rename),
                         "second\nexample.org\n")
        self.assertEqual(self.call("exec", pod, "/bin/hostname").stdout, "guest\n")

    def share(self, kind, pid):
        def change(c):
            for n in c["linux"]["namespaces"]:
                if n["type"] == kind:
                    n["path"] = f"/proc/{pid}/ns/{kind}"
        return change

    def test_shared_host_name(self):
        pod = self.pod()
        def change(c):
            self.share("uts", self.state(pod)["pid"])(c)
            del c["hostname"]
        self.assertEqual(self.run_in(pod, "hostname", change), "guest\n")

    def test_shared_processes(self):
        """shareProcessNamespace: all see all, and still each container ends alone."""
        pod = self.pod()
        share = self.share("pid", self.state(pod)["pid"])
        one = self.started(pod, ["/bin/sleep", "901"], share)
        two = self.started(pod, ["/bin/sh", "-c", "sleep 902 & wait"], share)
        def seen(cid):
            return self.call("exec", cid, "/bin/ps", "-o", "args").stdout
        eventually(lambda: all(n in seen(one) for n in ("1000", "901", "902")), what="all of them")
        # Its child has the name once it has run exec.
        eventually(lambda: self.call("ps", two).stdout.count("sleep") == 1, what="its own process alone")
        self.assertEqual(self.call("kill", two, "KILL").returncode, 0)
        self.wait_status(two, "stopped")
        self.assertEqual(self.call("delete", two).returncode, 0)
        eventually(lambda: "902" not in seen(one), what="the end of the second")
        self.assertIn("901", seen(pod))

    def test_processes_of_a_container(self):
        pod = self.pod()
        one = self.started(pod, ["/bin/sleep", "901"])
        two = self.started(pod, ["/bin/sleep", "902"], self.share("pid", self.state(one)["pid"]))
        text = self.call("exec", two, "/bin/ps", "-o", "args").stdout
        self.assertIn("901", text)
        self.assertNotIn("1000", text)

    def test_no_strange_processes(self):
        pod = self.pod()
        for path in (f"/proc/{os.getpid()}/ns/pid", "/proc/1/ns/pid", "/no/such/ns"):
            def change(c, path=path):
                c["annotations"] = {TYPE: "container", SANDBOX: pod}
                for n in c["linux"]["namespaces"]:
                    if n["type"] == "pid":
                        n["path"] = path
            self.write(["/bin/true"], change)
            p = self.call("create", "--bundle", str(self.bundle), self.new_id())
            self.assertNotEqual(p.returncode, 0)
            self.assertIn("is no container of sandbox", p.stderr)

    def test_unshared_processes_end_too(self):
        """Whoever left the container's namespaces is still one of its processes."""
        def admin(c):
            for k in ("bounding", "effective", "permitted"):
                c["process"]["capabilities"][k] = c["process"]["capabilities"][k] + ["CAP_SYS_ADMIN"]
        for shared in (False, True):
            pod = self.pod()
            share = self.share("pid", self.state(pod)["pid"]) if shared else lambda c: None
            cid = self.started(pod, ["/bin/sh", "-c", "unshare -m sleep 903 & unshare -p -f sleep 904 & "
                                     "(trap '' TERM; setsid sleep 905) & wait"],
                               lambda c: (admin(c), share(c)))
            def left():
                return self.call("exec", pod, "/bin/ps", "-o", "args").stdout
            eventually(lambda: all(f"sleep {n}" in left() for n in (903, 904, 905)), what="its processes")
            self.assertEqual(self.call("kill", cid, "KILL").returncode, 0)
            self.wait_status(cid, "stopped")
            eventually(lambda: not any(f"sleep {n}" in left() for n in (903, 904, 905)), what="their end")
            self.assertEqual(self.state(pod)["status"], "running")

    def test_exec_ends_with_its_container(self):
        pod = self.pod()
        cid = self.started(pod, ["/bin/sleep", "901"])
        p = self.popen("exec", cid, "/bin/sleep", "902")
        eventually(lambda: self.call("ps", cid).stdout.count("sleep") == 2, what="exec")
        self.assertEqual(self.call("kill", cid, "KILL").returncode, 0)
        p.communicate(timeout=120)
        self.assertEqual(p.returncode, 137)

    # ---- limits ----

    def stats(self, cid):
        return json.loads(self.call("events", "--stats", cid).stdout)["data"]

    def test_limit_of_processes(self):
        pod = self.pod()
        def limit(n):
            return lambda c: c["linux"].update(resources={"pids": {"limit": n}})
        cid, free = (self.started(pod, ["/bin/sleep", "900"], change) for change in (limit(6), None))
        ok = [[self.call_quiet("exec", "--detach", c, "/bin/sleep", "900").returncode == 0
               for _ in range(8)] for c in (cid, free)]
        self.assertEqual(ok, [[True] * 5 + [False] * 3, [True] * 8])
        self.assertEqual([self.stats(c)["pids"]["current"] for c in (cid, free)], [6, 9])
        self.assertEqual(self.stats(cid)["pids"]["limit"], 6)
        self.assertNotIn("limit", self.stats(free)["pids"])
        self.assertNotEqual(self.call("exec", cid, "/bin/true").returncode, 0)
        self.assertEqual(self.call("update", "--pids-limit", "9", cid).returncode, 0)
        self.assertEqual(self.call("exec", cid, "/bin/true").returncode, 0)
        self.assertEqual(self.stats(cid)["pids"]["limit"], 9)

    HOG = "awk 'BEGIN{s=\"x\"; for(i=0;i<28;i++) s=s s}'"

    @staticmethod
    def memory(mib):
        return lambda c: c["linux"].update(resources={"memory": {"limit": mib << 20}})

    def test_limit_of_memory(self):
        """Whoever wants too much ends in its own container; the others go on."""
        pod = self.pod()
        f, out = self.output()
        small = self.started(pod, ["/bin/sh", "-c", f"for i in 1 2; do {self.HOG}; echo $?; done; exec sleep 1000"],
                             self.memory(64), stdout=f)
        large = self.started(pod, ["/bin/sh", "-c", f"{self.HOG}; echo $? > /tmp/done; exec sleep 1000"])
        eventually(lambda: out.read_text().split() == ["137", "137"], timeout=180, what="two ends")
        eventually(lambda: self.call("exec", large, "/bin/cat", "/tmp/done").stdout == "0\n", timeout=180, what="work")
        self.assertEqual([self.state(c)["status"] for c in (pod, small, large)], ["running"] * 3)
        usage = self.stats(small)["memory"]["usage"]
        self.assertEqual(usage["limit"], 64 << 20)
        self.assertLess(usage["usage"], 64 << 20)

    def test_init_out_of_memory(self):
        pod = self.pod()
        self.write(["/bin/sh", "-c", "exec " + self.HOG], lambda c: (
            c.update(annotations={TYPE: "container", SANDBOX: pod}), self.memory(48)(c)))
        p = self.call("run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual(p.returncode, 137, p.stderr)
        self.assertEqual(self.state(pod)["status"], "running")

    def test_events_are_its_own(self):
        pod = self.pod()
        limited = self.join(pod, ["/bin/sh", "-c", f"{self.HOG}; exec sleep 1000"], self.memory(48))
        other = self.started(pod, ["/bin/sleep", "1000"])
        watch = {c: self.popen("events", "--interval", "60m", c) for c in (limited, other, pod)}
        for w in watch.values():
            self.assertEqual(json.loads(w.stdout.readline())["type"], "stats")
        self.assertEqual(self.call("start", limited).returncode, 0)
        self.assertEqual(json.loads(watch[limited].stdout.readline()), {"type": "oom", "id": limited})
        for c in (other, pod):
            watch[c].kill()
            self.assertEqual(watch[c].communicate()[0], "")

    def test_memory_is_updated(self):
        pod = self.pod()
        cid = self.started(pod, ["/bin/sleep", "1000"], self.memory(48))
        need = "awk 'BEGIN{s=\"x\"; for(i=0;i<25;i++) s=s s}'"
        self.assertEqual(self.call("exec", cid, "/bin/sh", "-c", need).returncode, 137)
        self.assertEqual(self.call("update", "--memory", "400m", cid).returncode, 0)
        self.assertEqual(self.stats(cid)["memory"]["usage"]["limit"], 400 << 20)
        self.assertEqual(self.call("exec", cid, "/bin/sh", "-c", need).returncode, 0)

    SPIN = "while :; do :; done"

    def cpu(self, cid):
        return self.stats(cid)["cpu"]["usage"]["total"]

    def test_counters_are_its_own(self):
        pod = self.pod()
        busy = self.started(pod, ["/bin/sh", "-c", self.SPIN])
        idle = self.started(pod, ["/bin/sleep", "1000"])
        eventually(lambda: self.cpu(busy) > 300_000_000, what="work")
        self.assertLess(self.cpu(idle), 200_000_000)
        self.assertEqual(self.stats(idle)["pids"]["current"], 1)

    def test_share_of_time(self):
        """A quota holds a container back, and an update lets it go on."""
        pod = self.pod()
        quota = {"cpu": {"quota": 5000, "period": 100000}}
        slow = self.started(pod, ["/bin/sh", "-c", self.SPIN], lambda c: c["linux"].update(resources=quota))
        free = self.started(pod, ["/bin/sh", "-c", self.SPIN])
        def held():
            return self.stats(slow)["cpu"]["throttling"]
        eventually(lambda: held()["throttledPeriods"] > 1 and held()["throttledTime"] > 0, timeout=180, what="holds")
        self.assertEqual(self.stats(free)["cpu"]["throttling"]["throttledPeriods"], 0)
        self.assertEqual(self.call("update", "--cpu-quota", "-1", slow).returncode, 0)
        before = self.stats(slow)["cpu"]["throttling"]["throttledPeriods"]
        used = self.cpu(slow)
        eventually(lambda: self.cpu(slow) > used + 200_000_000, timeout=180, what="its release")
        self.assertEqual(self.stats(slow)["cpu"]["throttling"]["throttledPeriods"], before)

    CGROUP = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    HOST_LIMITS = {"pids.max": "pids.max", "memory.limit_in_bytes": "memory.max", "cpu.cfs_quota_us": "cpu.max",
                   "memory.max": "memory.max", "cpu.max": "cpu.max"}

    def host_limits(self, path):
        """file -> its text, in every hierarchy of the host."""
        return {name: pathlib.Path(f).read_text().strip() for name in self.HOST_LIMITS
                for f in glob.glob(f"/sys/fs/cgroup/*{path}/{name}") + glob.glob(f"/sys/fs/cgroup{path}/{name}")}

    def check_limits(self, cid, path, pids, memory, quota):
        """What its processes see, what is counted and what the host's groups say are about the same."""
        p = self.call("exec", cid, "/bin/sh", "-c", "cd /sys/fs/cgroup; cat pids.max memory.max cpu.max")
        self.assertEqual(p.stdout, f"{pids}\n{memory}\n{quota} 50000\n", p.stderr)
        stats = self.stats(cid)
        self.assertEqual((stats["pids"]["limit"], stats["memory"]["usage"]["limit"]), (pids, memory))
        # A task is a thread of the sentry and one of a stub.
        want = {"pids.max": {str(2 * pids + 64)}, "memory.limit_in_bytes": {str(memory)},
                "cpu.cfs_quota_us": {str(quota)}, "memory.max": {str(memory)}, "cpu.max": {f"{quota} 50000"}}
        for name, text in self.host_limits(path).items():
            self.assertIn(text, want[name], name)

    @unittest.skipUnless(os.path.isdir("/sys/fs/cgroup/pids") or
                         os.path.exists("/sys/fs/cgroup/cgroup.controllers"), "needs groups that tests can tidy up")
    def test_limits_agree(self):
        path = f"/ringwall-pod-limits-{os.getpid()}"
        self.addCleanup(lambda: [os.rmdir(d) for d in glob.glob(f"/sys/fs/cgroup/*{path}") +
                                 glob.glob(f"/sys/fs/cgroup{path}")])
        pod = self.pod()
        def change(c):
            c["mounts"].append(self.CGROUP)
            c["linux"].update(cgroupsPath=path, resources={
                "pids": {"limit": 20}, "memory": {"limit": 64 << 20}, "cpu": {"quota": 40000, "period": 50000}})
        cid = self.started(pod, ["/bin/sleep", "1000"], change)
        self.assertIn("pids.max", self.host_limits(path))
        self.check_limits(cid, path, 20, 64 << 20, 40000)
        update = ["--pids-limit", "30", "--memory", "96m", "--cpu-quota", "30000"]
        self.assertEqual(self.call("update", *update, cid).returncode, 0)
        self.check_limits(cid, path, 30, 96 << 20, 30000)
        # Held back by the sandbox, it takes them all the same.
        self.assertEqual(self.call("pause", cid).returncode, 0)
        update = ["--pids-limit", "40", "--memory", "80m", "--cpu-quota", "20000"]
        self.assertEqual(self.call("update", *update, cid).returncode, 0)
        self.assertEqual(self.call("resume", cid).returncode, 0)
        self.check_limits(cid, path, 40, 80 << 20, 20000)
        self.assertEqual(self.call("delete", "--force", cid).returncode, 0)

    def test_period_alone_is_updated(self):
        pod = self.pod()
        cid = self.started(pod, ["/bin/sh", "-c", self.SPIN], lambda c: c["linux"].update(
            resources={"cpu": {"quota": 1000000, "period": 1000000}}))
        self.assertEqual(self.call("update", "--cpu-period", "1000", cid).returncode, 0)
        def periods():
            return self.stats(cid)["cpu"]["throttling"]["periods"]
        # The quota stays, and is more than one processor can use up.
        before = periods()
        eventually(lambda: periods() > before + 100, timeout=60, what="short periods")
        self.assertEqual(self.stats(cid)["cpu"]["throttling"]["throttledPeriods"], 0)

    # ---- pauses ----

    COUNT = "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; done"

    def count(self, cid):
        """What its shared file says, read by somebody who is not held."""
        return (self.dir / "share" / "n").read_text()

    def test_pause(self):
        (self.dir / "share").mkdir()
        def bind(c):
            c["mounts"][-1] = {"destination": "/tmp", "type": "bind", "source": str(self.dir / "share"),
                               "options": ["rbind"]}
        pod = self.pod()
        cid = self.started(pod, ["/bin/sh", "-c", self.COUNT], bind)
        other = self.started(pod, ["/bin/sleep", "1000"])
        for _ in range(3):
            eventually(lambda: (self.dir / "share/n").exists() and self.count(cid), what="work")
            self.assertEqual(self.call("pause", cid).returncode, 0)
            self.assertEqual(self.state(cid)["status"], "paused")
            eventually(lambda: self.cpu(cid) == self.cpu(cid), what="rest")
            seen = self.count(cid)
            self.assertEqual(self.call("exec", other, "/bin/echo", "on").stdout, "on\n")
            self.assertEqual(self.call("exec", pod, "/bin/echo", "on").stdout, "on\n")
            self.assertNotEqual(self.call("exec", cid, "/bin/true").returncode, 0)
            self.assertNotEqual(self.call("delete", cid).returncode, 0)
            self.assertEqual(self.count(cid), seen)
            self.assertEqual(self.call("resume", cid).returncode, 0)
            self.assertEqual(self.state(cid)["status"], "running")
            eventually(lambda: self.count(cid) not in ("", seen), what="going on")
        self.assertNotEqual(self.call("resume", cid).returncode, 0)

    @unittest.skipUnless(os.path.isdir("/sys/fs/cgroup/freezer"), "needs a freezer that tests can tidy up")
    def test_in_a_frozen_sandbox(self):
        path = f"/ringwall-pod-{os.getpid()}"
        self.addCleanup(lambda: [os.rmdir(d) for d in glob.glob(f"/sys/fs/cgroup/*{path}")])
        pod = self.create(["/bin/sleep", "1000"], lambda c: (
            c.update(annotations={TYPE: "sandbox", SANDBOX: "x"}), c["linux"].update(cgroupsPath=path)))
        self.assertEqual(self.call("start", pod).returncode, 0)
        one, two = (self.started(pod, ["/bin/sleep", "1000"]) for _ in range(2))
        self.assertEqual(self.call("pause", pod).returncode, 0)
        self.assertEqual([self.state(c)["status"] for c in (pod, one, two)], ["paused"] * 3)
        self.assertEqual(self.call("update", "--pids-limit", "5", two).returncode, 0)
        self.assertEqual(self.call("kill", one, "KILL").returncode, 0)
        self.assertEqual(self.call("delete", "--force", one).returncode, 0)
        self.assertEqual(self.call("resume", pod).returncode, 0)
        self.assertEqual([self.state(c)["status"] for c in (pod, two)], ["running"] * 2)
        eventually(lambda: self.stats(two)["pids"].get("limit") == 5, what="what was left for it")
        self.assertEqual(self.call("delete", "--force", two).returncode, 0)
        self.assertEqual(self.call("delete", "--force", pod).returncode, 0)

    def test_kill_paused(self):
        pod = self.pod()
        for how in (["kill", None, "KILL"], ["delete", "--force", None]):
            cid = self.started(pod, ["/bin/sh", "-c", self.SPIN])
            self.assertEqual(self.call("pause", cid).returncode, 0)
            self.assertEqual(self.call(*[cid if w is None else w for w in how]).returncode, 0)
            if how[0] == "kill":
                self.wait_status(cid, "stopped")
        self.assertEqual(self.state(pod)["status"], "running")

    def test_signal_while_paused(self):
        pod = self.pod()
        f, out = self.output()
        cid = self.started(pod, ["/bin/sh", "-c", "trap 'echo term; exit 3' TERM; echo up; " + self.SPIN],
                           stdout=f)
        eventually(lambda: out.read_text() == "up\n", what="start")
        self.assertEqual(self.call("pause", cid).returncode, 0)
        self.assertEqual(self.call("kill", cid, "TERM").returncode, 0)
        self.assertEqual(self.state(cid)["status"], "paused")
        self.assertEqual(out.read_text(), "up\n")
        self.assertEqual(self.call("resume", cid).returncode, 0)
        self.wait_status(cid, "stopped")
        self.assertEqual(out.read_text(), "up\nterm\n")

    def test_states(self):
        """Killed in each of its states."""
        pod = self.pod()
        for state in ("created", "running", "paused", "stopped"):
            cid = self.join(pod, ["/bin/sleep", "1000"])
            if state != "created":
                self.assertEqual(self.call("start", cid).returncode, 0)
            if state == "paused":
                self.assertEqual(self.call("pause", cid).returncode, 0)
            if state == "stopped":
                self.assertEqual(self.call("kill", cid, "KILL").returncode, 0)
                self.wait_status(cid, "stopped")
            self.assertEqual(self.state(cid)["status"], state)
            p = self.call("kill", cid, "KILL")
            self.assertEqual(p.returncode == 0, state != "stopped", p.stderr)
            self.wait_status(cid, "stopped")
            self.assertEqual(self.call("delete", cid).returncode, 0)


if __name__ == "__main__":
    main()
