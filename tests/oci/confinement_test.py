#!/usr/bin/env python3
"""What the live processes of a sandbox may do, compared with a table; anything else is a failure."""
import json
import os
import pathlib
import re
import unittest

from harness import IS_OURS, Case, children_of, eventually, main

NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP: what changing other people's files takes.
FILE_CAPS = (1 << 0) | (1 << 1) | (1 << 3) | (1 << 4) | (1 << 31)
SENTRY_FDS = (r"/dev/null", r"pipe:", r"socket:", r"anon_inode:\[eventpoll\]", r"/memfd:ringwall-memory",
              r"/memfd:stub-operations", r"/memfd:stub-areas", r"/memfd:patched-sites",
              r"anon_inode:\[eventfd\]", r".*/memory\.(events|oom_control)$")

TABLE = {
    "runsc-sentry": {"id": 65534, "caps": 0, "own": set(NAMESPACES), "root": "empty",
                     "dumpable": False, "fds": SENTRY_FDS},
    "runsc-stub": {"id": 65534, "caps": 0, "own": set(NAMESPACES), "root": "empty",
                   "dumpable": True, "fds": SENTRY_FDS},
    "runsc-decoder": {"id": 65534, "caps": 0, "own": set(NAMESPACES), "root": "empty",
                      "dumpable": False, "fds": (r"socket:",)},
    "runsc-gofer": {"id": 0, "caps": FILE_CAPS, "own": {"mnt", "net", "ipc", "uts"}, "root": "empty",
                    "dumpable": False,
                    "fds": (r"/dev/null", r"socket:", r"pipe:", r"anon_inode:(\[eventfd\]|inotify)$")},
}


def read(pid, name):
    return pathlib.Path(f"/proc/{pid}/{name}").read_text()


def status(pid, field):
    return re.search(rf"^{field}:\s+(.*)$", read(pid, "status"), re.M).group(1)


