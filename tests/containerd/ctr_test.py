#!/usr/bin/env python3
"""Containers under containerd: its runc.v2 shim calls the runtime, ctr is the client."""
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import termios
import unittest

from harness import IMAGE, OWN_SHIM, RUNTIME, Case, alive, eventually

LOOP = "trap 'exit 5' TERM; while :; do sleep 0.05; done"


class Ctr(Case):
    def test_streams_and_exit_code(self):
        p = self.run_rm("sh", "-c", "echo out; echo err >&2; exit 3")
        self.assertEqual((p.returncode, p.stdout, p.stderr), (3, "out\n", "err\n"))

    def test_stdin(self):
        p = subprocess.Popen(["ctr", "-a", self.cd.address, "-n", self.cd.namespace,
                              *self.run_args("--rm", IMAGE, self.new_id(), "head", "-n", "2")],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        p.stdin.write("one\ntwo\n")
        p.stdin.flush()
        self.assertEqual(p.stdout.read(), "one\ntwo\n")
        self.assertEqual(p.wait(180), 0)
        p.stdin.close()
        p.stdout.close()

    def test_killed_by_a_signal(self):
        name = self.run_detached("sleep", "1000")
        self.assertEqual(self.cd.ctr("task", "kill", "-s", "KILL", name).returncode, 0)
        self.wait_status(name, "STOPPED")
        self.assertIn("code 137", self.cd.ctr("task", "rm", name).stderr)

    def test_missing_executable(self):
        p = self.run_rm("/no-such-program")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("no-such-program", p.stderr)
        self.assertEqual(self.cd.ctr("task", "ls", "-q").stdout, "")
        self.assertEqual(self.cd.ctr("container", "ls", "-q").stdout, "")

    def test_signal_handler(self):
        name = self.run_detached("sh", "-c", LOOP)
        self.assertEqual(self.status(name), "RUNNING")
        eventually(lambda: "sleep" in self.exec(name, "ps").stdout, what="the loop")
        self.assertEqual(self.cd.ctr("task", "kill", name).returncode, 0)
        self.wait_status(name, "STOPPED")
        self.assertIn("code 5", self.cd.ctr("task", "rm", name).stderr)

    def test_signals(self):
        names = ("HUP", "INT", "USR1", "USR2", "ALRM", "WINCH", "TERM")
        traps = "".join(f"trap 'echo {n} >> /got' {n};" for n in names)
        name = self.run_detached("sh", "-c", traps + "touch /got; while :; do sleep 0.02; done")
        eventually(lambda: self.exec(name, "test", "-e", "/got").returncode == 0, what="the handlers")
        for n in names:
            self.assertEqual(self.cd.ctr("task", "kill", "-s", n, name).returncode, 0)
            eventually(lambda: n in self.exec(name, "cat", "/got").stdout.split(), what=n)
        self.assertEqual(self.exec(name, "cat", "/got").stdout.split(), list(names))
        self.assertNotEqual(self.cd.ctr("task", "kill", "-s", "KILL", "nobody").returncode, 0)
        self.assertEqual(self.cd.ctr("task", "kill", "-s", "KILL", name).returncode, 0)
        self.wait_status(name, "STOPPED")
        self.assertNotEqual(self.cd.ctr("task", "kill", "-s", "KILL", name).returncode, 0, "it has ended")

    def test_resize(self):
        """The window changes while the program runs: it gets the size, and SIGWINCH."""
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        size = lambda rows, cols: fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        size(24, 80)
        p = subprocess.Popen(
            ["ctr", "-a", self.cd.address, "-n", self.cd.namespace,
             *self.run_args("--rm", "-t", IMAGE, self.new_id(), "sh", "-c",
                            "trap 'echo changed' WINCH; echo ready; until stty size | grep '41 99'; do sleep 0.05;"
                            " done; exit 8")],
            stdin=slave, stdout=slave, stderr=slave, preexec_fn=lambda: (
                os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)))
        self.addCleanup(self.reap, p)
        seen = self.read_until(master, b"ready")
        size(41, 99)
        # ctr hears of a change only once it has told the first size; till then its signal is lost.
        for _ in range(120):
            p.send_signal(signal.SIGWINCH)
            if select.select([master], [], [], 0.5)[0]:
                seen += os.read(master, 4096)
            if b"41 99" in seen:
                break
        self.assertIn(b"41 99", seen)
        self.assertEqual(p.wait(180), 8)
        os.close(slave)
        with contextlib.suppress(OSError):
            while chunk := os.read(master, 4096):
                seen += chunk
        self.assertIn(b"changed", seen)

    @staticmethod
    def reap(p):
        if p.poll() is None:
            p.kill()
        p.wait()

    def read_until(self, fd, text):
        got = b""
        while text not in got:
            ready, _, _ = select.select([fd], [], [], 60)
            self.assertTrue(ready, f"no {text} in {got}")
            got += os.read(fd, 4096)
        return got

    def test_exec_detached_and_with_a_terminal(self):
        name = self.run_detached("sleep", "1000")
        p = self.cd.ctr("task", "exec", "-d", "--exec-id", "quiet", name, "sh", "-c", "echo there > /f; sleep 999")
        self.assertEqual(p.returncode, 0, p.stderr)
        eventually(lambda: self.exec(name, "cat", "/f").stdout == "there\n", what="the detached program")
        self.assertIn("quiet", self.cd.ctr("task", "ps", name).stdout)
        p = subprocess.run(["script", "-qec", f"ctr -a {self.cd.address} -n {self.cd.namespace} task exec -t"
                            f" --exec-id tty {name} sh -c 'test -t 0 && echo istty; exit 4'", "/dev/null"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=180)
        self.assertEqual(p.returncode, 4)
        self.assertIn("istty", p.stdout)

    def test_exec_of_a_missing_program(self):
        name = self.run_detached("sleep", "1000")
        pid = self.pid(name)
        for program in ("/no-such-program", "/etc", "/etc/passwd"):
            p = self.exec(name, program)
            self.assertNotEqual(p.returncode, 0, program)
            self.assertIn(program, p.stderr)
        left = lambda: [r.split()[0] for r in self.cd.ctr("task", "ps", name).stdout.splitlines()[1:]]
        eventually(lambda: left() == [str(pid)], what="nothing of them is left")

    def test_exec(self):
        name = self.run_detached("sleep", "1000")
        p = self.exec(name, "sh", "-c", "echo x; exit 9")
        self.assertEqual((p.returncode, p.stdout), (9, "x\n"))
        p = self.exec(name, "sh", "-c", "id -u; id -g; pwd", options=["--user", "1000:1000", "--cwd", "/tmp"])
        self.assertEqual(p.stdout, "1000\n1000\n/tmp\n")
        self.assertNotEqual(self.exec(name, "/no-such-program").returncode, 0)
        self.assertEqual(self.status(name), "RUNNING")

    def test_exec_killed(self):
        name = self.run_detached("sleep", "1000")
        p = subprocess.Popen(["ctr", "-a", self.cd.address, "-n", self.cd.namespace, "task", "exec",
                              "--exec-id", "victim", name, "sleep", "1000"], stdin=subprocess.DEVNULL)
        eventually(lambda: "victim" in self.cd.ctr("task", "ps", name).stdout, what="the exec")
        self.assertEqual(self.cd.ctr("task", "kill", "--exec-id", "victim", "-s", "KILL", name)
                         .returncode, 0)
        self.assertEqual(p.wait(180), 137)
        self.assertEqual(self.status(name), "RUNNING")

    def test_ps_names_init(self):
        name = self.run_detached("sleep", "1000")
        rows = self.cd.ctr("task", "ps", name).stdout.splitlines()[1:]
        self.assertIn(str(self.pid(name)), [r.split()[0] for r in rows])

    def test_pause_and_resume(self):
        name = self.run_detached("sleep", "1000")
        self.assertEqual(self.cd.ctr("task", "pause", name).returncode, 0)
        self.assertEqual(self.status(name), "PAUSED")
        self.assertEqual(self.cd.ctr("task", "resume", name).returncode, 0)
        self.assertEqual(self.status(name), "RUNNING")
        self.assertEqual(self.exec(name, "echo", "on").stdout, "on\n")

    def test_pause_and_resume_again_and_again(self):
        name = self.run_detached("sh", "-c", "while :; do sleep 0.01; done")
        for i in range(60):
            for verb in ("pause", "resume"):
                p = self.cd.ctr("task", verb, name)
                self.assertEqual(p.returncode, 0, f"{verb} {i}: {p.stderr}")
        self.assertEqual(self.status(name), "RUNNING")
        self.assertEqual(self.exec(name, "echo", "on").stdout, "on\n")

    def test_metrics(self):
        name = self.run_detached("sh", "-c", "while :; do :; done")
        def cpu():
            m = json.loads(self.cd.ctr("task", "metrics", "--format", "json", name).stdout)
            self.assertIn("memory", m)
            return m["cpu"]["usage"]["total"] if "usage" in m["cpu"] else m["cpu"]["usage_usec"]
        first = cpu()
        eventually(lambda: cpu() > first, what="CPU time of the container")

    def test_update(self):
        # ctr has no such command: the runtime is asked as the shim does, below its root.
        name = self.run_detached("sleep", "1000", options=["--memory-limit", str(64 << 20)])
        root = self.runtime_root()
        p = subprocess.run([RUNTIME, "--root", str(root), "update", "--resources", "-", name],
                           input=json.dumps({"memory": {"limit": 48 << 20}}), text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(p.returncode, 0, p.stderr)
        m = json.loads(self.cd.ctr("task", "metrics", "--format", "json", name).stdout)
        limit = m["memory"].get("usage_limit") or m["memory"]["usage"]["limit"]
        self.assertEqual(int(limit), 48 << 20)

    @unittest.skipUnless(OWN_SHIM, "containerd's own looks into the host's cgroup")
    def test_out_of_memory_is_told(self):
        """A program of the guest ends for want of memory; its container goes on, and containerd hears."""
        log = (self.cd.dir / "events").open("w+")
        self.addCleanup(log.close)
        events = subprocess.Popen(["ctr", "-a", self.cd.address, "-n", self.cd.namespace, "events"],
                                  stdin=subprocess.DEVNULL, stdout=log)
        self.addCleanup(events.wait)
        self.addCleanup(events.kill)
        name = self.run_detached("sh", "-c", "while :; do awk 'BEGIN{s=\"x\"; for(;;) s=s s}'; sleep 0.1; done",
                                 options=["--memory-limit", str(48 << 20)])
        def told():
            text = pathlib.Path(log.name).read_text()
            return any("/tasks/oom" in line and name in line for line in text.splitlines())
        eventually(told, timeout=180, what="the event")
        self.assertEqual(self.status(name), "RUNNING")

    def test_terminal(self):
        p = subprocess.run(["script", "-qec", "stty rows 33 cols 77; ctr -a {} -n {} {} {} {} sh -c '{}'".format(
                                self.cd.address, self.cd.namespace,
                                " ".join(self.run_args("--rm", "-t")), IMAGE, self.new_id(), "test -t 0 && echo istty;"
                                " until stty size 2>/dev/null | grep 33; do sleep 0.05; done; exit 6"), "/dev/null"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=180)
        self.assertEqual(p.returncode, 6)
        self.assertIn("istty", p.stdout)
        self.assertIn("33 77", p.stdout)

    def test_limits_mounts_and_readonly(self):
        p = self.run_rm("sh", "-c", "touch /x 2>/dev/null || echo ro; cat /data; touch /data 2>/dev/null"
                        " || echo fixed", options=[
                            "--memory-limit", "33554432", "--cpus", "0.5", "--read-only", "--mount",
                            "type=bind,src=/etc/hostname,dst=/data,options=rbind:ro"])
        self.assertEqual(p.stdout, "ro\n" + pathlib.Path("/etc/hostname").read_text() + "fixed\n")

    def test_remove_in_every_state(self):
        for prepare in ((), ("pause",), ("kill", "-s", "KILL")):
            name = self.run_detached("sleep", "1000")
            pid = self.pid(name)
            if prepare:
                self.assertEqual(self.cd.ctr("task", *prepare, name).returncode, 0)
            self.assertEqual(self.cd.ctr("task", "rm", "-f", name).returncode, 0)
            self.assertFalse(alive(pid))
            self.assertEqual(self.cd.ctr("container", "rm", name).returncode, 0)

    def test_sentry_killed_from_outside(self):
        name = self.run_detached("sleep", "1000")
        os.kill(self.pid(name), signal.SIGKILL)
        self.wait_status(name, "STOPPED")
        self.assertIn("code 137", self.cd.ctr("task", "rm", name).stderr)

    def test_nothing_left(self):
        name = self.run_detached("sleep", "1000")
        state = self.runtime_root() / name
        self.assertTrue(state.exists())
        cgroups = pathlib.Path(f"/proc/{self.pid(name)}/cgroup").read_text().split()
        self.assertTrue(all(c.endswith(name) for c in cgroups), cgroups)
        self.cd.ctr("task", "rm", "-f", name)
        self.assertFalse(state.exists())
        self.assertEqual([p for d in pathlib.Path("/sys/fs/cgroup").glob("*")
                          for p in d.glob(f"{self.cd.namespace}/{name}")], [])


class Restart(Case):
    def test_containers_survive_a_restart(self):
        name = self.run_detached("sh", "-c", LOOP)
        pid = self.pid(name)
        self.cd.stop()
        self.assertTrue(alive(pid))
        self.cd.start()
        self.assertEqual((self.status(name), self.pid(name)), ("RUNNING", pid))
        self.assertEqual(self.exec(name, "echo", "again").stdout, "again\n")
        self.assertEqual(self.cd.ctr("task", "kill", name).returncode, 0)
        self.wait_status(name, "STOPPED")


if __name__ == "__main__":
    unittest.main(verbosity=2)
