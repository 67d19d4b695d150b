#!/usr/bin/env python3
"""linux.uidMappings and gidMappings: whose files and processes are whose, seen from inside and outside."""
import json
import os
import shutil
import subprocess
import unittest

from harness import IS_OURS, RUNTIME, Case, copy_runtime, main

FIRST, COUNT = 100000, 65536


def mapped(config, size=COUNT, first=FIRST):
    config["linux"]["namespaces"].append({"type": "user"})
    one = [{"containerID": 0, "hostID": first, "size": size}]
    config["linux"].update(uidMappings=one, gidMappings=one)


def chown_tree(root, uid):
    os.chown(root, uid, uid)
    for base, dirs, files in os.walk(root):
        for name in dirs + files:
            os.chown(os.path.join(base, name), uid, uid, follow_symlinks=False)


@unittest.skipUnless(os.geteuid() == 0, "needs ids to map")
class UserNamespace(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        chown_tree(cls.rootfs, FIRST)
        os.chmod(cls.rootfs / "root", 0o755)
        cls.put("hosts-own", 0, 0o644)
        cls.put("hosts-secret", 0, 0o600)
        cls.put("users", FIRST + 1000, 0o600)
        cls.put("beyond", FIRST + COUNT, 0o644)

    @classmethod
    def put(cls, name, uid, mode):
        f = cls.rootfs / "root" / name
        f.write_text("x\n")
        os.chown(f, uid, uid)
        f.chmod(mode)

    def ids(self, paths, change=mapped):
        p = self.shell(f"cd /root; stat -c %u:%g {paths}", change)
        self.assertEqual(p.returncode, 0, p.stderr)
        return p.stdout.split()

    def test_maps_are_shown(self):
        p = self.shell("id -u; cat /proc/self/uid_map /proc/self/gid_map", mapped)
        self.assertEqual(p.stdout.split(), ["0"] + ["0", str(FIRST), str(COUNT)] * 2, p.stderr)

    def test_owners_of_files(self):
        self.assertEqual(self.ids("hosts-own hosts-secret users beyond /bin/busybox"),
                         ["65534:65534", "65534:65534", "1000:1000", "65534:65534", "0:0"])

    def test_owners_of_what_is_mounted(self):
        self.assertEqual(self.ids("/tmp /dev /dev/pts /dev/pts/ptmx /dev/fd /dev/ptmx /proc/1 /proc/self/fd"),
                         ["0:0"] * 8)
        # The host's own.
        self.assertEqual(self.ids("/dev/null /dev/tty /proc /proc/cpuinfo"), ["65534:65534"] * 4)

    def test_rights_end_at_the_map(self):
        p = self.shell("cd /root; cat hosts-own users; cat hosts-secret; echo $?; chown 1 hosts-own;"
                       " echo $?; chown 5:6 users && stat -c %u:%g users; chown 70000 users; echo $?", mapped)
        self.assertEqual(p.stdout.split(), ["x", "x", "1", "1", "5:6", "1"], p.stderr)
        if not IS_OURS:
            os.chown(self.rootfs / "root/users", FIRST + 1000, FIRST + 1000)

    def test_new_files(self):
        def bind(c):
            mapped(c)
            c["mounts"].append({"destination": "/out", "type": "bind", "source": str(share), "options": ["rbind"]})
        share = self.dir / "share"
        share.mkdir()
        os.chown(share, FIRST, FIRST)
        p = self.shell("cd /out; touch a; mkdir d; ln -s a l; touch b; chown 7:8 b; stat -c %u:%g a d l b",
                       bind)
        self.assertEqual(p.stdout.split(), ["0:0"] * 3 + ["7:8"], p.stderr)
        seen = [(s.st_uid - FIRST, s.st_gid - FIRST) for s in
                (os.lstat(share / n) for n in ("a", "d", "l", "b"))]
        self.assertEqual(seen, [(0, 0)] * 3 + [(7, 8)])

    def test_user_of_the_process(self):
        def user(c):
            mapped(c)
            c["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 1002]}
        p = self.shell("id -u; id -g; id -G; cat /root/users", user)
        self.assertEqual(p.stdout.split("\n"), ["1000", "1001", "1001 5 1002", "x", ""], p.stderr)

    def test_exec_is_in_it(self):
        cid = self.create(["/bin/sleep", "1000"], mapped)
        self.assertEqual(self.call("start", cid).returncode, 0)
        p = self.call("exec", "--user", "1000:5", cid, "/bin/sh", "-c", "id -u; id -g; cat /proc/self/uid_map")
        self.assertEqual(p.stdout.split(), ["1000", "5", "0", str(FIRST), str(COUNT)], p.stderr)

    def test_root_inside_may(self):
        def caps(c):
            mapped(c)
            for k in ("bounding", "effective", "permitted"):
                c["process"]["capabilities"][k] = c["process"]["capabilities"][k] + ["CAP_SYS_ADMIN"]
        p = self.shell("hostname other && hostname; mount -t tmpfs none /tmp && echo mounted", caps)
        self.assertEqual(p.stdout.split(), ["other", "mounted"], p.stderr)

    def test_several_ranges(self):
        def two(c):
            mapped(c)
            for k in ("uidMappings", "gidMappings"):
                c["linux"][k] = [{"containerID": 0, "hostID": FIRST, "size": 10},
                                 {"containerID": 1000, "hostID": FIRST + 1000, "size": 10}]
        self.assertEqual(self.ids("users /bin/busybox", two), ["1000:1000", "0:0"])

    def test_mistakes(self):
        def without_maps(c):
            c["linux"]["namespaces"].append({"type": "user"})
        def no_root(c):
            mapped(c)
            c["process"]["user"] = {"uid": 70000, "gid": 0}
        for change in (without_maps, no_root):
            p = self.shell("true", change)
            self.assertNotEqual(p.returncode, 0, change.__name__)


@unittest.skipUnless(IS_OURS and os.geteuid() == 0 and shutil.which("setpriv"), "becomes somebody else")
class Rootless(Case):
    """An ordinary user, who is root inside."""
    UID = 1000

    def as_user(self, *args):
        return subprocess.run(["setpriv", "--reuid", str(self.UID), "--regid", str(self.UID), "--clear-groups",
                               str(self.program), *RUNTIME[1:], *args], stdin=subprocess.DEVNULL, timeout=180,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.bundle)

    def test_root_inside(self):
        self.program = copy_runtime(self.dir)
        shutil.copytree(self.rootfs, self.bundle / "rootfs", symlinks=True)
        chown_tree(self.dir, self.UID)
        self.assertEqual(self.as_user("spec", "--rootless").returncode, 0)
        config = json.loads((self.bundle / "config.json").read_text())
        config["root"]["readonly"] = config["process"]["terminal"] = False
        config["process"]["args"] = ["sh", "-c", "id -u; cat /proc/self/uid_map; stat -c %u:%g /bin/busybox /tmp;"
                                     "mkdir /new; stat -c %u:%g /new; chown 5 /new; echo $?"]
        (self.bundle / "config.json").write_text(json.dumps(config))
        p = self.as_user("--root", str(self.dir / "state"), "run", "rootless")
        self.assertEqual(p.stdout.split(), ["0", "0", str(self.UID), "1", "0:0", "0:0", "0:0", "1"], p.stderr)


if __name__ == "__main__":
    main()
