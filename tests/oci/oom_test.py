#!/usr/bin/env python3
"""Programs that fill a container's memory, each by another means and all at once, on each platform: whoever has
most is ended by the sandbox, before the host has a reason to end anything."""
import json
import os
import subprocess
import unittest

from harness import IS_OURS, RUNTIME, Case, is_static, main
from layout import HAS_V1, HAS_V2
from limits_test import Counters

# Most of it is a little touched at first, so that the sandbox gives it out, and filled after that.
FILL = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#define NEAR 4096ul
#define FAR (2ul << 20)
#define PIECE (1ul << 20)
#define CHILDREN 8ul

static size_t size, file_size;

static void *map(size_t bytes, int flags)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    if (p == MAP_FAILED)
        _exit(3);
    return p;
}

static void touch(volatile char *p, size_t bytes, size_t step)
{
    for (size_t i = 0; i < bytes; i += step)
        p[i] = 1;
}

static void late(char *p, size_t bytes)
{
    touch(p, bytes, FAR);
    touch(p, bytes, FAR / 16);
    touch(p, bytes, NEAR);
}

static void fill_private(void)
{
    late(map(size, MAP_PRIVATE), size);
}

static void fill_shared(void)
{
    late(map(size, MAP_SHARED), size);
}

static void fill_heap(void)
{
    char *p = sbrk((intptr_t)size);
    if (p == (void *)-1)
        _exit(3);
    late(p, size);
}

static void fill_pieces(void)
{
    const size_t n = size / PIECE;
    char **p = map(n * sizeof(*p), MAP_PRIVATE);
    for (size_t i = 0; i < n; i++) {
        p[i] = map(PIECE, MAP_PRIVATE);
        touch(p[i], PIECE, PIECE);
    }
    for (size_t i = 0; i < n; i++)
        touch(p[i], PIECE, NEAR);
}

/* No more than the file system has. */
static void fill_file(void)
{
    const int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)file_size) != 0)
        _exit(3);
    char *p = mmap(NULL, file_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        _exit(3);
    late(p, file_size);
}

static void fill_copies(void)
{
    const size_t part = size / CHILDREN;
    const pid_t parent = getpid();
    char *p = map(part, MAP_PRIVATE);
    touch(p, part, FAR);
    for (size_t i = 0; i < CHILDREN; i++) {
        const pid_t pid = fork();
        if (pid < 0)
            _exit(3);
        if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent))
            _exit(3);
        if (pid == 0)
            break;
    }
    touch(p, part, NEAR);
    for (;;)
        pause();
}

static void fill_apart(void)
{
    touch(map(64ul << 30, MAP_PRIVATE), 64ul << 30, FAR);
}

static const struct {
    const char *name;
    void (*fill)(void);
} means[] = {
    {"private", fill_private}, {"shared", fill_shared}, {"heap", fill_heap},   {"pieces", fill_pieces},
    {"file", fill_file},       {"copies", fill_copies}, {"apart", fill_apart},
};
#define MEANS (sizeof(means) / sizeof(means[0]))

static int all_at_once(void)
{
    pid_t pids[MEANS];
    int status;

    for (size_t i = 0; i < MEANS; i++) {
        pids[i] = fork();
        if (pids[i] < 0)
            return 1;
        if (pids[i] == 0) {
            means[i].fill();
            _exit(0);
        }
    }
    for (size_t left = MEANS; left > 0; left--) {
        const pid_t pid = wait(&status);
        for (size_t i = 0; i < MEANS; i++)
            if (pids[i] == pid)
                printf("%s %d\n", means[i].name,
                       WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    }
    return fflush(stdout);
}

/* What is between the pages of a file is not there, and does not come by looking at it. */
static int read_holes(size_t pages, size_t step)
{
    static char buf[1 << 20];
    const int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    ssize_t n;

    for (size_t i = 0; i < pages; i++)
        if (pwrite(fd, "x", 1, (off_t)(i * step)) != 1 ||
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(i * step + step / 2), 100) != 0)
            return 3;
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        ;
    return n == 0 ? 0 : 4;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const size_t limit = strtoul(argv[1], NULL, 0);
    if (atoi(argv[2]) == 0)
        return read_holes(limit / 4 / NEAR, 64 * NEAR);
    int rounds = atoi(argv[2]);

    size = 4 * limit;
    file_size = limit / 3;
    while (rounds-- > 0)
        if (all_at_once() != 0)
            return 1;
    return 0;
}
"""
MEANS = {"private", "shared", "heap", "pieces", "copies", "apart"}


class Fill(Counters):
    platform = None

    def setUp(self):
        super().setUp()
        if "memory" not in self.controllers():
            self.skipTest("no memory controller here")
        if self.platform == "kvm" and not os.path.exists("/dev/kvm"):
            self.skipTest("no /dev/kvm here")

    def runtime(self, *args):
        return super().runtime("--platform", self.platform, *args)

    def fill(self, mebibytes, rounds):
        """How the fillers ended, by what they fill; the sandbox goes on."""
        program = self.rootfs / "bin/fill"
        if not program.exists():
            subprocess.run(["cc", "-O1", "-static", "-x", "c", "-", "-o", str(program)], input=FILL, check=True,
                           text=True)
        limit = mebibytes << 20
        def change(c):
            c["linux"].update(cgroupsPath=self.path, resources={"memory": {"limit": limit}})
            c["mounts"] += [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]
        self.write(["/bin/sh", "-c", f"mkfifo /tmp/never; fill {limit} {rounds}; status=$?;"
                    " grep '^oom_kill ' /sys/fs/cgroup/memory.events; echo end $status;"
                    " until read line < /tmp/never; do :; done 2>/dev/null"], change)
        cid = self.new_id()
        p = self.popen("run", "--bundle", str(self.bundle), cid)
        ends, line = {}, ""
        for line in p.stdout:
            name, status = line.split()
            if name == "end":
                break
            ends.setdefault(name, []).append(int(status))
        self.assertEqual(line, "end 0\n", "who is small goes on")
        killed = [self.stat(name, "oom_kill") for name in ("memory.events", "memory.oom_control")]
        self.assertLessEqual(set(killed), {0, None}, "the host had to choose")
        self.assertEqual(self.state(cid)["status"], "running")
        return ends

    def all_end(self, mebibytes, rounds):
        ends = self.fill(mebibytes, rounds)
        self.assertGreaterEqual(ends.pop("oom_kill")[0], rounds * len(MEANS))
        # What a file system keeps is its own; who fills it may be the biggest all the same.
        self.assertLessEqual(set(ends.pop("file")), {0, 137})
        self.assertEqual(ends, {name: [137] * rounds for name in MEANS})

    def test_64_mib(self):
        self.all_end(64, 2)

    def test_256_mib(self):
        self.all_end(256, 1)

    def test_holes_of_a_file(self):
        self.assertEqual(self.fill(64, 0), {"oom_kill": [0]})


# Touches a MiB, says so, and after a line touches many.
GROW = r"""
#include <stdio.h>
#include <stdlib.h>

