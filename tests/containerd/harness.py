"""A containerd of the test's own: its state, its socket, images without a network; and ctr.

CONTAINERD_RUNTIME is the runtime binary under test. Everything is started here and ended here, by
process id; nothing of another containerd on the machine is touched.
"""
import contextlib
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import unittest

# Set to use our own shim, which stands beside the runtime, in place of containerd's for runc.
OWN_SHIM = os.environ.get("CONTAINERD_OWN_SHIM") == "1"
# Where it keeps the runtime's state, in a directory for each namespace of containerd.
SHIM_ROOT = pathlib.Path("/run/containerd/runsc")
RUNTIME = os.path.abspath(os.environ.get("CONTAINERD_RUNTIME", shutil.which("runc") or "runc"))
BUSYBOX = "/bin/busybox"
IMAGE = "docker.io/library/bb:test"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT = 120


def eventually(check, timeout=120, what="condition"):
    """check()'s first true value; the deadline is only for a hang."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"still not true after {timeout} s: {what}")
        time.sleep(0.02)


def layer():
    """A layer: one static busybox and its names."""
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode="w") as tar:
        def entry(name, kind=tarfile.DIRTYPE, mode=0o755, data=b"", link=""):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
            tar.addfile(info, io.BytesIO(data))
        for name in ("bin", "etc", "proc", "sys", "dev", "root", "var", "run", "home", "usr", "usr/bin"):
            entry(name)
        entry("tmp", mode=0o1777)
        entry("bin/busybox", tarfile.REGTYPE, data=pathlib.Path(BUSYBOX).read_bytes())
        names = subprocess.run([BUSYBOX, "--list"], check=True, stdout=subprocess.PIPE, text=True)
        for name in names.stdout.split():
            if name != "busybox":
                entry(f"bin/{name}", tarfile.SYMTYPE, link="busybox")
        entry("etc/passwd", tarfile.REGTYPE, 0o644,
              b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n")
        entry("etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
    return buf.getvalue()


def make_image(path, name=IMAGE, cmd=("sh",)):
    """An archive as `docker save` writes it."""
    data = layer()
    diff = hashlib.sha256(data).hexdigest()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
        "config": {"Env": [f"PATH={PATH}"], "Cmd": list(cmd), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
        "history": [{"created": "1970-01-01T00:00:00Z"}]}).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name],
                            "Layers": [f"{diff}/layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for member, content in (("manifest.json", manifest), (config_name, config),
                                (f"{diff}/layer.tar", data)):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def end(process):
    """SIGTERM, then SIGKILL, to a process that we started."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
    if process.poll() is None:
        process.kill()
        process.wait()


def processes_naming(text):
    """Live processes with text in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                line = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
                if text.encode() in line and alive(int(entry)):
                    found.append(int(entry))
    return found


class Containerd:
    """One containerd. start and stop may alternate: its containers stay. cri(directory): the
    configuration of the CRI plugin, which is off without."""

    def __init__(self, cri=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="rwcd-"))
        self.address = str(self.dir / "c.sock")
        self.namespace = f"test{os.getpid()}"
        off = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.devmapper",
               "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
               "io.containerd.snapshotter.v1.zfs"]
        if cri is None:
            off.append("io.containerd.grpc.v1.cri")
        (self.dir / "config.toml").write_text(
            f'version = 2\nroot = "{self.dir}/root"\nstate = "{self.dir}/state"\n'
            f"disabled_plugins = {json.dumps(off)}\n"
            f'[grpc]\n  address = "{self.address}"\n[debug]\n  level = "debug"\n' + (cri(self.dir) if cri else ""))
        self.process = None

    def start(self, wrap=()):
        self.log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen(
            [*wrap, "containerd", "-c", str(self.dir / "config.toml")], stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log, start_new_session=True,
            env={"HOME": "/root", "PATH": f"{os.path.dirname(RUNTIME)}:{PATH}"})
        eventually(lambda: self.ctr("version").returncode == 0, what="containerd answers")

    def stop(self):
        end(self.process)
        self.log.close()

    def ctr(self, *args, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("timeout", TIMEOUT)
        return subprocess.run(["ctr", "-a", self.address, "-n", self.namespace, *args],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)

    def remove(self):
        for task in self.ctr("task", "ls", "-q").stdout.split():
            self.ctr("task", "rm", "-f", task)
        for name in self.ctr("container", "ls", "-q").stdout.split():
            self.ctr("container", "rm", name)
        for pid in processes_naming(self.address):
            if pid != self.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.stop()
        mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.dir}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)
        with contextlib.suppress(OSError):
            (SHIM_ROOT / self.namespace).rmdir()


class Case(unittest.TestCase):
    """A containerd for the class, with the image; the runtime keeps its state beside it."""

    @classmethod
    def setUpClass(cls):
        cls.cd = Containerd()
        cls.addClassCleanup(cls.cd.remove)
        cls.cd.start()
        make_image(cls.cd.dir / "image.tar")
        p = cls.cd.ctr("image", "import", str(cls.cd.dir / "image.tar"))
        assert p.returncode == 0, p.stderr
        cls.serial = 0

    def new_id(self):
        type(self).serial += 1
        return f"c{os.getpid()}-{self.serial}"

    def run_args(self, *args):
        if OWN_SHIM:
            return ["run", "--runtime", "io.containerd.runsc.v1", *args]
        return ["run", "--runc-binary", RUNTIME, "--runc-root", str(self.cd.dir / "rr"), *args]

    def runtime_root(self):
        """Where the runtime keeps its state."""
        if OWN_SHIM:
            return SHIM_ROOT / self.cd.namespace
        return self.cd.dir / "rr" / self.cd.namespace

    def run_rm(self, *command, options=(), **kw):
        return self.cd.ctr(*self.run_args("--rm", *options, IMAGE, self.new_id(), *command), **kw)

    def run_detached(self, *command, options=()):
        name = self.new_id()
        p = self.cd.ctr(*self.run_args("-d", "--null-io", *options, IMAGE, name, *command))
        self.assertEqual(p.returncode, 0, p.stderr)
        self.addCleanup(self.discard, name)
        return name

    def discard(self, name):
        self.cd.ctr("task", "rm", "-f", name)
        self.cd.ctr("container", "rm", name)

    def status(self, name):
        for line in self.cd.ctr("task", "ls").stdout.splitlines():
            if line.split()[0] == name:
                return line.split()[2]
        return None

    def pid(self, name):
        for line in self.cd.ctr("task", "ls").stdout.splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
        return None

    def exec(self, name, *command, options=(), **kw):
        return self.cd.ctr("task", "exec", "--exec-id", f"x{time.monotonic_ns()}", *options, name,
                           *command, **kw)

    def wait_status(self, name, status):
        eventually(lambda: self.status(name) == status, what=f"{name} {status}")
