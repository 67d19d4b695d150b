#!/usr/bin/env python3
"""Containers that join a running sandbox, as the containers of a Kubernetes pod do."""
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


if __name__ == "__main__":
    main()
