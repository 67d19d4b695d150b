#!/usr/bin/env python3
"""Pods through containerd's CRI plugin: what a kubelet asks for."""
import json
import pathlib
import unittest

import cri
import grpc
from harness import OWN_SHIM, RUNTIME, Containerd, alive, eventually

LOOP = ("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done")


class Cri(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cd = Containerd(cri.config)
        cls.addClassCleanup(cls.cd.remove)
        cls.cri = cri.start(cls.cd)

    def setUp(self):
        self.logs = self.cd.dir / f"logs-{self._testMethodName}"
        self.logs.mkdir()
        self.config = self.cri.pod_config(self._testMethodName.replace("_", "-"), str(self.logs))
        self.pod = self.cri.run_pod(self.config, "ringwall")
        self.addCleanup(self.cri.remove_pod, self.pod)
        self.addCleanup(self.cri.stop_pod, self.pod)

    def container(self, name, *command, **more):
        cid = self.cri.create(self.pod, self.config, name, cri.IMAGE, command, **more)
        self.cri.start(cid)
        return cid

    def state(self, cid):
        root = "/run/containerd/runsc/k8s.io" if OWN_SHIM else self.cd.dir / "rr/k8s.io"
        return json.loads(pathlib.Path(root, cid, "state.json").read_text())

    def log(self, name):
        path = self.logs / f"{name}.log"
        return [line.split(" ", 3)[3] for line in path.read_text().splitlines()] if path.exists() else []

    def test_two_containers(self):
        one = self.container("one", *LOOP)
        two = self.container("two", "sh", "-c", "echo hello; echo world >&2; exit 4")
        eventually(lambda: self.cri.status(two)[0] == self.cri.EXITED, what="the second's end")
        self.assertEqual(self.cri.status(two), (self.cri.EXITED, 4))
        self.assertEqual(sorted(self.log("two")), ["hello", "world"])
        self.assertEqual(self.cri.status(one)[0], self.cri.RUNNING)
        if "runsc" in RUNTIME:
            self.assertEqual(self.state(one)["sandbox"], self.pod, "it has a sandbox of its own")
        self.cri.stop(one, 20)
        self.assertEqual(self.cri.status(one), (self.cri.EXITED, 5))
        self.cri.remove(two)
        self.cri.remove(one)

    def test_restart_in_the_same_pod(self):
        for i in range(3):
            cid = self.container(f"c{i}", "true")
            eventually(lambda: self.cri.status(cid)[0] == self.cri.EXITED, what="its end")
            self.assertEqual(self.cri.status(cid)[1], 0)
            self.cri.remove(cid)

    def test_exec(self):
        cid = self.container("one", "sleep", "1000")
        self.assertEqual(self.cri.exec_sync(cid, ["sh", "-c", "echo out; echo err >&2; exit 9"]),
                         (9, "out\n", "err\n"))
        self.assertEqual(self.cri.exec_sync(cid, ["hostname"])[1], "pod\n")
        with self.assertRaises(grpc.RpcError):
            self.cri.exec_sync(cid, ["sleep", "1000"], timeout=1)
        with self.assertRaises(grpc.RpcError):
            self.cri.exec_sync(cid, ["/no-such-program"])
        self.assertEqual(self.cri.exec_sync(cid, ["echo", "still"]), (0, "still\n", ""))

    def test_missing_executable(self):
        with self.assertRaises(grpc.RpcError) as e:
            self.container("one", "/no-such-program")
        self.assertIn("no-such-program", e.exception.details())

    def test_stats(self):
        cid = self.container("one", "sh", "-c", "while :; do :; done")
        self.assertGreater(self.cri.stats(cid)[1], 0)
        self.cri.stop(cid, 0)
        self.assertEqual(self.cri.status(cid), (self.cri.EXITED, 137))

    def test_files_are_apart_and_mounts_are_shared(self):
        share = self.cd.dir / "share"
        share.mkdir(exist_ok=True)
        mount = cri.pack((1, "/share"), (2, str(share)))
        one = self.container("one", "sleep", "1000", mounts=[mount])
        two = self.container("two", "sleep", "1000", mounts=[mount])
        self.cri.exec_sync(one, ["sh", "-c", "echo mine > /own; echo ours > /share/both"])
        self.assertNotEqual(self.cri.exec_sync(two, ["cat", "/own"])[0], 0)
        self.assertEqual(self.cri.exec_sync(two, ["cat", "/share/both"])[1], "ours\n")

    def test_processes_are_apart(self):
        one = self.container("one", "sleep", "1001")
        two = self.container("two", "sleep", "1002")
        for cid, own, other in ((one, "1001", "1002"), (two, "1002", "1001")):
            code, out, err = self.cri.exec_sync(cid, ["ps", "-o", "pid,args"])
            self.assertEqual(code, 0, err)
            rows = dict(line.split(None, 1) for line in out.splitlines()[1:])
            self.assertEqual(rows["1"].strip(), f"sleep {own}")
            self.assertNotIn(other, out)

    def test_processes_are_shared(self):
        """shareProcessNamespace."""
        config = self.cri.pod_config("shared", str(self.logs), self.cri.SHARED)
        pod = self.cri.run_pod(config, "ringwall")
        self.addCleanup(self.cri.remove_pod, pod)
        self.addCleanup(self.cri.stop_pod, pod)
        cids = [self.cri.create(pod, config, f"c{n}", cri.IMAGE, ("sleep", n),
                                spaces=self.cri.SHARED) for n in ("1001", "1002")]
        for cid in cids:
            self.cri.start(cid)
        for cid in cids:
            out = self.cri.exec_sync(cid, ["ps", "-o", "args"])[1]
            for n in ("1000000", "1001", "1002"):
                self.assertIn(f"sleep {n}", out)
        self.cri.stop(cids[0], 0)
        out = self.cri.exec_sync(cids[1], ["ps", "-o", "args"])[1]
        self.assertNotIn("sleep 1001", out)

    def test_each_is_killed_in_its_state(self):
        """The others go on whatever state one of them is ended in."""
        other = self.container("other", *LOOP)
        created = self.cri.create(self.pod, self.config, "created", cri.IMAGE, ("true",))
        self.cri.remove(created)
        running = self.container("running", "sleep", "1000")
        self.cri.stop(running, 0)
        self.assertEqual(self.cri.status(running), (self.cri.EXITED, 137))
        self.cri.stop(running, 0)
        self.cri.remove(running)
        ended = self.container("ended", "sh", "-c", "exit 3")
        eventually(lambda: self.cri.status(ended) == (self.cri.EXITED, 3), what="its end")
        with self.assertRaises(grpc.RpcError):
            self.cri.exec_sync(ended, ["true"])
        self.cri.remove(ended)
        self.assertEqual(self.cri.exec_sync(other, ["echo", "on"])[1], "on\n")
        self.assertEqual(self.cri.status(other)[0], self.cri.RUNNING)

    @unittest.skipUnless(OWN_SHIM, "containerd's own looks into the host's cgroup")
    def test_each_is_counted(self):
        busy = self.container("busy", "sh", "-c", "while :; do :; done")
        idle = self.container("idle", "sleep", "1000")
        eventually(lambda: self.cri.stats(busy)[0] > 500_000_000, what="work")
        self.assertLess(self.cri.stats(idle)[0], 250_000_000)

    def test_out_of_memory(self):
        """A limit is a container's own: it ends, and the pod is told why."""
        other = self.container("other", *LOOP)
        cid = self.container("one", "sh", "-c", "exec awk 'BEGIN{s=\"x\"; for(;;) s=s s}'", memory=48 << 20)
        eventually(lambda: self.cri.status(cid)[0] == self.cri.EXITED, what="its end")
        self.assertEqual(self.cri.status(cid), (self.cri.EXITED, 137))
        if OWN_SHIM:
            self.assertEqual(self.cri.reason(cid), "OOMKilled")
        self.assertEqual(self.cri.exec_sync(other, ["echo", "on"])[1], "on\n")

    def test_limits_are_updated(self):
        cid = self.container("one", "sh", "-c", "while :; do :; done", quota=5000, period=100000, memory=256 << 20)
        self.cri.update(cid, quota=50000, period=100000, memory=128 << 20)
        self.assertEqual(self.cri.exec_sync(cid, ["echo", "on"])[1], "on\n")

    def test_the_pod_ends_with_everything(self):
        cid = self.container("one", "sleep", "1000")
        pids = [self.state(c)["sentry"]["pid"] for c in (self.pod, cid)]
        self.cri.stop_pod(self.pod)
        for pid in pids:
            eventually(lambda: not alive(pid), what="the end of its processes")
        self.assertEqual(self.cri.status(cid)[0], self.cri.EXITED)


if __name__ == "__main__":
    unittest.main(verbosity=2)
