#!/usr/bin/env python3
"""The runtime under podman, with storage of the test's own."""
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import RUNTIME, eventually, make_image

IMAGE = "docker.io/library/bb:test"


@unittest.skipUnless(shutil.which("podman"), "needs podman")
class Podman(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="rwpm-"))
        cls.addClassCleanup(cls.clean)
        make_image(cls.dir / "image.tar", IMAGE)
        p = cls.podman("load", "-i", str(cls.dir / "image.tar"))
        assert p.returncode == 0, p.stderr

    @classmethod
    def clean(cls):
        cls.podman("rm", "-fa", "-t", "0")
        cls.podman("rmi", "-fa")
        shutil.rmtree(cls.dir, ignore_errors=True)

    @classmethod
    def podman(cls, *args, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(["podman", "--root", str(cls.dir / "root"), "--runroot",
                               str(cls.dir / "run"), "--tmpdir", str(cls.dir / "tmp"),
                               "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
                               "--events-backend", "file", "--runtime", RUNTIME, *args],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120,
                              **kw)

    def test_run(self):
        p = self.podman("run", "--rm", "--network", "none", IMAGE, "sh", "-c", "echo out; exit 3")
        self.assertEqual((p.returncode, p.stdout), (3, "out\n"), p.stderr)

    def test_detached(self):
        p = self.podman("run", "-d", "--network", "none", IMAGE, "sh", "-c",
                        "echo started; trap 'exit 5' TERM; while :; do sleep 0.05; done")
        self.assertEqual(p.returncode, 0, p.stderr)
        cid = p.stdout.strip()
        eventually(lambda: self.podman("logs", cid).stdout == "started\n", what="output")
        p = self.podman("exec", cid, "sh", "-c", "echo x; exit 9")
        self.assertEqual((p.returncode, p.stdout), (9, "x\n"), p.stderr)
        self.assertEqual(self.podman("stop", cid).returncode, 0)
        self.assertEqual(self.podman("inspect", "-f", "{{.State.ExitCode}}", cid).stdout, "5\n")
        self.assertEqual(self.podman("rm", cid).returncode, 0)

    def test_pause_update_kill(self):
        p = self.podman("run", "-d", "--network", "none", "--memory", "64m", IMAGE, "sleep", "1000")
        self.assertEqual(p.returncode, 0, p.stderr)
        cid = p.stdout.strip()

        def status():
            return self.podman("inspect", "-f", "{{.State.Status}}", cid).stdout.strip()
        for command, after in ((("pause", cid), "paused"), (("unpause", cid), "running"),
                               (("update", "--memory", "96m", cid), "running"),
                               (("kill", "-s", "KILL", cid), "exited")):
            p = self.podman(*command)
            self.assertEqual(p.returncode, 0, p.stderr)
            eventually(lambda: status() == after, what=f"{after} after {command[0]}")
        self.assertEqual(self.podman("inspect", "-f", "{{.State.ExitCode}}", cid).stdout, "137\n")
        self.assertEqual(self.podman("rm", cid).returncode, 0)

    def test_detached_terminal(self):
        """The master of the terminal goes to conmon over --console-socket."""
        p = self.podman("run", "-d", "-t", "--network", "none", IMAGE, "sh", "-c", "test -t 1 && echo istty; stty size")
        self.assertEqual(p.returncode, 0, p.stderr)
        cid = p.stdout.strip()
        self.assertEqual(self.podman("wait", cid).stdout, "0\n")
        eventually(lambda: "istty" in self.podman("logs", cid).stdout, what="its output")
        self.assertEqual(self.podman("rm", cid).returncode, 0)

    def test_missing_executable(self):
        p = self.podman("run", "--rm", "--network", "none", IMAGE, "/no-such-program")
        self.assertIn(p.returncode, (126, 127))


if __name__ == "__main__":
    unittest.main(verbosity=2)
