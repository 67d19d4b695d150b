#!/usr/bin/env python3
"""On another host: a virtual machine with a kernel of Debian's, whose controllers are all in version 2 of the
control groups, as systemd mounts it. The tests are those of this folder, some of them: vm_suite.py runs all. BUILD_DIR
is the build folder, where the kernel is kept."""
import os
import pathlib
import shutil
import tempfile
import unittest

import vm
from harness import IS_OURS, RUNTIME, main

HERE = pathlib.Path(__file__).resolve().parent
TESTS = ("cgroup_test.AsItIs.test_everything_lives_there", "limits_test.Limits.test_cpu_quota",
         "limits_test.Limits.test_memory", "limits_test.Limits.test_pause", "limits_test.Unified.test_files",
         "limits_test.Delegated.test_limits")


@unittest.skipUnless(IS_OURS and os.environ.get("BUILD_DIR"), "needs runsc and the build folder")
@unittest.skipUnless(shutil.which("qemu-system-x86_64"), "needs the package qemu-system-x86")
class OtherHost(unittest.TestCase):
    def test_unified(self):
        kernel = vm.kernel(pathlib.Path(os.environ["BUILD_DIR"]) / "vm")
        with tempfile.TemporaryDirectory(prefix="vm-test-") as folder:
            image = pathlib.Path(folder) / "image"
            vm.tests_image(image, RUNTIME[0], HERE, TESTS)
            text, result = vm.run_tests(kernel, image, folder, "unified", TESTS, " ".join(RUNTIME[1:]))
        self.assertIsNotNone(result, text)
        self.assertEqual((result["ran"], result["bad"], result["skipped"]), (len(TESTS), [], []), text)


if __name__ == "__main__":
    main()
