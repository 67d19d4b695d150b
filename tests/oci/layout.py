"""A container in a cgroup of its own, in one of the layouts of hierarchies that a host may have: a mix-in for
Case. What is not to be there is hidden by a mount namespace around each command of the runtime."""
import glob
import os
import pathlib
import subprocess

from harness import eventually


def mounted(kind):
    lines = pathlib.Path("/proc/self/mounts").read_text().splitlines()
    return [l.split()[1] for l in lines if l.split()[2] == kind]


HAS_V1 = bool(mounted("cgroup"))
HAS_V2 = bool(mounted("cgroup2"))


class Layout:
    """One layout; `hide` is a shell line that makes it."""
    hide = ":"

    def setUp(self):
        super().setUp()
        self.path = f"/ringwall-cg-{os.getpid()}/{self._testMethodName}"
        self.addCleanup(self.remove)

    def runtime(self, *args):
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", self.hide + ' && exec "$@"', "sh",
                *super().runtime(*args)]

    def look(self, script):
        """Output of a shell that sees the layout."""
        return subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", f"{self.hide} && {script}"],
                              check=True, stdout=subprocess.PIPE, text=True).stdout

    def dirs(self):
        found = self.look("awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/mounts").split()
        return [d + self.path for d in found]

    def remove(self):
        for d in sorted(glob.glob(f"/sys/fs/cgroup/**/{self.path.split('/')[1]}", recursive=True)):
            for base, dirs, _ in os.walk(d, topdown=False):
                eventually(lambda base=base: not os.path.exists(base) or self.rmdir(base), what="empty cgroup")

    @staticmethod
    def rmdir(d):
        try:
            os.rmdir(d)
        except OSError:
            return False
        return True

    def file(self, name):
        """A file of the container's cgroup, from the hierarchy that has it, or None."""
        text = self.look("for d in " + " ".join(self.dirs()) + f"; do [ ! -e $d/{name} ] || cat $d/{name}; done")
        return text.strip() or None

    def controllers(self):
        return self.look("for d in $(awk '$3 == \"cgroup2\" {print $2}' /proc/mounts); do "
                         "cat $d/cgroup.controllers; done; awk '$3 == \"cgroup\" {print $4}' /proc/mounts | tr , ' '"
                         ).split()

    def made(self, args, resources=None):
        def change(c):
            c["linux"]["cgroupsPath"] = self.path
            if resources:
                c["linux"]["resources"] = resources
        cid = self.create(args, change)
        self.assertEqual(self.call("start", cid).returncode, 0)
        return cid
