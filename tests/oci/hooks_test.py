#!/usr/bin/env python3
"""Hooks of all six kinds: where they run, what they are told, what their failure means."""
import json
import os
import time
import unittest

from harness import IS_OURS, Case, eventually, main, make_rootfs


class Hooks(Case):
    HOST = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")

    def setUp(self):
        super().setUp()
        self.log = self.dir / "log"
        self.script = self.dir / "hook.sh"
        self.script.write_text("#!/bin/sh\n"
                               f"printf '%s ' $1 >> {self.log}; cat >> {self.log}; echo >> {self.log}\n"
                               "exit ${2:-0}\n")
        os.chmod(self.script, 0o755)

    def hook(self, kind, code="0", **more):
        return {"path": str(self.script), "args": ["hook", kind, code], **more}

    def told(self):
        """(kind, state) of every hook so far."""
        if not self.log.exists():
            return []
        return [(line.split(" ", 1)[0], json.loads(line.split(" ", 1)[1]))
                for line in self.log.read_text().splitlines() if line.strip()]

    def test_order_and_state(self):
        def change(c):
            c["hooks"] = {kind: [self.hook(kind)] for kind in self.HOST}
            c["annotations"] = {"a.b": "c"}
        p = self.shell("exit 3", change)
        self.assertEqual(p.returncode, 3, p.stderr)
        told = self.told()
        self.assertEqual([kind for kind, _ in told], list(self.HOST))
        status = {kind: state["status"] for kind, state in told}
        self.assertIn(status["createRuntime"], ("creating", "created"))
        self.assertEqual(status["poststop"], "stopped")
        for kind, state in told:
            self.assertEqual(state["bundle"], str(self.bundle))
            self.assertEqual(state["annotations"], {"a.b": "c"})
            self.assertTrue(state["ociVersion"].startswith("1."))
            if kind != "poststop":
                self.assertGreater(state["pid"], 0)

    def test_failures(self):
        for kind in ("prestart", "createRuntime", "createContainer"):
            self.write(["/bin/sleep", "1000"], lambda c: c.update(
                hooks={kind: [self.hook(kind, "5")], "poststop": [self.hook("poststop")]}))
            self.assertNotEqual(self.call_quiet("create", "--bundle", str(self.bundle),
                                                self.new_id()).returncode, 0, kind)
            self.assert_nothing_left()

    @unittest.skipUnless(IS_OURS, "runc runs poststart hooks at create")
    def test_poststart_failure_ends_the_container(self):
        def change(c):
            c["hooks"] = {"poststart": [self.hook("poststart", "5")]}
        cid = self.create(["/bin/sleep", "1000"], change)
        self.assertNotEqual(self.call("start", cid).returncode, 0)
        self.wait_status(cid, "stopped")

    @unittest.skipUnless(IS_OURS, "runc stops at the first that fails")
    def test_every_poststop_hook_runs(self):
        def change(c):
            c["hooks"] = {"poststop": [self.hook("one", "5"), self.hook("two")]}
        self.assertEqual(self.shell("exit 0", change).returncode, 0)
        self.assertEqual([kind for kind, _ in self.told()], ["one", "two"])

    def test_timeout(self):
        slow = self.dir / "slow.sh"
        slow.write_text("#!/bin/sh\nexec sleep 1000\n")
        os.chmod(slow, 0o755)
        self.write(["/bin/true"], lambda c: c.update(
            hooks={"createRuntime": [{"path": str(slow), "timeout": 1}]}))
        begin = time.monotonic()
        p = self.call_quiet("create", "--bundle", str(self.bundle), self.new_id())
        self.assertNotEqual(p.returncode, 0)
        self.assertLess(time.monotonic() - begin, 60)

    def start_container(self, code, timeout=None):
        """A container with a startContainer hook of its own file system."""
        root = make_rootfs(self.dir / "root")
        hook = root / "hook.sh"
        hook.write_text("#!/bin/sh\necho $1 $(id -u) $V > /told; cat >> /told; exit %s\n" % code)
        os.chmod(hook, 0o755)

        def change(c):
            c["root"]["path"] = str(root)
            c["process"]["env"] = ["PATH=/bin"]
            c["hooks"] = {"startContainer": [{"path": "/hook.sh", "args": ["hook", "now"],
                                              "env": ["V=w", "PATH=/bin"]}]}
        out = (self.dir / "out").open("w+")
        self.addCleanup(out.close)
        cid = self.create(["/bin/sh", "-c", "head -n 1 /told; exec sleep 1000"], change, stdout=out)
        self.assertFalse((root / "told").exists(), "it ran at create")
        return cid, root

    def test_start_container_runs_inside(self):
        cid, root = self.start_container("0")
        p = self.call("start", cid)
        self.assertEqual(p.returncode, 0, p.stderr)
        eventually(lambda: (self.dir / "out").read_text() == "now 0 w\n", what="output")
        state = json.loads(self.call("exec", cid, "/bin/sh", "-c", "tail -n +2 /told").stdout)
        self.assertEqual((state["id"], state["status"]), (cid, "created"))

    @unittest.skipUnless(IS_OURS, "runc does not wait for them")
    def test_start_container_failure(self):
        cid, _ = self.start_container("6")
        p = self.call("start", cid)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("hook.sh", p.stderr)
        self.wait_status(cid, "stopped")
        self.assertEqual((self.dir / "out").read_text(), "")


if __name__ == "__main__":
    main()
