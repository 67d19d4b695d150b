#!/usr/bin/env python3
"""The runtime under dockerd, started by the test in a network namespace of its own."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import PATH, RUNTIME, end, eventually, make_image, processes_naming

IMAGE = "bb:test"


@unittest.skipUnless(shutil.which("dockerd"), "needs docker.io")
class Docker(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="rwdk-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        (cls.dir / "daemon.json").write_text(json.dumps({
            "runtimes": {"ringwall": {"path": RUNTIME}},
            "default-runtime": "ringwall"}))
        cls.host = f"unix://{cls.dir}/docker.sock"
        cls.log = open(cls.dir / "log", "ab")
        cls.addClassCleanup(cls.log.close)
        cls.daemon = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
             f"ip link set lo up; mount -t tmpfs none /run/docker 2>/dev/null;"
             f"exec dockerd --config-file {cls.dir}/daemon.json --data-root {cls.dir}/data"
             f" --exec-root {cls.dir}/exec --pidfile {cls.dir}/pid -H {cls.host} --bridge none"
             " --iptables=false --ip6tables=false --storage-driver vfs"],
            stdin=subprocess.DEVNULL, stdout=cls.log, stderr=cls.log, start_new_session=True,
            env={"HOME": "/root", "PATH": f"{os.path.dirname(RUNTIME)}:{PATH}"})
        cls.addClassCleanup(cls.stop)
        eventually(lambda: cls.docker("version").returncode == 0, what="dockerd answers")
        make_image(cls.dir / "image.tar", IMAGE)
        p = cls.docker("load", "-i", str(cls.dir / "image.tar"))
        assert p.returncode == 0, p.stderr

    @classmethod
    def stop(cls):
        end(cls.daemon)
        for pid in processes_naming(str(cls.dir)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    @classmethod
    def docker(cls, *args, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(["docker", "-H", cls.host, *args], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=120, **kw)

    def detached(self, *command, options=()):
        p = self.docker("run", "-d", "--network", "none", *options, IMAGE, *command)
        self.assertEqual(p.returncode, 0, p.stderr)
        cid = p.stdout.strip()
        self.addCleanup(self.docker, "rm", "-f", cid)
        return cid

    def test_run(self):
        p = self.docker("run", "--rm", "--network", "none", IMAGE, "sh", "-c",
                        "echo out; echo err >&2; exit 3")
        self.assertEqual((p.returncode, p.stdout, p.stderr), (3, "out\n", "err\n"))

    def test_stdin(self):
        p = self.docker("run", "--rm", "-i", "--network", "none", IMAGE, "cat", stdin=None, input="in\n")
        self.assertEqual((p.returncode, p.stdout), (0, "in\n"))

    def test_missing_executable(self):
        p = self.docker("run", "--rm", "--network", "none", IMAGE, "/no-such-program")
        self.assertIn(p.returncode, (126, 127))
        self.assertIn("no-such-program", p.stderr)

    def test_exec_top_stats_logs(self):
        cid = self.detached("sh", "-c", "echo started; exec sleep 1000")
        p = self.docker("exec", cid, "sh", "-c", "echo x; exit 9")
        self.assertEqual((p.returncode, p.stdout), (9, "x\n"))
        self.assertEqual(self.docker("exec", "-u", "1000", "-w", "/tmp", "-e", "A=b", cid, "sh", "-c",
                                     "id -u; pwd; echo $A").stdout, "1000\n/tmp\nb\n")
        self.assertEqual(self.docker("top", cid).returncode, 0)
        eventually(lambda: self.docker("logs", cid).stdout == "started\n", what="its output")
        p = self.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", cid)
        self.assertFalse(p.stdout.startswith("0B"), p.stdout)

    def test_pause_update_restart_kill(self):
        cid = self.detached("sleep", "1000", options=("--memory", "64m"))

        def status():
            return self.docker("inspect", "-f", "{{.State.Status}}", cid).stdout.strip()
        self.assertEqual(self.docker("pause", cid).returncode, 0)
        self.assertEqual(status(), "paused")
        self.assertEqual(self.docker("unpause", cid).returncode, 0)
        p = self.docker("update", "--memory", "96m", "--cpu-shares", "512", cid)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(self.docker("restart", "-t", "1", cid).returncode, 0)
        self.assertEqual(status(), "running")
        self.assertEqual(self.docker("kill", cid).returncode, 0)
        eventually(lambda: status() == "exited", what="its end")
        self.assertEqual(self.docker("inspect", "-f", "{{.State.ExitCode}}", cid).stdout, "137\n")

    def test_stop_reaches_the_handler(self):
        cid = self.detached("sh", "-c", "trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done")
        eventually(lambda: self.docker("logs", cid).stdout == "up\n", what="output")
        self.assertEqual(self.docker("stop", cid).returncode, 0)
        self.assertEqual(self.docker("wait", cid).stdout, "6\n")

    def test_cp_and_volumes(self):
        (self.dir / "volume").mkdir(exist_ok=True)
        cid = self.detached("sh", "-c", "echo guest > /volume/f; exec sleep 1000",
                            options=("-v", f"{self.dir}/volume:/volume"))
        eventually(lambda: (self.dir / "volume/f").exists() and (self.dir / "volume/f").read_text(),
                   what="the guest's file")
        (self.dir / "file").write_text("copied\n")
        self.assertEqual(self.docker("stop", "-t", "0", cid).returncode, 0)
        p = self.docker("cp", str(self.dir / "file"), f"{cid}:/file")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(self.docker("start", cid).returncode, 0)
        self.assertEqual(self.docker("exec", cid, "cat", "/file").stdout, "copied\n")

    def test_user_network(self):
        """Two containers find each other by name, by docker's resolver, and talk."""
        self.assertEqual(self.docker("network", "create", "--subnet", "10.231.9.0/24", "net").returncode, 0)
        self.addCleanup(self.docker, "network", "rm", "net")

        def on_net(*command, name, options=()):
            p = self.docker("run", "-d", "--network", "net", "--name", name, *options, IMAGE, *command)
            self.assertEqual(p.returncode, 0, p.stderr)
            self.addCleanup(self.docker, "rm", "-f", name)
        on_net("nc", "-ll", "-p", "7000", "-e", "cat", name="server")
        on_net("sleep", "1000", name="client")

        def client(script):
            return self.docker("exec", "client", "sh", "-c", script)
        address = self.docker("inspect", "-f", "{{.NetworkSettings.Networks.net.IPAddress}}", "server").stdout.strip()
        self.assertTrue(address.startswith("10.231.9."), address)
        eventually(lambda: client(f"echo by address | nc {address} 7000").stdout == "by address\n", what="an answer")
        for _ in range(5):
            p = client("echo by name | nc server 7000")
            self.assertEqual((p.stdout, p.stderr), ("by name\n", ""))
        self.assertIn(address, client("nslookup server").stdout)
        self.assertNotEqual(client("nslookup nobody-of-that-name").returncode, 0)
        self.assertEqual(client("head -c 1000000 /dev/zero | nc server 7000 | wc -c").stdout, "1000000\n")
        self.assertIn("64 bytes", client("ping -c 1 server").stdout)
        # After a restart the namespace is a new one.
        self.assertEqual(self.docker("restart", "-t", "0", "server").returncode, 0)
        eventually(lambda: client("echo again | nc server 7000").stdout == "again\n", what="an answer again")

    def test_terminal(self):
        p = subprocess.run(["script", "-qec", f"docker -H {self.host} run --rm -t --network none {IMAGE}"
                            " sh -c 'test -t 0 && echo istty; exit 6'", "/dev/null"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=180)
        self.assertEqual(p.returncode, 6)
        self.assertIn("istty", p.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
