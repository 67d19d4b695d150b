#!/usr/bin/env python3
"""stress-ng by whole classes, one stressor of each kind at once: nothing aborts, nothing gets stuck.

    DEBIAN_ROOT=<made by tools/make_rootfs> RUNTIME="build/release/runsc/runsc --platform ptrace" \\
        tests/oci/stress_test.py [seconds of each class] [class...]

With a debug build of runsc every object that is left when a sandbox ends is an abort, which fails the
test as any other end of the sandbox does that is not its program's."""
import json
import os
import re
import sys
import unittest

from harness import Case, default_config, main

DEBIAN_ROOT = os.environ.get("DEBIAN_ROOT", "")
CLASSES = ("cpu", "vm", "scheduler", "interrupt", "pipe", "filesystem", "io")
# By hand, with a time: within seconds not each of their many stressors has its turn.
LARGE = ("memory", "os")
SECONDS = 5
# They want capabilities, devices or file handles that a container has not: so they fail with runc too.
EXCLUDE = ("binderfs", "handle", "icmp-flood", "loop", "ramfs", "rawpkt", "rawsock", "rawudp", "reboot")
# What is no fault either: a temporary folder that others have filled, a file that another stressor took
# away, the counters of a stressor that had to be killed at the end, one that had no turn among forty on a busy machine.
EXCUSED = re.compile("No space left on device|IORING_OP_STATX|corrupted bogo-ops|hash error|metrics-check|"
                     "vm-segv: no SIGSEGV signals detected")
# What they take together is to fit: some hold for wrong data what a full /tmp, half of the limit, had no room for.
SIZES = tuple(w for kind in ("vm", "fallocate", "hdd", "iomix", "readahead", "sync-file")
              for w in (f"--{kind}-bytes", "64m"))
# Stressors end when they notice, one after the other.
PATIENCE = 240
# What stress-ng itself ends with when some kinds could not run here, or failed in what is excused, or their
# counters were lost.
STATUS_OK = (0, 2, 3, 4, 5)


@unittest.skipUnless(DEBIAN_ROOT, "DEBIAN_ROOT is not set")
class Stress(Case):
    def run_stress(self, *args, timeout=PATIENCE):
        """How it ended, what it said, and which lines of that say that something failed."""
        config = default_config(["stress-ng", *args, "--temp-path", "/tmp", "--oomable", "--verify"])
        config["root"] = {"path": DEBIAN_ROOT, "readonly": True}
        config["mounts"] += [{"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
                             {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                              "options": ["ro"]}]
        # Some grow till they are stopped, past the limit: who has most ends, and stress-ng begins it anew.
        config["linux"]["resources"] = {"memory": {"limit": 2 << 30}}
        (self.bundle / "config.json").write_text(json.dumps(config))
        p = self.call("run", "--bundle", str(self.bundle), self.new_id(), timeout=timeout)
        text = p.stdout + p.stderr
        return p.returncode, text, [l for l in text.splitlines() if " fail: " in l]

    def stress(self, kind):
        status, text, failed = self.run_stress("--class", kind, "--all", "1", "-t", str(SECONDS), *SIZES,
                                               "--exclude", ",".join(EXCLUDE), timeout=SECONDS + PATIENCE)
        self.assertEqual([l for l in failed if not EXCUSED.search(l)], [], text[-3000:])
        self.assertIn(status, STATUS_OK, text[-3000:])
        self.assertRegex(text, r"run completed")

    def test_segv(self):
        """Excused above when it had no turn: here it has nobody beside it, and ends when it was right so often."""
        status, text, failed = self.run_stress("--vm-segv", "1", "--vm-segv-ops", "20", "-t", str(PATIENCE // 2))
        self.assertEqual((status, failed), (0, []), text[-3000:])


for name in CLASSES + (LARGE if len(sys.argv) > 1 and sys.argv[1].isdigit() else ()):
    setattr(Stress, f"test_{name}", lambda self, kind=name: self.stress(kind))


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].isdigit():
        SECONDS = int(sys.argv.pop(1))
        sys.argv[1:] = [a if a.startswith("-") or "." in a else f"Stress.test_{a}" for a in sys.argv[1:]]
    main()