@unittest.skipUnless(IS_OURS and os.geteuid() == 0, "looks into runsc's own processes, as root")
class Confinement(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.host = {n: os.readlink(f"/proc/self/ns/{n}") for n in NAMESPACES}

    def start(self):
        self.write(["/bin/sh", "-c", "echo ready; sleep 1000 & sleep 1000"])
        p = self.popen("run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual(p.stdout.readline(), "ready\n")
        eventually(lambda: sum("stub" in c for c in self.names(p)) >= 3, what="stubs")
        eventually(lambda: self.is_confined(p, "runsc-decoder"), what="a decoder that is ready")
        return p

    @staticmethod
    def is_confined(p, name):
        for pid in children_of(p.pid):
            try:
                if read(pid, "comm").strip() == name:
                    return status(pid, "Seccomp") == "2"
            except OSError:
                pass
        return False

    @staticmethod
    def names(p):
        out = []
        for pid in children_of(p.pid):
            try:
                out.append(read(pid, "comm").strip())
            except OSError:
                pass
        return out

    def processes(self, p):
        found = {}
        for pid in children_of(p.pid):
            found.setdefault(read(pid, "comm").strip(), []).append(pid)
        self.assertEqual(set(found), set(TABLE), "the processes of a sandbox")
        return [(name, pid) for name, pids in found.items() for pid in pids]

    def test_every_process(self):
        p = self.start()
        for name, pid in self.processes(p):
            with self.subTest(process=name):
                self.check(pid, TABLE[name])

    def test_the_decoder_has_its_connection_and_no_more(self):
        p = self.start()
        pid = next(pid for name, pid in self.processes(p) if name == "runsc-decoder")
        self.assertEqual(os.listdir(f"/proc/{pid}/fd"), ["0"])
        limits = read(pid, "limits")
        for name in ("open files", "processes", "address space", "data size", "file size"):
            self.assertRegex(limits, rf"Max {name}\s+\d+\s+\d+", name)
        sentry = next(pid for name, pid in self.processes(p) if name == "runsc-sentry")
        os.kill(int(sentry), 9)
        eventually(lambda: not os.path.exists(f"/proc/{pid}/root"), what="the decoder's end")

    def gofer_of(self, cid):
        return json.loads((self.root / cid / "state.json").read_text())["gofer"]["pid"]

    def pod(self, kind, pod="x"):
        def change(c):
            c["annotations"] = {"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": pod}
        return self.create(["/bin/sleep", "1000"], change)

    def test_gofer_of_a_joined_container(self):
        pod = self.pod("sandbox")
        first, second = self.gofer_of(pod), self.gofer_of(self.pod("container", pod))
        self.check(second, TABLE["runsc-gofer"])
        for n in ("mnt", "net", "ipc", "uts"):
            with self.subTest(namespace=n):
                self.assertEqual(os.readlink(f"/proc/{second}/ns/{n}"), os.readlink(f"/proc/{first}/ns/{n}"))

    def test_root_of_the_host_joined(self):
        """The host's proc is hidden in a mount namespace that nobody else is in."""
        def whole_host(c):
            c["root"] = {"path": "/", "readonly": True}
            c["annotations"] = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": pod}
            c["mounts"] = [m for m in c["mounts"] if m["destination"] != "/proc"]
        pod = self.pod("sandbox")
        with (self.dir / "out").open("w+") as out:
            cid = self.create(["/bin/sh", "-c", "ls -A /proc; echo end"], whole_host, stdout=out)
            gofer = self.gofer_of(cid)
            self.check_namespaces(gofer, TABLE["runsc-gofer"])
            self.check_root(gofer, TABLE["runsc-gofer"])
            own, first = (os.readlink(f"/proc/{p}/ns/mnt") for p in (gofer, self.gofer_of(pod)))
            self.assertNotEqual(own, first)
            self.assertEqual(self.call("start", cid).returncode, 0)
            self.wait_status(cid, "stopped")
            self.assertEqual((self.dir / "out").read_text(), "end\n")
        self.assertTrue(os.path.exists("/proc/self/stat"), "the host keeps its own")

    def check(self, pid, want):
        for task in os.listdir(f"/proc/{pid}/task"):
            self.check_thread(f"{pid}/task/{task}", want)
        self.check_namespaces(pid, want)
        self.check_root(pid, want)
        self.check_fds(pid, want)
        limits = read(pid, "limits")
        self.assertRegex(limits, r"Max core file size\s+0\s+0")
        # The owner of /proc/<pid>/maps is root's when nobody may look, the process' own otherwise.
        owner = os.stat(f"/proc/{pid}/maps").st_uid
        if want["id"] != 0:
            self.assertEqual(owner == want["id"], want["dumpable"], "dumpable")

    def check_thread(self, pid, want):
        ids = [str(want["id"])] * 4
        self.assertEqual(status(pid, "Uid").split(), ids)
        self.assertEqual(status(pid, "Gid").split(), ids)
        self.assertEqual(status(pid, "Groups").strip() if "Groups:\t \n" not in
                         read(pid, "status") else "", "")
        for field in ("CapPrm", "CapEff", "CapBnd"):
            self.assertEqual(int(status(pid, field), 16) & ~want["caps"], 0, field)
        for field in ("CapInh", "CapAmb"):
            self.assertEqual(int(status(pid, field), 16), 0, field)
        self.assertEqual(status(pid, "NoNewPrivs"), "1")
        self.assertEqual(status(pid, "Seccomp"), "2")

    def check_namespaces(self, pid, want):
        own = {n for n in NAMESPACES if os.readlink(f"/proc/{pid}/ns/{n}") != self.host[n]}
        self.assertEqual(own, want["own"], "namespaces of its own")

    def check_root(self, pid, want):
        # One's own threads keep it alive; the directory must show nothing.
        self.assertEqual(os.listdir(f"/proc/{pid}/root"), [], "its root is empty")
        flags = [line.split()[5] for line in read(pid, "mountinfo").splitlines()
                 if line.split()[4] == "/"]
        self.assertTrue(flags and all("ro" in f.split(",") for f in flags), f"root: {flags}")

    def check_fds(self, pid, want):
        outputs = {os.readlink(f"/proc/self/fd/{i}") for i in (0, 1, 2)}
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                mode = os.stat(f"/proc/{pid}/fd/{fd}").st_mode
            except OSError:
                continue
            # Files of the container are named as its own mount namespace has them.
            inside = os.path.lexists(self.rootfs / target.lstrip("/"))
            known = any(re.match(k, target) for k in want["fds"]) or target in outputs
            piped = target.startswith("pipe:")
            self.assertTrue(known or inside or piped, f"descriptor {fd} -> {target} ({mode:o})")

    def test_guest_sees_no_host(self):
        p = self.shell("ls /proc; cat /proc/1/status; cat /proc/mounts; id; hostname")
        self.assertEqual(p.returncode, 0, p.stderr)
        for word in ("runsc", "containerd", str(self.dir)):
            self.assertNotIn(word, p.stdout)


if __name__ == "__main__":
    main()
