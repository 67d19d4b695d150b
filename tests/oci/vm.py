"""A virtual machine with a kernel of its own, for tests that need another host than this one.

It has no network and no disk: the kernel of a Debian package (unpacked, not installed) and an initial file
system with Python, busybox, the runtime under test and what the caller adds. The machine is emulated, since
what a CI machine has for KVM may be too little for a kernel to start on. What the program in it prints comes by
a serial line of its own, so that no kernel message stands between.
"""
import ast
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

# Its iretq in user mode reads the stack with the kernel's rights (QEMU before 9.1), which SMAP forbids.
CPU = "max,-smap"
KERNEL = "linux-image-cloud-amd64"
# An emulated clock is late on a busy machine, and code that was translated serves again where a program is always
# at the same place.
ARGUMENTS = "console=ttyS0 panic=-1 quiet no_timer_check mitigations=off norandmaps"
# The machine's first process. Real hosts do not live in the initial file system, where pivot_root does not
# work: the root becomes a mount above it.
INIT = """#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
if [ "$1" != moved ]; then
    busybox chroot /host /usr/bin/busybox --install -s /usr/bin
    busybox mount --bind /host /host
    cd /host
    busybox mount --move . /
    exec busybox chroot . /usr/bin/busybox sh /init moved
fi
mkdir -p /dev /proc /sys /tmp /run
mount -t devtmpfs devices /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
chmod 1777 /tmp /dev/shm
ip link set lo up
ln -s /proc/self/fd /dev/fd
stty -F /dev/ttyS1 raw
exec </dev/null >/dev/ttyS1 2>&1
sh /program
echo "vm: ended with $?"
sync
stty -F /dev/ttyS1 raw
poweroff -f
"""


def kernel(folder):
    """The kernel image of the newest package, downloaded into folder once."""
    image = pathlib.Path(folder) / "vmlinuz"
    if image.exists():
        return image
    image.parent.mkdir(parents=True, exist_ok=True)
    depends = r"Depends: (linux-image-\S+)"
    found = re.search(depends, output("apt-cache", "depends", KERNEL, check=False))
    if found is None:  # a machine whose lists were taken away to save room
        subprocess.run(["apt-get", "-qq", "-o", "Acquire::Retries=3", "update"], check=True)
        found = re.search(depends, output("apt-cache", "depends", KERNEL))
    name = found.group(1)
    with tempfile.TemporaryDirectory(dir=folder) as new:
        os.chmod(new, 0o777)  # apt may download as somebody else
        subprocess.run(["apt-get", "-qq", "-o", "Acquire::Retries=3", "download", name], cwd=new, check=True)
        package = next(pathlib.Path(new).glob("linux-image-*.deb"))
        subprocess.run(["dpkg-deb", "--extract", package, new], check=True)
        next(pathlib.Path(new).glob("boot/vmlinuz-*")).rename(image)
    return image


def output(*args, check=True, **kw):
    return subprocess.run(args, check=check, stdout=subprocess.PIPE, text=True, **kw).stdout


class Image:
    """An initial file system: a cpio archive of the kind "newc". All names are those that programs see."""

    def __init__(self, path):
        self.out = open(path, "wb")
        self.have = {"host"}
        self.entry("dev", stat.S_IFDIR | 0o755)
        self.entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        self.entry("bin", stat.S_IFDIR | 0o755)
        self.entry("bin/busybox", stat.S_IFREG | 0o755, pathlib.Path("/bin/busybox").read_bytes())
        self.entry("init", stat.S_IFREG | 0o755, INIT.encode())
        self.entry("host", stat.S_IFDIR | 0o755)
        # /bin is /usr/bin, as on the host; programs name the dynamic loader by the old place.
        for place in ("bin", "sbin", "lib", "lib64"):
            self.put(f"usr/{place}", stat.S_IFDIR | 0o755)
            self.put(place, stat.S_IFLNK | 0o777, f"usr/{place}".encode())
        self.text("init", INIT)
        self.copy("/bin/busybox", "usr/bin/busybox")

    def close(self):
        self.entry("TRAILER!!!", 0)
        self.out.close()

    def entry(self, name, mode, data=b"", device=(0, 0), mtime=0):
        raw = os.fsencode(name) + b"\0"
        self.serial += 1
        fields = (self.serial, mode, 0, 0, 1, mtime, len(data), 0, 0, *device, len(raw), 0)
        self.out.write(b"070701" + b"".join(b"%08x" % f for f in fields) + raw)
        self.pad()
        self.out.write(data)
        self.pad()

    serial = 0

    def pad(self):
        self.out.write(bytes(-self.out.tell() % 4))

    def put(self, name, mode, data=b"", mtime=0):
        """What is there already stays; folders are made on the way."""
        name = re.sub(r"^(bin|sbin|lib|lib64)/", r"usr/\1/", str(name).lstrip("/"))
        if f"host/{name}" in self.have:
            return
        if "/" in name:
            self.put(os.path.dirname(name), stat.S_IFDIR | 0o755)
        self.have.add(f"host/{name}")
        self.entry(f"host/{name}", mode, data, mtime=mtime)

    def text(self, name, text, mode=0o644):
        self.put(name, stat.S_IFREG | mode, text.encode())

    def copy(self, source, name=None):
        """A file, a link or a whole folder; under the same name, unless another is given."""
        source = pathlib.Path(source)
        name = str(name or source)
        st = source.lstat()
        if stat.S_ISLNK(st.st_mode):
            self.put(name, st.st_mode, os.fsencode(os.readlink(source)))
        elif stat.S_ISDIR(st.st_mode):
            self.put(name, st.st_mode)
            for entry in sorted(source.iterdir()):
                self.copy(entry, f"{name}/{entry.name}")
        elif stat.S_ISREG(st.st_mode):
            self.put(name, st.st_mode, source.read_bytes(), int(st.st_mtime))

    def program(self, path, name=None):
        """An executable, or a module of Python, with the shared objects that it loads."""
        self.copy(os.path.realpath(path), name or path)
        p = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for lib in re.findall(r"(/\S+) \(0x", p.stdout):
            self.copy(os.path.realpath(lib), lib)

    def python(self, folder, scripts):
        """The interpreter, and scripts of a folder in /tests with the modules that they load."""
        # It finds its library by its own place.
        interpreter = os.path.realpath(sys.executable)
        self.program(interpreter)
        self.put("usr/bin/python3", stat.S_IFLNK | 0o777, os.fsencode(interpreter))
        modules = {"concurrent.futures.thread", "difflib", "encodings.ascii", "encodings.idna", "unittest"}
        for script in scripts:
            self.copy(folder / script, f"/tests/{script}")
            modules |= imports(folder / script)
        for line in output(sys.executable, "-Bc", SHOW, *sorted(modules), cwd=folder).splitlines():
            source, cached = line.split(" ", 1)
            if os.path.dirname(source) == str(folder):
                self.copy(source, f"/tests/{os.path.basename(source)}")
            elif source.endswith(".so"):
                self.program(source)
            else:
                self.copy(source)
                if os.path.exists(cached):
                    self.copy(cached)


