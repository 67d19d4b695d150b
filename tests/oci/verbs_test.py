#!/usr/bin/env python3
"""Commands on a running container: ps, pause, resume, update, events, wait, kill --all, features."""
import glob
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from harness import IS_OURS, RUNTIME, Case, alive, eventually, main

RECVMSG = "47"


def cgroup_file(path, name):
    """The file of the cgroup in whichever hierarchy has it."""
    found = glob.glob(f"/sys/fs/cgroup/*{path}/{name}") + glob.glob(f"/sys/fs/cgroup{path}/{name}")
    return pathlib.Path(found[0]) if found else None


class Verbs(Case):
    def setUp(self):
        super().setUp()
        self.cgroup = f"/ringwall-test-{os.getpid()}-{id(self)}/c"
        self.addCleanup(self._remove_cgroup)

    def _remove_cgroup(self):
        for d in glob.glob(f"/sys/fs/cgroup/*{self.cgroup}") + glob.glob(f"/sys/fs/cgroup{self.cgroup}"):
            self.assertFalse(True, f"{d} is left behind")
        parent = os.path.dirname(self.cgroup)
        for d in glob.glob(f"/sys/fs/cgroup/*{parent}") + glob.glob(f"/sys/fs/cgroup{parent}"):
            os.rmdir(d)

    def start(self, args, change=None, **kw):
        def with_cgroup(c):
            c["linux"]["cgroupsPath"] = self.cgroup
            if change:
                change(c)
        cid = self.create(args, with_cgroup, **kw)
        self.assertEqual(self.call("start", cid).returncode, 0)
        return cid

    def test_lives_in_its_cgroup(self):
        cid = self.start(["/bin/sleep", "1000"])
        lines = pathlib.Path(f"/proc/{self.state(cid)['pid']}/cgroup").read_text().split()
        self.assertTrue(lines)
        mounted = pathlib.Path("/proc/self/mounts").read_text()
        for line in lines:
            # A hierarchy that somebody mounted out of our sight is nobody's to use.
            name = line.split(":")[1]
            if not name.startswith("name=") or f"{name} " in mounted or f"{name}," in mounted:
                self.assertTrue(line.endswith(self.cgroup), line)
        self.call("delete", "--force", cid)

    def test_limits(self):
        def change(c):
            c["linux"]["resources"] = {
                "memory": {"limit": 128 << 20}, "cpu": {"shares": 512, "quota": 50000, "period": 100000},
                "pids": {"limit": 100}}
        cid = self.start(["/bin/sleep", "1000"], change)
        memory = cgroup_file(self.cgroup, "memory.limit_in_bytes") or cgroup_file(self.cgroup, "memory.max")
        self.assertEqual(int(memory.read_text()), 128 << 20)
        if quota := cgroup_file(self.cgroup, "cpu.cfs_quota_us"):
            self.assertEqual(int(quota.read_text()), 50000)
            self.assertEqual(int(cgroup_file(self.cgroup, "cpu.shares").read_text()), 512)
        self.assertNotEqual(cgroup_file(self.cgroup, "pids.max").read_text(), "max\n")
        p = self.call("update", "--memory", "67108864", "--cpu-quota", "20000", cid)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(int(memory.read_text()), 64 << 20)
        p = self.call("update", "--resources", "-", cid, stdin=None, input=json.dumps(
            {"memory": {"limit": 96 << 20}, "cpu": {"shares": 256}}))
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(int(memory.read_text()), 96 << 20)
        self.assertNotEqual(self.call("update", "--cpuset-cpus", "4095", cid).returncode, 0)
        self.call("delete", "--force", cid)

    def test_limits_without_a_path(self):
        """A cgroup of the runtime's choice goes with the container, and what it made above it."""
        def change(c):
            c["linux"].pop("cgroupsPath")
            c["linux"]["resources"] = {"memory": {"limit": 64 << 20}}
        before = set(glob.glob("/sys/fs/cgroup/*") + glob.glob("/sys/fs/cgroup/*/*"))
        cid = self.start(["/bin/sleep", "1000"], change)
        found = [d for d in glob.glob("/sys/fs/cgroup/**/memory.limit_in_bytes", recursive=True)
                 + glob.glob("/sys/fs/cgroup/**/memory.max", recursive=True) if f"/{cid}/" in d]
        self.assertEqual(len(found), 1, found)
        self.call("delete", "--force", cid)
        self.assertFalse(os.path.exists(os.path.dirname(found[0])))
        if IS_OURS and "ringwall" not in {os.path.basename(d) for d in before}:
            # Unless somebody else on this machine has a container there now.
            left = os.path.dirname(os.path.dirname(found[0]))
            self.assertTrue(not os.path.exists(left) or glob.glob(f"{left}/*/"), left)

    def test_pause_and_resume(self):
        out = (self.dir / "out").open("w+")
        self.addCleanup(out.close)
        cid = self.start(["/bin/sh", "-c", "while :; do echo tick; done"], stdout=out)
        size = lambda: (self.dir / "out").stat().st_size
        eventually(lambda: size() > 0, what="output")
        p = self.call("pause", cid)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(self.state(cid)["status"], "paused")
        before = size()
        time.sleep(0.2)
        self.assertEqual(size(), before, "a paused container goes on")
        self.assertNotEqual(self.call("exec", cid, "/bin/true").returncode, 0)
        self.assertNotEqual(self.call("delete", cid).returncode, 0)
        self.assertEqual(self.call("resume", cid).returncode, 0)
        self.assertEqual(self.state(cid)["status"], "running")
        eventually(lambda: size() > before, what="more output")
        self.assertNotEqual(self.call("resume", cid).returncode, 0, "it is not paused")
        self.call("delete", "--force", cid)

    def test_kill_and_delete_when_paused(self):
        cid = self.start(["/bin/sleep", "1000"])
        self.assertEqual(self.call("pause", cid).returncode, 0)
        self.assertEqual(self.call("kill", cid, "KILL").returncode, 0)
        eventually(lambda: self.state(cid)["status"] == "stopped", what="stopped")
        self.assertEqual(self.call("delete", cid).returncode, 0)
        cid = self.start(["/bin/sleep", "1000"])
        self.assertEqual(self.call("pause", cid).returncode, 0)
        self.assertEqual(self.call("delete", "--force", cid).returncode, 0)
        self.assert_nothing_left()

    @unittest.skipUnless(IS_OURS, "runc's signals to a frozen cgroup are the host kernel's affair")
    def test_signal_waits_for_resume(self):
        out = (self.dir / "out").open("w+")
        self.addCleanup(out.close)
        cid = self.start(["/bin/sh", "-c", "trap 'echo caught; exit 4' TERM; echo ready;"
                          "while :; do sleep 0.05; done"], stdout=out)
        eventually(lambda: "ready" in (self.dir / "out").read_text(), what="ready")
        self.assertEqual(self.call("pause", cid).returncode, 0)
        self.assertEqual(self.call("kill", cid, "TERM").returncode, 0)
        self.assertEqual(self.state(cid)["status"], "paused")
        self.assertEqual(self.call("resume", cid).returncode, 0)
        self.wait_status(cid, "stopped")
        self.assertEqual((self.dir / "out").read_text(), "ready\ncaught\n")
        self.call("delete", cid)

    def test_ps(self):
        cid = self.start(["/bin/sh", "-c", "sleep 1000; true"])
        pids = json.loads(self.call("ps", "--format", "json", cid).stdout)
        self.assertIn(self.state(cid)["pid"], pids)
        pid_file = self.dir / "exec.pid"
        p = self.call_quiet("exec", "--detach", "--pid-file", str(pid_file), cid, "/bin/sleep", "999")
        self.assertEqual(p.returncode, 0)
        helper = int(pid_file.read_text())
        pids = json.loads(self.call("ps", "--format", "json", cid).stdout)
        self.assertIn(helper, pids)
        for pid in pids:
            self.assertTrue(alive(pid))
            self.assertIn(self.cgroup, pathlib.Path(f"/proc/{pid}/cgroup").read_text())
        table = self.call("ps", cid).stdout
        self.assertIn("sleep", table)
        os.kill(helper, signal.SIGTERM)
        eventually(lambda: not alive(helper), what="the end of exec")
        eventually(lambda: helper not in json.loads(self.call("ps", "--format", "json", cid).stdout),
                   what="ps without the exec")
        self.call("delete", "--force", cid)

    def test_events(self):
        cid = self.start(["/bin/sh", "-c", "while :; do :; done"])
        stats = json.loads(self.call("events", "--stats", cid).stdout)
        self.assertEqual((stats["type"], stats["id"]), ("stats", cid))
        self.assertGreater(stats["data"]["memory"]["usage"]["usage"], 0)
        self.assertGreaterEqual(stats["data"]["pids"]["current"], 1)

        def used():
            return json.loads(self.call("events", "--stats", cid).stdout)["data"]["cpu"]["usage"]["total"]
        first = used()
        eventually(lambda: used() > first, what="CPU time")
        p = self.popen("events", "--interval", "10ms", cid)
        json.loads(p.stdout.readline())
        json.loads(p.stdout.readline())
        self.call("delete", "--force", cid)
        if IS_OURS:
            self.assertEqual(p.wait(120), 0)

    def test_kill_all(self):
        cid = self.start(["/bin/sleep", "1000"])
        self.assertEqual(self.call("kill", "--all", cid, "9").returncode, 0)
        self.wait_status(cid, "stopped")
        self.assertEqual(self.call("kill", "--all", cid, "9").returncode, 0, "also when it has ended")
        p = self.call("kill", cid, "9")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("container not running", p.stderr)
        self.assertEqual(self.call("delete", cid).returncode, 0)
        p = self.call("delete", cid)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("does not exist", p.stderr)
        self.assertEqual(self.call("delete", "--force", cid).returncode, 0)

    def test_every_signal_reaches_an_exec(self):
        cid = self.start(["/bin/sleep", "1000"])
        for sig in (signal.SIGTERM, signal.SIGALRM, signal.SIGVTALRM, signal.SIGRTMIN + 1):
            p = self.popen("exec", cid, "/bin/sh", "-c", "echo up; exec sleep 1000")
            self.assertEqual(p.stdout.readline(), "up\n")
            p.send_signal(sig)
            self.assertEqual(p.wait(120), 128 + sig)
        self.call("delete", "--force", cid)

    def test_exec_killed_from_outside(self):
        cid = self.start(["/bin/sleep", "1000"])
        pid_file = self.dir / "exec.pid"
        p = self.call_quiet("exec", "--detach", "--pid-file", str(pid_file), cid, "/bin/sleep", "998")
        self.assertEqual(p.returncode, 0)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        if IS_OURS:
            eventually(lambda: "sleep" not in "".join(
                self.call("ps", cid).stdout.splitlines()[2:]), what="the program's end")
        self.call("delete", "--force", cid)

    def test_spec_rootless(self):
        self.assertEqual(self.call("spec", "--rootless", cwd=self.bundle).returncode, 0)
        config = json.loads((self.bundle / "config.json").read_text())
        self.assertEqual(config["linux"]["uidMappings"][0]["containerID"], 0)
        self.assertIn({"type": "user"}, config["linux"]["namespaces"])

    def test_features(self):
        p = self.call("features")
        self.assertEqual(p.returncode, 0, p.stderr)
        f = json.loads(p.stdout)
        self.assertEqual(f["ociVersionMin"], "1.0.0")
        self.assertIn("startContainer", f["hooks"])
        self.assertIn("rbind", f["mountOptions"])
        self.assertIn("CAP_SYS_ADMIN", f["linux"]["capabilities"])
        self.assertTrue(f["linux"]["cgroup"]["v1"])


