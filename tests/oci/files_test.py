#!/usr/bin/env python3
"""The root's overlay, and files that change on the host while a container has them.

FSX_SECONDS=600 for random operations over a long time on each kind of file system."""
import os
import pathlib
import resource
import shutil
import subprocess
import unittest

from harness import IS_OURS, TIMEOUT, Case, alive, children_of, eventually, kill9, main

BUILD = os.environ.get("BUILD_DIR", "")
FSX_SECONDS = int(os.environ.get("FSX_SECONDS", "2"))

MAPPER = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    int writes = argc < 2;
    int fd = open(writes ? "/m/data" : argv[1], writes ? O_RDWR : O_RDONLY);
    char *m = mmap(NULL, 65536, PROT_READ | (writes ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    int status, out;
    if (fd < 0 || m == MAP_FAILED || m[40000] != 'x')
        return 1;
    /* From now on the host may make it short. */
    if ((out = open("/m/mapped", O_CREAT | O_WRONLY, 0644)) < 0)
        return 1;
    while (access("/m/go", F_OK) != 0)
        usleep(10000);
    if (write(out, m + 40000, 10) != -1 || errno != EFAULT)
        return 2;
    if (fork() == 0)
        _exit(m[40000]);
    if (wait(&status) < 0 || !WIFSIGNALED(status) || WTERMSIG(status) != 7)
        return 3;
    if (!writes)
        return 0;
    m[10] = 'A';
    return m[10] == 'A' ? 0 : 4;
}
"""


def admin(config):
    caps = config["process"]["capabilities"]
    config["process"]["capabilities"] = {kind: [*names, "CAP_SYS_ADMIN"] for kind, names in caps.items()}


def bind(source, destination="/m"):
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["bind"]}


@unittest.skipUnless(IS_OURS, "an overlay of its own")
class Overlay(Case):
    def test_the_image_stays(self):
        p = self.shell("echo new > /etc/passwd; rm -r /root; mkdir /made; cat /etc/passwd; ls -d /root;"
                       " mknod /w c 0 0; ls -l /w | cut -c1; mv /sys /sys2; ls -d /sys2")
        self.assertEqual(p.stdout.split(), ["new", "c", "/sys2"])
        self.assertEqual((self.rootfs / "etc/passwd").read_text(), "root:x:0:0:root:/root:/bin/sh\n")
        self.assertTrue((self.rootfs / "root").is_dir())
        self.assertFalse((self.rootfs / "made").exists())

    def test_hard_links_of_the_image_stay_links(self):
        (self.rootfs / "etc/one").write_text("text\n")
        os.link(self.rootfs / "etc/one", self.rootfs / "etc/two")
        p = self.shell("echo more >> /etc/two; cat /etc/one; stat -c %h /etc/one; rm /etc/two;"
                       " stat -c %h /etc/one")
        self.assertEqual(p.stdout.split(), ["text", "more", "2", "1"])
        self.assertEqual((self.rootfs / "etc/one").read_text(), "text\n")

    def test_a_directory_of_the_image_is_renamed(self):
        (self.rootfs / "tree/a/b").mkdir(parents=True, exist_ok=True)
        (self.rootfs / "tree/a/b/f").write_text("deep\n")
        p = self.shell("mv /tree/a /tree/x && mv /tree/x/b /root/b && cat /root/b/f && ls /tree/x;"
                       " ls /tree; echo changed > /root/b/f; cat /root/b/f")
        self.assertEqual(p.stdout.split(), ["deep", "x", "changed"])

    def test_without_overlay(self):
        self.write(["/bin/sh", "-c", "echo through > /etc/through"])
        p = self.call("--overlay=none", "run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.assertEqual((self.rootfs / "etc/through").read_text(), "through\n")

    def test_size(self):
        self.write(["/bin/sh", "-c", "dd if=/dev/zero of=/big bs=1M count=8 2>&1 | grep -c 'No space'"])
        p = self.call("--overlay=root:memory,size=4m", "run", "--bundle", str(self.bundle),
                      self.new_id())
        self.assertEqual(p.stdout, "1\n")

    def test_nonsense(self):
        p = self.call("--overlay=everything", "list")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("--overlay", p.stderr)

    def test_a_guests_overlay_on_the_root(self):
        p = self.shell("mkdir -p /l/d /u /w /m; echo 1 > /l/d/f; echo 2 > /l/g;"
                       " mount -t overlay overlay -o lowerdir=/l,upperdir=/u,workdir=/w /m &&"
                       " rm /m/g && rm -r /m/d && mkdir /m/d && ls /m/d; ls -l /u/g | cut -c1; ls /m;"
                       " umount /m; mount -t overlay o -o lowerdir=/u:/l,upperdir=/w/u,workdir=/w/w /m;"
                       " ls /m", admin)
        self.assertEqual(p.stdout.split()[:2], ["c", "d"])


@unittest.skipUnless(IS_OURS, "how the gofer serves")
class Host(Case):
    def test_more_files_than_descriptors(self):
        many = self.rootfs / "many"
        for d in range(20):
            (many / str(d)).mkdir(parents=True, exist_ok=True)
            for f in range(100):
                (many / str(d) / str(f)).touch()

        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
        p = self.shell("ls -lR /many | grep -c rw; find /many -type f -size 0 | wc -l",
                       preexec_fn=limit)
        self.assertEqual((p.stdout.split()[-1], p.stderr), ("2000", ""))

    def cut_short(self, data, *args):
        """data is mapped by a guest when it becomes shorter."""
        shared = self.dir / "shared"
        shared.mkdir(exist_ok=True)
        data.write_bytes(b"x" * 65536)
        program = self.rootfs / "bin/mapper"
        subprocess.run(["cc", "-O1", "-static", "-x", "c", "-", "-o", str(program)], input=MAPPER,
                       text=True, check=True)
        self.write(["/bin/mapper", *args], lambda c: c["mounts"].append(bind(shared)))
        p = self.popen("run", "--bundle", str(self.bundle), self.new_id())
        eventually((shared / "mapped").exists, what="the mapping")
        os.truncate(data, 4096)
        (shared / "go").touch()
        self.assertEqual(p.wait(180), 0)

    def test_a_mapped_file_is_cut_short(self):
        (self.dir / "shared").mkdir()
        data = self.dir / "shared/data"
        self.cut_short(data)
        self.assertEqual(data.read_bytes()[10:11], b"A")

    def test_a_mapped_file_of_the_image_is_cut_short(self):
        """Which nobody was to change."""
        self.cut_short(self.rootfs / "data", "/data")

    def test_synced_data_is_on_the_host(self):
        """Whatever becomes of the sandbox."""
        shared = self.dir / "shared"
        shared.mkdir()
        self.write(["/bin/sh", "-c", "for i in 1 2 3; do echo kept > /m/$i; sync /m/$i; done; mkdir /m/d && mv /m/3 /m/d;"
                    " echo -n said > /m/d/4; echo synced; exec sleep 1000"], lambda c: c["mounts"].append(bind(shared)))
        p = self.popen("run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual(p.stdout.readline(), "synced\n")
        pids = [p.pid, *children_of(p.pid)]
        for pid in pids:
            kill9(pid)
        eventually(lambda: not any(alive(pid) for pid in pids[1:]), what="the end of all of it")
        self.assertEqual({str(f.relative_to(shared)): f.read_text() for f in shared.rglob("*") if f.is_file()},
                         {"1": "kept\n", "2": "kept\n", "d/3": "kept\n", "d/4": "said"})


@unittest.skipUnless(BUILD, "BUILD_DIR has no conformance programs")
class Programs(Case):
    """Programs of the conformance suite, on file systems that it does not have."""
    def program(self, name, *args, place, words=(), around=(), timeout=TIMEOUT):
        """name --helper args in place, where /m is a folder of the host; words are for the runtime, which
        runs inside around."""
        shutil.copy(pathlib.Path(BUILD) / "tests/conformance" / name, self.rootfs / "bin" / name)
        (self.dir / "shared").mkdir()

        def change(config):
            config["process"]["cwd"] = place
            config["mounts"].append(bind(self.dir / "shared"))
        self.write([f"/bin/{name}", "--helper", *args], change)
        run = self.runtime(*words, "run", "--bundle", str(self.bundle), self.new_id())
        p = subprocess.run([*around, *run], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=timeout)
        self.assertEqual(p.returncode, 0, p.stdout)

    def fsx(self, place):
        self.program("conf_fsx", "fsx", str(FSX_SECONDS), place=place, timeout=FSX_SECONDS + TIMEOUT)

    def test_random_io_on_tmpfs(self):
        self.fsx("/tmp")

    def test_random_io_on_the_root(self):
        self.fsx("/root")

    def test_random_io_on_a_folder_of_the_host(self):
        self.fsx("/m")

    def test_a_full_disk_of_the_host(self):
        mount = f"mount -t tmpfs -o size=1m,nr_inodes=20 small {self.dir}/shared; exec \"$@\""
        self.program("conf_full", "full", "names", place="/m", around=("unshare", "--mount", "sh", "-ec", mount, "sh"))

    @unittest.skipUnless(IS_OURS, "a tmpfs is half of the container's limit")
    def test_a_full_tmpfs(self):
        p = self.shell("dd if=/dev/zero of=/tmp/big bs=1M count=100 2>&1 | grep -o 'No space.*'; rm /tmp/big;"
                       " dd if=/dev/zero of=/tmp/big bs=1M count=20 2>/dev/null && stat -c %s /tmp/big",
                       lambda c: c["linux"].update(resources={"memory": {"limit": 64 << 20}}))
        self.assertEqual((p.stdout.splitlines(), p.returncode), (["No space left on device", str(20 << 20)], 0))

    @unittest.skipUnless(IS_OURS, "an overlay of its own")
    def test_a_full_root(self):
        self.program("conf_full", "full", place="/root", words=("--overlay=root:memory,size=1m",))


class Streams(Case):
    def test_standard_streams_by_name(self):
        """Programs log to /dev/stdout and /dev/stderr, as root and as others."""
        def user(c):
            c["process"]["user"] = {"uid": 1000, "gid": 1000}
            c["process"]["capabilities"] = {}
        script = "echo out > /dev/stdout; echo err > /dev/stderr; echo again >> /proc/self/fd/1; cat /dev/stdin"
        for change in (None, user):
            p = self.shell(script, change)
            self.assertEqual((p.stdout, p.stderr), ("out\nagain\n", "err\n"))
            self.assertEqual(self.shell("ls /proc/self/fd | head -3", change).stdout, "0\n1\n2\n")

    def test_standard_streams_are_files(self):
        out = self.dir / "out"
        with out.open("a") as f:
            self.write(["/bin/sh", "-c", "echo first; echo second >> /dev/stdout; stat -Lc %F /dev/stdout"])
            p = self.call_quiet("run", "--bundle", str(self.bundle), self.new_id(), stdout=f)
        self.assertEqual((p.returncode, out.read_text()), (0, "first\nsecond\nregular file\n"))


def groups(config):
    """Limits, and the place where a container sees them."""
    config["mounts"].append({"destination": "/sys", "type": "sysfs", "source": "sysfs"})
    config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                             "options": ["nosuid", "noexec", "nodev"]})
    config["linux"]["namespaces"].append({"type": "cgroup"})
    config["linux"]["resources"] = {"memory": {"limit": 256 << 20}, "pids": {"limit": 500},
                                    "cpu": {"quota": 150000, "period": 100000}}


# Executes itself so many times from a thread that is not the first.
LEAD = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char *name, left[16];

static void *lead(void *arg)
{
    execlp(name, name, left, NULL);
    exit(3);
}

int main(int argc, char **argv)
{
    pthread_t t;
    int n = argc == 2 ? atoi(argv[1]) : 0;

    name = argv[0];
    snprintf(left, sizeof(left), "%d", n - 1);
    if (n == 0)
        return execl("/bin/cat", "cat", "/sys/fs/cgroup/pids.current", NULL);
    if (pthread_create(&t, NULL, lead, NULL) != 0)
        return 2;
    for (;;)
        pause();
}
"""


@unittest.skipUnless(IS_OURS, "version 2, whatever the host has")
class Groups(Case):
    def test_a_leader_that_vanished_does_not_count(self):
        program = self.rootfs / "bin/lead"
        subprocess.run(["cc", "-O1", "-static", "-pthread", "-x", "c", "-", "-o", str(program)], input=LEAD, check=True,
                       text=True)

        def few(config):
            groups(config)
            config["linux"]["resources"]["pids"]["limit"] = 10
        p = self.shell("exec lead 50", few)
        self.assertEqual((p.returncode, p.stdout), (0, "1\n"), p.stderr)

    def test_a_container_sees_its_own_limits(self):
        p = self.shell("cd /sys/fs/cgroup && cat memory.max pids.max cpu.max cgroup.controllers;"
                       " cat /proc/self/cgroup; grep -c . cgroup.procs; test $(cat memory.current) -gt 100000 && echo used;"
                       " echo 7 > pids.max || echo refused; cat pids.max", groups)
        self.assertEqual(p.stdout.splitlines(),
                         [str(256 << 20), "500", "150000 100000", "cpu memory pids", "0::/", "2", "used",
                          "refused", "500"])

    def test_limits_of_groups_inside(self):
        p = self.shell("cd /sys/fs/cgroup && mkdir a b && for p in $(cat cgroup.procs); do"
                       " echo $p > a/cgroup.procs; done; echo '+memory +pids' > cgroup.subtree_control;"
                       " echo 24M > b/memory.max; cat b/memory.max;"
                       " sh -c 'echo $$ > b/cgroup.procs; exec tail -c 100000000 /dev/zero > /dev/null';"
                       " echo $?; grep oom_kill b/memory.events; echo 3 > b/pids.max;"
                       " sh -c 'echo $$ > b/cgroup.procs; cat /proc/self/cgroup; for i in 1 2 3 4; do"
                       " sleep 1 & done' 2>&1 | grep -c fork; cat b/pids.events", groups)
        out = p.stdout.splitlines()
        self.assertEqual(out[:4], [str(24 << 20), "137", "oom_kill 1", "1"])
        self.assertRegex(out[4], "max [1-9]")


if __name__ == "__main__":
    main()
