#!/usr/bin/env python3
"""A container's memory limit: what goes beyond it ends, everything else goes on."""
import json
import subprocess
import unittest

from harness import IS_OURS, RUNTIME, Case, is_static, main

LIMIT = 64 << 20

# A guest that touches next to no memory and makes its kernel remember things without an end.
REMEMBER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static char bytes[8192];
static struct sock_filter insns[4000];

static int one(const char *what)
{
    int p[2];

    if (strcmp(what, "descriptors") == 0)
        return eventfd(0, 0) < 0;
    if (strcmp(what, "pipes") == 0) {
        if (pipe2(p, O_NONBLOCK) != 0)
            return 1;
        while (write(p[1], bytes, sizeof(bytes)) > 0)
            ;
        return 0;
    }
    if (strcmp(what, "messages") == 0) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p) != 0)
            return 1;
        while (write(p[1], bytes, sizeof(bytes)) > 0)
            ;
        return 0;
    }
    if (strcmp(what, "filters") == 0) {
        struct sock_fprog prog = {4000, insns};
        p[0] = socket(AF_UNIX, SOCK_DGRAM, 0);
        return p[0] < 0 || setsockopt(p[0], SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) != 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    for (int i = 0; i < 4000; i++)
        insns[i] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, -1);
    for (;;)
        if (one(argv[argc - 1]) != 0) {
            perror(argv[argc - 1]);
            return 1;
        }
}
"""


def limited(config):
    config["linux"]["resources"] = {"memory": {"limit": LIMIT}}


def hog(bits):
    """A program that fills 2**bits bytes, more or less."""
    return f"awk 'BEGIN{{s=\"x\"; for(i=0;i<{bits};i++) s=s s}}'"


@unittest.skipUnless(IS_OURS, "the host's kernel picks its victim in its own way")
class Memory(Case):
    def test_a_program_ends_and_the_sandbox_goes_on(self):
        p = self.shell(f"for i in 1 2 3; do {hog(28)}; echo $?; {hog(20)}; echo $?; done", limited)
        self.assertEqual((p.returncode, p.stdout.split()), (0, ["137", "0"] * 3))

    def test_what_a_call_would_fill_counts_too(self):
        # dd reads into one buffer of bs bytes.
        p = self.shell("dd if=/dev/zero of=/dev/null bs=200M count=1 2>&1 | grep -c '^20971520[0-9] ';"
                       f" {hog(20)}; echo $?", limited)
        self.assertEqual(p.stdout.split(), ["0", "0"])

    # dd fills a buffer and then waits for a reader that reads no more.
    BIG = ("(dd if=/dev/zero bs=36M count=1 2>/dev/null; echo big $? >&2) | (head -c 1 >/dev/null; : > /tmp/full;"
           " until [ -e /tmp/over ]; do sleep 0.1; done) & until [ -e /tmp/full ]; do sleep 0.1; done;")
    OVER = " : > /tmp/over; wait"

    def test_the_biggest_ends(self):
        p = self.shell(f"{self.BIG} {hog(24)}; echo small $? >&2;{self.OVER}", limited)
        self.assertLessEqual({"big 137", "small 0"}, set(p.stderr.split("\n")))

    def test_score_decides(self):
        small = f"sh -c 'echo 1000 > /proc/self/oom_score_adj; exec \"$0\" \"$@\"' {hog(24)}"
        p = self.shell(f"{self.BIG} {small}; echo small $? >&2;{self.OVER}", limited)
        # dd's reader goes in the end.
        self.assertLessEqual({"big 141", "small 137"}, set(p.stderr.split("\n")))

    def test_init_ends_with_137(self):
        p = self.run_guest(["awk", "BEGIN{s=\"x\"; for(i=0;i<30;i++) s=s s}"], limited)
        self.assertEqual(p.returncode, 137)

    # ---- overcommit ----

    @staticmethod
    def overcommit(mode, **more):
        def change(config):
            limited(config)
            config["linux"]["sysctl"] = {"vm.overcommit_memory": str(mode),
                                         **{f"vm.{k}": str(v) for k, v in more.items()}}
        return change

    # dd maps one buffer, private and writable, and fills none of it before it reads.
    ASK = "dd if=/dev/zero of=/dev/null bs={} count=0 2>/dev/null; echo $?;"
    SHOW = "awk '/^Commit/ {print $2}' /proc/meminfo;"

    def test_never_promises_more_than_the_limit(self):
        p = self.shell(self.SHOW + self.ASK.format("20M") + self.ASK.format("40M"),
                       self.overcommit(2, overcommit_ratio=50))
        limit, used, small, big = p.stdout.split()
        self.assertAlmostEqual(int(limit), LIMIT // 2048, delta=128)
        self.assertLess(int(used), int(limit))
        self.assertEqual(small, "0", p.stderr)
        self.assertNotEqual(big, "0")

    def test_kbytes_take_the_place_of_the_ratio(self):
        p = self.shell("cat /proc/sys/vm/overcommit_ratio;" + self.SHOW + self.ASK.format("64M"),
                       self.overcommit(2, overcommit_kbytes=200000))
        self.assertEqual(p.stdout.split()[:2], ["0", "200000"])
        self.assertEqual(p.stdout.split()[-1], "0", p.stderr)

    def test_all_is_promised(self):
        for mode in 0, 1:
            p = self.shell(self.ASK.format("100M"), self.overcommit(mode))
            self.assertEqual(p.stdout, "0\n", p.stderr)

    def test_what_is_promised_is_counted(self):
        p = self.shell("more() { echo $(($(awk '/^Committed/ {print $2}' /proc/meminfo) - before)); }; before=0;"
                       " before=$(more); dd if=/dev/zero of=/dev/null bs=30M 2>/dev/null &"
                       " until [ $(more) -gt $((30 << 10)) ]; do :; done; kill $!; wait $!; more", limited)
        self.assertLess(int(p.stdout), 4 << 10, p.stderr)

    def test_the_limit_is_what_is_seen(self):
        p = self.shell("awk '/^MemTotal/ {print $2}' /proc/meminfo; free -k | awk '/^Mem/ {print $2}'",
                       limited)
        self.assertEqual([int(w) for w in p.stdout.split()], [LIMIT >> 10] * 2)

    def test_settings_are_for_administrators(self):
        p = self.shell("echo 1 > /proc/sys/vm/overcommit_memory; cat /proc/sys/vm/overcommit_memory")
        self.assertEqual(p.stdout, "0\n")

    def test_events(self):
        """Each end is told at once, and counted."""
        self.write(["/bin/sh", "-c", f"for i in 1 2; do {hog(28)}; done 2>/dev/null; sleep 1000"], limited)
        cid = self.new_id()
        self.assertEqual(self.call_quiet("create", "--bundle", str(self.bundle), cid).returncode, 0)
        p = self.popen("events", "--interval", "60m", cid)
        self.assertEqual(json.loads(p.stdout.readline())["type"], "stats")
        self.assertEqual(self.call("start", cid).returncode, 0)
        for _ in range(2):
            self.assertEqual(json.loads(p.stdout.readline()), {"type": "oom", "id": cid})
        self.assertEqual(self.call("kill", cid, "KILL").returncode, 0)
        self.assertEqual(p.wait(120), 0, "it ends with the container")

    def test_without_a_limit(self):
        p = self.shell(f"{hog(28)}; echo $?")
        self.assertEqual(p.stdout, "0\n")


@unittest.skipUnless(IS_OURS and is_static(RUNTIME[0]), "the host's kernel picks its victim in its own way")
class Remembered(Case):
    """What the sandbox remembers for a guest counts as the guest's: who has it remember too much
    ends, and neither the sandbox nor the others do."""

    def remember(self, what):
        def change(config):
            limited(config)
            config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 20, "hard": 1 << 20}]
            for names in config["process"]["capabilities"].values():
                names += ["CAP_SYS_RESOURCE"]

        program = self.rootfs / "bin/remember"
        if not program.exists():
            subprocess.run(["cc", "-O1", "-static", "-x", "c", "-", "-o", str(program)],
                           input=REMEMBER, check=True, text=True)
        p = self.shell(f"for i in 1 2; do remember {what} 2>/dev/null; echo $?; {hog(20)}; echo $?; done",
                       change)
        self.assertEqual((p.returncode, p.stdout.split()), (0, ["137", "0"] * 2), p.stderr[-500:])

    def test_descriptors(self):
        self.remember("descriptors")

    def test_pipes(self):
        self.remember("pipes")

    def test_messages(self):
        self.remember("messages")

    def test_filters(self):
        self.remember("filters")

    def test_names_of_files_are_given_back(self):
        """Names that were seen take what is free, and nobody ends for them."""
        for d in range(40):
            folder = self.rootfs / "tree" / f"{d:0200}"
            folder.mkdir(parents=True)
            for f in range(750):
                (folder / f"{f:0200}").touch()
        p = self.shell("find /tree -type f | wc -l; awk 'BEGIN {for (i = 0; i < 44; i++)"
                       " a[i] = sprintf(\"%1000000s\", \"\"); print length(a)}'; echo $?", limited)
        self.assertEqual((p.returncode, p.stdout.split()), (0, ["30000", "44", "0"]), p.stderr[-500:])


if __name__ == "__main__":
    main()
