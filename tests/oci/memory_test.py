#!/usr/bin/env python3
"""A container's memory limit: what goes beyond it ends, everything else goes on."""
import unittest

from harness import IS_OURS, Case, main

LIMIT = 64 << 20


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

    # dd fills a buffer and then waits for a reader that never reads.
    BIG = "(dd if=/dev/zero bs=36M count=1 2>/dev/null; echo big $? >&2) | sleep 5 & sleep 1;"

    def test_the_biggest_ends(self):
        p = self.shell(f"{self.BIG} {hog(24)}; echo small $? >&2; wait", limited)
        self.assertLessEqual({"big 137", "small 0"}, set(p.stderr.split("\n")))

    def test_score_decides(self):
        small = f"sh -c 'echo 1000 > /proc/self/oom_score_adj; exec \"$0\" \"$@\"' {hog(24)}"
        p = self.shell(f"{self.BIG} {small}; echo small $? >&2; wait", limited)
        # dd's reader goes in the end.
        self.assertLessEqual({"big 141", "small 137"}, set(p.stderr.split("\n")))

    def test_init_ends_with_137(self):
        p = self.run_guest(["awk", "BEGIN{s=\"x\"; for(i=0;i<30;i++) s=s s}"], limited)
        self.assertEqual(p.returncode, 137)

    def test_without_a_limit(self):
        p = self.shell(f"{hog(28)}; echo $?")
        self.assertEqual(p.stdout, "0\n")


if __name__ == "__main__":
    main()
