#!/usr/bin/env python3
"""All tests of control groups on another host, a virtual machine, in two layouts; or the conformance suite there:
RUNTIME=build/release/runsc/runsc vm_suite.py --build build/release [--conformance FAMILIES|all]."""
import argparse
import os
import pathlib
import sys
import tempfile

import vm
from harness import RUNTIME

HERE = pathlib.Path(__file__).resolve().parent
# The tests of each layout, and those that cannot be there: version 1 alone has neither CPU time nor processes.
SUITES = {
    "unified": (["cgroup_test.AsItIs", "cgroup_test.NotAllowed", "limits_test", "rootless_test"], set()),
    "mixed": (["cgroup_test", "limits_test.Limits"],
              {"cgroup_test.V1.test_processes_bite", "cgroup_test.V1.test_time_bites"}),
}
CONFORMANCE = """mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd /tests && exec python3 -B run --jobs 2 --timeout 300 --build /tests/programs \\
    --runtime "/usr/bin/runsc $platform" $families
"""


def groups(kernel, folder):
    image = pathlib.Path(folder) / "image"
    vm.tests_image(image, RUNTIME[0], HERE, [t for tests, _ in SUITES.values() for t in tests])
    ok = True
    for layout, (tests, skipped) in SUITES.items():
        text, result = vm.run_tests(kernel, image, folder, layout, tests, " ".join(RUNTIME[1:]))
        print(f"{layout}:\n{text}", flush=True)
        ok &= result is not None and not result["bad"] and {name for name, _ in result["skipped"]} == skipped
    return ok


def conformance(kernel, folder, build, families):
    image_path = pathlib.Path(folder) / "image"
    suite = HERE.parent / "conformance"
    image = vm.base_image(image_path, RUNTIME[0], suite, ["run"])
    for program in (build / "tests/conformance").glob("conf_*"):
        if os.access(program, os.X_OK):
            image.copy(program, f"/tests/programs/{program.name}")
    image.copy(suite / "run", "/tests/run")
    image.text("program", CONFORMANCE)
    image.close()
    chosen = "" if families == "all" else f"families=--families={families}"
    text, code, console = vm.boot(kernel, image_path, folder, f'"platform={" ".join(RUNTIME[1:])}" {chosen}',
                                  memory=2048, timeout=7200)
    print(text if code is not None else f"{text}\n{console}")
    return code == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--conformance", metavar="FAMILIES")
    args = parser.parse_args()
    kernel = vm.kernel(args.build / "vm")
    with tempfile.TemporaryDirectory(prefix="vm-suite-") as folder:
        if args.conformance:
            return conformance(kernel, folder, args.build, args.conformance)
        return groups(kernel, folder)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
