#!/usr/bin/env python3
"""Containers of an ordinary user: no privilege is asked for, and none is gained."""
import json
import os
import pathlib
import shutil
import subprocess
import unittest

from harness import IS_OURS, RUNTIME, Case, copy_runtime, eventually, main

UID = GID = 61234  # nobody's: no name, no group, no subordinate ids


@unittest.skipUnless(IS_OURS and os.geteuid() == 0, "needs root, to be somebody else")
class Rootless(Case):
    def setUp(self):
        super().setUp()
        # The build folder may be out of the user's reach.
        self.program = copy_runtime(self.dir)
        self.home = self.dir / "home"
        self.home.mkdir()
        os.chown(self.home, UID, GID)
        self.image = self.home / "rootfs"
        shutil.copytree(self.rootfs, self.image, symlinks=True)
        self.chown(self.image)
        self.place = self.home / "bundle"
        self.place.mkdir()
        os.chown(self.place, UID, GID)

    def chown(self, top):
        for folder, dirs, files in os.walk(top):
            for name in [".", *dirs, *files]:
                os.lchown(os.path.join(folder, name), UID, GID)

    def user(self, *args, **kw):
        """A command of runsc as that user, with the state where it is by default."""
        kw.setdefault("stdout", subprocess.PIPE)
        kw.setdefault("stderr", subprocess.PIPE)
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home)}
        return subprocess.run([str(self.program), *RUNTIME[1:], *args], text=True, user=UID, group=GID,
                              extra_groups=[], stdin=subprocess.DEVNULL, timeout=180, env=env,
                              cwd=self.place, **kw)

    def quiet(self, *args):
        with open(self.dir / "out", "w+") as out:
            p = self.user(*args, stdout=out, stderr=out)
            out.seek(0)
            return p.returncode, out.read()

    def configure(self, args, **process):
        (self.place / "config.json").unlink(missing_ok=True)
        p = self.user("spec", "--rootless")
        self.assertEqual(p.returncode, 0, p.stderr)
        config = json.loads((self.place / "config.json").read_text())
        config["process"].update(terminal=False, args=args, **process)
        config["root"] = {"path": str(self.image), "readonly": False}
        self.save(config)
        return config

    def save(self, config):
        (self.place / "config.json").write_text(json.dumps(config))
        os.chown(self.place / "config.json", UID, GID)

    def test_do(self):
        p = self.user("do", "sh", "-c", "id -u; id -g; grep CapEff /proc/self/status; cat /etc/shadow; exit 7")
        self.assertEqual(p.returncode, 7, p.stderr)
        uid, gid, caps = p.stdout.splitlines()
        self.assertEqual((uid, gid), (str(UID), str(GID)))
        self.assertEqual(caps.split()[1].strip("0"), "", "no capability")
        self.assertIn("denied", p.stderr)

    def test_run(self):
        self.configure(["sh", "-c", "id -u; echo mine > /file; cat /file; exit 5"])
        p = self.user("--overlay", "none", "run", "box")
        self.assertEqual((p.returncode, p.stdout), (5, "0\nmine\n"), p.stderr)
        st = (self.image / "file").stat()
        self.assertEqual((st.st_uid, st.st_gid), (UID, GID), "root inside is the user outside")

    def test_program_that_may_not_be_read(self):
        """The host takes such a process for undumpable: its own files in /proc are not its own."""
        os.chmod(self.program, 0o711)
        for p in (self.user("do", "/bin/echo", "on"), self.user("--platform", "ptrace", "do", "/bin/echo", "on")):
            self.assertEqual((p.returncode, p.stdout), (0, "on\n"), p.stderr)

    def test_what_the_user_may_not_read(self):
        secret = self.image / "secret"
        secret.write_text("secret")
        os.chmod(secret, 0o600)
        os.chown(secret, 0, 0)
        self.configure(["cat", "/secret"])
        p = self.user("run", "box")
        self.assertNotEqual(p.returncode, 0)
        self.assertNotIn("secret\n", p.stdout)
        self.assertIn("denied", p.stderr)

    def test_life(self):
        self.configure(["sleep", "1000"])
        code, text = self.quiet("create", "box")
        self.assertEqual(code, 0, text)
        try:
            self.assertTrue((self.home / "ringwall/box").is_dir(), "state is in XDG_RUNTIME_DIR")
            self.assertEqual(self.user("start", "box").returncode, 0)
            p = self.user("exec", "box", "sh", "-c", "echo in; hostname; exit 3")
            self.assertEqual((p.returncode, p.stdout), (3, "in\nringwall\n"), p.stderr)
            self.assertIn("box", self.user("list", "--quiet").stdout)
            self.assertIn("sleep", self.user("ps", "box").stdout)
            for pid in json.loads(self.user("ps", "--format", "json", "box").stdout):
                # Of the user, or of what the user's namespace calls nobody.
                self.assertNotEqual(pathlib.Path(f"/proc/{pid}").stat().st_uid, 12345)
            self.assertEqual(self.user("kill", "box", "KILL").returncode, 0)
            eventually(lambda: json.loads(self.user("state", "box").stdout)["status"] == "stopped",
                       what="its end")
        finally:
            p = self.user("delete", "--force", "box")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(list((self.home / "ringwall").iterdir()), [])

    def test_cgroups_that_may_not_be_made(self):
        config = self.configure(["true"])
        config["linux"]["cgroupsPath"] = f"/rw-rootless-{os.getpid()}"
        config["linux"]["resources"] = {"memory": {"limit": 64 << 20}}
        self.save(config)
        p = self.user("run", "box")
        self.assertEqual(p.returncode, 125)
        self.assertIn("cgroup", p.stderr)
        self.assertIn("--ignore-cgroups", p.stderr)
        p = self.user("--ignore-cgroups", "run", "box")
        self.assertEqual(p.returncode, 0, p.stderr)

    def test_port_forward(self):
        self.configure(["sh", "-c", "exec nc -ll -p 7000 -e cat"])
        code, text = self.quiet("run", "-d", "box")
        self.assertEqual(code, 0, text)

        def exchange():
            p = subprocess.run([str(self.program), *RUNTIME[1:], "port-forward", "box", "7000"], user=UID,
                               group=GID, extra_groups=[], input=b"own\n", stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, timeout=180, env={"XDG_RUNTIME_DIR": str(self.home)})
            return p.stdout == b"own\n"
        try:
            eventually(exchange, what="the port answers")
        finally:
            self.user("delete", "--force", "box")


if __name__ == "__main__":
    main()