static void touch(volatile char *p, size_t size)
{
    for (size_t i = 0; i < size; i += 4096)
        p[i] = 1;
}

int main(int argc, char **argv)
{
    char line[8];
    size_t size = argc == 2 ? strtoul(argv[1], NULL, 0) : 0;
    char *p = malloc(size);

    if (p == NULL)
        return 2;
    touch(p, 1 << 20);
    puts("small");
    if (fflush(stdout) != 0 || fgets(line, sizeof(line), stdin) == NULL)
        return 3;
    touch(p, size);
    puts("big");
    return 0;
}
"""


class EndedByHost(Counters):
    """The host may have less memory than the container was promised. Whom it ends is a process of the container,
    and it is told as such; the others go on."""
    platform = None

    def setUp(self):
        super().setUp()
        if "memory" not in self.controllers():
            self.skipTest("no memory controller here")

    def runtime(self, *args):
        return super().runtime("--platform", self.platform, *args)

    def shrink(self):
        """The host takes back what it has promised, but for four MiB."""
        used = self.file("memory.usage_in_bytes") or self.file("memory.current")
        limit = int(used) + (4 << 20)
        self.look("for d in " + " ".join(self.dirs()) + "; do for f in memory.limit_in_bytes memory.max; do "
                  f"[ ! -e $d/$f ] || echo {limit} > $d/$f; done; done")

    def test_event(self):
        program = self.rootfs / "bin/grow"
        subprocess.run(["cc", "-O1", "-static", "-x", "c", "-", "-o", str(program)], input=GROW, check=True, text=True)
        def change(c):
            c["linux"].update(cgroupsPath=self.path, resources={"memory": {"limit": 256 << 20}})
            c["mounts"] += [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]
        self.write(["/bin/sh", "-c", f"grow {128 << 20}; echo end $?; read line; exec grep '^oom_kill '"
                    " /sys/fs/cgroup/memory.events"], change)
        cid = self.new_id()
        p = self.popen("run", "--bundle", str(self.bundle), cid, stdin=subprocess.PIPE)
        self.assertEqual(p.stdout.readline(), "small\n")
        events = self.popen("events", "--interval", "60m", cid)
        self.assertEqual(json.loads(events.stdout.readline())["type"], "stats")
        self.shrink()
        p.stdin.write("go\n")
        p.stdin.flush()
        self.assertEqual(p.stdout.readline(), "end 137\n")
        self.assertEqual(json.loads(events.stdout.readline()), {"type": "oom", "id": cid})
        p.stdin.write("go\n")
        p.stdin.flush()
        self.assertEqual(p.stdout.read(), "oom_kill 1\n")
        self.assertEqual(p.wait(120), 0)


FITS = IS_OURS and is_static(RUNTIME[0]) and os.geteuid() == 0 and (HAS_V1 or HAS_V2)


@unittest.skipUnless(FITS, "makes cgroups, and counts the sandbox's heap")
class Systrap(Fill, Case):
    platform = "systrap"


@unittest.skipUnless(FITS, "makes cgroups, and counts the sandbox's heap")
class Ptrace(Fill, Case):
    platform = "ptrace"


@unittest.skipUnless(FITS, "makes cgroups, and counts the sandbox's heap")
class Kvm(Fill, Case):
    platform = "kvm"


@unittest.skipUnless(FITS, "makes cgroups, and ends guest processes one by one")
class SystrapEndedByHost(EndedByHost, Case):
    platform = "systrap"


@unittest.skipUnless(FITS, "makes cgroups, and ends guest processes one by one")
class PtraceEndedByHost(EndedByHost, Case):
    platform = "ptrace"


if __name__ == "__main__":
    main()