@unittest.skipUnless(IS_OURS, "our own commands and options")
class Own(Case):
    def test_wait(self):
        cid = self.create(["/bin/sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 11"])
        self.assertEqual(self.call("start", cid).returncode, 0)
        p = self.popen("wait", cid)
        # Whoever asks later is served later, so it must have asked: it waits for the answer.
        asked = lambda: pathlib.Path(f"/proc/{p.pid}/syscall").read_text().split()[0] == RECVMSG
        eventually(asked, what="the question")
        self.assertEqual(self.call("exec", cid, "/bin/touch", "/tmp/end").returncode, 0)
        self.assertEqual(json.loads(p.stdout.readline()), {"id": cid, "exitStatus": 11})
        self.assertEqual(p.wait(120), 0)
        self.assertNotEqual(self.call("wait", cid).returncode, 0)

    def test_help(self):
        listed = self.call("--help").stdout
        names = re.findall(r"^  ([a-z][a-z-]*)\b", listed, re.M)
        # What the project promises, each with its own help.
        for name in ("create", "start", "run", "state", "kill", "delete", "exec", "ps", "list", "pause",
                     "resume", "update", "events", "spec", "wait", "port-forward", "debug", "do", "features",
                     "install", "uninstall"):
            self.assertIn(name, names)
            for words in (("help", name), (name, "--help")):
                p = self.call(*words)
                self.assertEqual(p.returncode, 0)
                self.assertRegex(p.stdout, rf"  {name}\b")

    def test_debug(self):
        log = self.dir / "log"
        self.write(["/bin/sh", "-c", "while :; do sleep 0.02; done"])
        cid = self.new_id()
        base = [*RUNTIME, "--root", str(self.root), "--log", str(log)]
        subprocess.run([*base, "create", "--bundle", str(self.bundle), cid], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertEqual(self.call("start", cid).returncode, 0)
        stacks = self.call("debug", "--stacks", cid).stdout
        self.assertIn("runsc-sentry", stacks)
        self.assertNotIn("nanosleep", log.read_text())
        self.assertEqual(self.call("debug", "--strace", "on", cid).returncode, 0)
        eventually(lambda: "nanosleep" in log.read_text(), what="system calls in the log")
        self.assertEqual(self.call("debug", "--strace", "off", "--log-level", "warning", cid).returncode, 0)
        self.assertNotEqual(self.call("debug", "--log-level", "loud", cid).returncode, 0)

    def started(self, *args, annotations=None):
        cid = self.create(list(args), lambda c: c.update(annotations=annotations or {}))
        self.assertEqual(self.call("start", cid).returncode, 0)
        return cid

    def test_stacks(self):
        """Which function each thread of the sentry is in, and for which task of a guest."""
        kind, box = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
        pod = self.started("/bin/sleep", "1000", annotations={kind: "sandbox"})
        one = self.started("/bin/sh", "-c", "read x < /dev/ptmx", annotations={kind: "container", box: pod})
        # What ends up where: a thread's way there takes as long as the machine is busy.
        places = [(f"guest process 1, thread 1 (sleep), state S, container {pod}", "task_nanosleep"),
                  (f"(sh), state S, container {one}", "sys_poll"), ("boot_main", "boot_serve")]

        def stacks(cid):
            p = self.call("debug", "--stacks", cid)
            self.assertEqual(p.returncode, 0, p.stderr)
            return p.stdout.split("\nthread ")

        def settled(threads):
            return all(any(a in t and b in t for t in threads) for a, b in places)
        for cid in (pod, one):
            threads = eventually(lambda: (lambda t: t if settled(t) else None)(stacks(cid)), what=f"all of {places}")
            self.assertEqual(len([t for t in threads if f"(sleep), state S, container {pod}" in t]), 1, threads)
        # They were held, and went on.
        self.assertEqual(self.call("exec", pod, "echo", "on").stdout, "on\n")
        self.assertEqual(self.call("kill", one, "KILL").returncode, 0)
        self.wait_status(one, "stopped")
        self.assertNotEqual(self.call("debug", "--stacks", one).returncode, 0)

    def test_names_that_guests_choose(self):
        cid = self.started("/bin/sh", "-c", r"printf '\033[2Jevil' > /proc/self/comm; while :; do sleep 1; done")
        eventually(lambda: "evil" in self.call("ps", cid).stdout, what="the name")
        for args in (("ps", cid), ("debug", "--stacks", cid)):
            p = self.call(*args)
            self.assertIn("?[2Jevil", p.stdout)
            self.assertNotIn("\033", p.stdout)

    def test_profile(self):
        cid = self.started("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1")
        path = self.dir / "profile"
        p = self.call("debug", "--profile", str(path), "--seconds", "1", cid)
        self.assertEqual(p.returncode, 0, p.stderr)
        stacks = {}
        for line in path.read_text().splitlines():
            frames, count = line.rsplit(" ", 1)
            stacks[frames] = int(count)
        self.assertTrue([s for s in stacks if "task_loop" in s.split(";")], stacks)
        outer = [s.split(";")[0] for s in stacks]
        self.assertTrue({"clone3", "__clone3", "clone", "start_thread"} & set(outer), outer)
        self.assertNotEqual(self.call("debug", "--profile", "-", "--seconds", "0", cid).returncode, 0)
        self.assertNotEqual(self.call("debug", "--profile", "/no/such/dir/x", cid).returncode, 0)
        p = self.call("debug", "--profile", "-", "--seconds", "1", cid)
        self.assertRegex(p.stdout, r"(?m)^\S.* \d+$")

    def test_ignore_cgroups(self):
        path = f"/ringwall-test-{os.getpid()}-none"
        self.write(["/bin/true"], lambda c: c["linux"].update(cgroupsPath=path))
        p = subprocess.run([*RUNTIME, "--ignore-cgroups", "--root", str(self.root), "run", "--bundle",
                            str(self.bundle), self.new_id()], stdin=subprocess.DEVNULL)
        self.assertEqual(p.returncode, 0)
        self.assertEqual(glob.glob(f"/sys/fs/cgroup/*{path}"), [])


if __name__ == "__main__":
    main()