# What the modules that it is given come from, and everything that they load.
SHOW = """import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for m in list(sys.modules.values()):
    if getattr(m, "__file__", None):
        print(m.__file__, getattr(m, "__cached__", ""))
"""


def imports(script):
    names = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


def base_image(path, runtime, folder, scripts):
    """An image with /usr/bin/runsc, the scripts and the commands that the tests of this folder call."""
    image = Image(path)
    # busybox's own are not enough; its shell would take its own before those of PATH.
    for command in ("sh", "unshare", "mount", "umount"):
        image.program(shutil.which(command), f"/usr/bin/{command}")
    image.python(folder, scripts)
    for name in ("runsc", "runsc-decoder"):
        with tempfile.NamedTemporaryFile() as bare:  # its symbols are most of it
            subprocess.run(["strip", "-o", bare.name, pathlib.Path(runtime).with_name(name)], check=True)
            os.chmod(bare.name, 0o755)
            image.program(bare.name, f"/usr/bin/{name}")
    image.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    image.text("etc/group", "root:x:0:\n")
    image.text("etc/shadow", "root:*:::::::\n", 0o640)
    return image


# How systemd has it: one hierarchy, and every controller in it. And a mix.
LAYOUTS = """case $layout in
unified) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
mixed)
    mount -t tmpfs cgroup /sys/fs/cgroup
    for c in memory cpuset freezer; do
        mkdir /sys/fs/cgroup/$c
        mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c
    done
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
esac || exit
cd /tests && RUNTIME="/usr/bin/runsc $platform" python3 -B guest.py $tests
"""
GUEST = """import json, sys, unittest
suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1].split(","))
r = unittest.TextTestRunner(sys.stdout, verbosity=2).run(suite)
bad = [t.id() for t, _ in r.failures + r.errors] + [t.id() for t in r.unexpectedSuccesses]
print("result " + json.dumps({"ran": r.testsRun, "bad": bad, "skipped": [[t.id(), why] for t, why in r.skipped]}))
"""


def tests_image(path, runtime, folder, tests):
    """An image that runs tests of folder, named as unittest names them; platform and layout come with boot."""
    modules = {t.split(".")[0] + ".py" for t in tests}
    image = base_image(path, runtime, folder, ["harness.py", *sorted(modules)])
    image.text("program", LAYOUTS)
    image.text("tests/guest.py", GUEST)
    image.close()


def run_tests(kernel_image, image, folder, layout, tests, platform=""):
    """(what was printed, {"ran": count, "bad": ids, "skipped": [[id, why]]} or None when it did not get so far)."""
    text, code, console = boot(kernel_image, image, folder,
                               f'layout={layout} tests={",".join(tests)} "platform={platform}"')
    lines = [l for l in text.splitlines() if l.startswith("result ")]
    if code != 0 or not lines:
        return f"{text}\n{console}", None
    return text, json.loads(lines[-1].removeprefix("result "))


def boot(kernel_image, image, folder, arguments="", memory=1024, timeout=900):
    """Runs /program of the image to its end: (what it printed, its exit code or None, the console)."""
    folder = pathlib.Path(folder)
    result, console = folder / "result", folder / "console"
    with open(console, "wb") as log:
        subprocess.run(
            ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-m", str(memory), "-smp", "2",
             "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
             "-kernel", kernel_image, "-initrd", image,
             "-append", f"{ARGUMENTS} {arguments}",
             "-serial", "stdio", "-serial", f"file:{result}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=timeout, check=False)
    text = result.read_text(errors="replace") if result.exists() else ""
    end = re.search(r"^vm: ended with (\d+)\s*\Z", text, re.M)
    return text, int(end.group(1)) if end else None, console.read_text(errors="replace")
