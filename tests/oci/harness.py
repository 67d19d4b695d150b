"""Bundles, runtimes and waiting, for the tests of the command line.

RUNTIME names the runtime under test ("build/release/runsc/runsc --platform ptrace", or "runc" to see
what another one does); GUEST_TRUE and the like come from busybox, so a root file system is one file.
"""
import contextlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

RUNTIME = shlex.split(os.environ.get("RUNTIME", "runc"))
IS_OURS = os.path.basename(RUNTIME[0]) == "runsc"
BUSYBOX = "/bin/busybox"
TIMEOUT = 120
CAPS = ["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
        "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
        "CAP_SETUID", "CAP_SYS_CHROOT"]


def default_config(args):
    """The smallest configuration that a program can live in."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
            "env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin", "HOME=/root"],
            "capabilities": {k: CAPS for k in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "guest",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "nodev", "mode=1777"]},
        ],
        "linux": {"namespaces": [{"type": t} for t in
                                 ("pid", "network", "ipc", "uts", "mount")]},
    }


def make_rootfs(path):
    """A root file system of one static busybox and its names."""
    root = pathlib.Path(path)
    for name in ("bin", "proc", "dev", "tmp", "etc", "root", "sys"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    names = subprocess.run([BUSYBOX, "--list"], check=True, stdout=subprocess.PIPE, text=True)
    for name in names.stdout.split():
        if name != "busybox":
            with contextlib.suppress(FileExistsError):
                (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


def eventually(check, timeout=120, what="condition"):
    """check()'s first true value; the deadline is only for a hang, no test depends on speed."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"still not true after {timeout} s: {what}")
        time.sleep(0.01)


def copy_runtime(folder):
    """The runtime under test, with what it looks for beside it, for anybody: its path there."""
    for name in (os.path.basename(RUNTIME[0]), "runsc-decoder"):
        source = pathlib.Path(RUNTIME[0]).with_name(name)
        if source.exists():
            shutil.copy(source, folder / name)
            os.chmod(folder / name, 0o755)
    return folder / os.path.basename(RUNTIME[0])


def children_of(pid):
    """Every live descendant of pid, zombies not counted."""
    found, unseen = [], [pid]
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
                state, parent = stat.rsplit(")", 1)[1].split()[:2]
                if state not in "ZX":
                    parents.setdefault(int(parent), []).append(int(entry))
    while unseen:
        for child in parents.get(unseen.pop(), []):
            found.append(child)
            unseen.append(child)
    return found


def is_static(program):
    """Builds with sanitizers are not: they are not installed, and do not count their heap."""
    return "INTERP" not in subprocess.run(["readelf", "-lW", program], check=True, text=True,
                                          stdout=subprocess.PIPE).stdout


def alive(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


class Case(unittest.TestCase):
    """One temporary directory with a bundle, a state root of its own and a list of ids to delete."""

    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.TemporaryDirectory(prefix="oci-shared-")
        os.chmod(cls.shared.name, 0o755)
        cls.rootfs = make_rootfs(pathlib.Path(cls.shared.name) / "rootfs")

    @classmethod
    def tearDownClass(cls):
        cls.shared.cleanup()

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix="oci-test-")
        os.chmod(self.tmp.name, 0o755)
        self.dir = pathlib.Path(self.tmp.name)
        self.root = self.dir / "state"
        self.bundle = self.dir / "bundle"
        self.bundle.mkdir()
        self.serial = 0
        self.addCleanup(self.tmp.cleanup)

    def runtime(self, *args):
        return [*RUNTIME, "--root", str(self.root), *args]

    def call(self, *args, **kw):
        """Runs a command of the runtime to its end."""
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("timeout", TIMEOUT)
        return subprocess.run(self.runtime(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, **kw)

    def popen(self, *args, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        p = subprocess.Popen(self.runtime(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, **kw)
        self.addCleanup(self._reap, p)
        return p

    @staticmethod
    def _reap(p):
        if p.poll() is None:
            p.kill()
        p.communicate()

    def write(self, args, change=None, rootfs=None):
        """config.json for args, after change(config)."""
        config = default_config(args)
        config["root"]["path"] = str(rootfs or self.rootfs)
        if change:
            change(config)
        (self.bundle / "config.json").write_text(json.dumps(config))
        return config

    def new_id(self):
        self.serial += 1
        name = f"t{os.getpid()}-{self.serial}"
        self.addCleanup(self.call, "delete", "--force", name)
        return name

    def run_guest(self, args, change=None, **kw):
        """runsc run of a fresh container to its end."""
        self.write(args, change)
        return self.call("run", "--bundle", str(self.bundle), self.new_id(), **kw)

    def shell(self, script, change=None, **kw):
        return self.run_guest(["/bin/sh", "-c", script], change, **kw)

    def create(self, args, change=None, **kw):
        self.write(args, change)
        cid = self.new_id()
        p = self.call_quiet("create", "--bundle", str(self.bundle), cid, **kw)
        self.assertEqual(p.returncode, 0, "create failed")
        return cid

    def call_quiet(self, *args, **kw):
        """For create and run -d: the container keeps our pipes open, so it gets files instead."""
        out = kw.pop("stdout", subprocess.DEVNULL)
        err = kw.pop("stderr", subprocess.DEVNULL)
        return subprocess.run(self.runtime(*args), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                              timeout=TIMEOUT, **kw)

    def state(self, cid):
        p = self.call("state", cid)
        return json.loads(p.stdout) if p.returncode == 0 else None

    def wait_status(self, cid, status):
        def check():
            s = self.state(cid)
            return s if s and s["status"] == status else None
        return eventually(check, what=f"{cid} {status}")

    def assert_nothing_left(self):
        left = [p for p in self.root.glob("*")] if self.root.exists() else []
        self.assertEqual(left, [], "state is left behind")


def kill9(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main():
    unittest.main(verbosity=2)
