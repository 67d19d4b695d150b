#!/usr/bin/env python3
"""Python's own tests, whole, each module in a sandbox of its own.

    DEBIAN_ROOT=<made by tools/make_rootfs> RUNTIME=build/release/runsc/runsc tests/oci/python_suite.py

RUNTIME=runc gives the oracle: the same config.json on the host's kernel, with a copy of the root, since
it is written to there (a sandbox keeps what is written in memory). What fails and is
not our fault stands in python_known.txt, one a line: module, test (or * for the module as a whole),
reason. The exit status is that of the comparison with this list; --json keeps all results.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from harness import RUNTIME, default_config

KNOWN = pathlib.Path(__file__).with_name("python_known.txt")
FAILED = re.compile(r"^(?:ERROR|FAIL): (\w+) \(test\.(?:\w+\.)*?(\w+)\.\1\)", re.M)
# setUpClass and the like stand for all of their class.
FIXTURE = re.compile(r"^(?:ERROR|FAIL): (setUp|tearDown)(Class|Module) \(test\.[\w.]*?(\w+)\)", re.M)


def known(path=KNOWN):
    """{module: {test: reason}}"""
    found = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            module, test, reason = line.split(None, 2)
            found.setdefault(module, {})[test] = reason
    return found


def config_of(root, args):
    config = default_config(args)
    config["root"] = {"path": str(root), "readonly": False}
    config["process"]["env"] = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp",
        "LANG=C.UTF-8", "TMPDIR=/tmp"]
    config["mounts"].append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"})
    return config


def run(root, args, timeout, state):
    """(exit status or None for a timeout, output)"""
    name = f"py{os.getpid()}-{time.monotonic_ns()}"
    runtime = [*RUNTIME, "--root", str(state)]
    with tempfile.TemporaryDirectory(prefix="python-suite-") as bundle:
        os.chmod(bundle, 0o755)
        pathlib.Path(bundle, "config.json").write_text(json.dumps(config_of(root, args)))
        with tempfile.TemporaryFile() as out:
            p = subprocess.Popen([*runtime, "run", "--bundle", bundle, name],
                                 stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
            try:
                status = p.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
                subprocess.run([*runtime, "delete", "--force", name], check=False,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                p.wait()
            out.seek(0)
            return status, out.read().decode(errors="replace")


def failures(text):
    found = {f"{cls}.{case}" for case, cls in FAILED.findall(text)}
    return sorted(found | {f"{cls}.*" for _, _, cls in FIXTURE.findall(text)})


def judge(status, text):
    """What became of one module."""
    failed = failures(text)
    if status is None or re.search(r"Timeout \(\d+:\d\d:\d\d\)!", text):
        return "timeout", failed
    if re.search(r"^\S+ skipped --|^\S+ skipped \(", text, re.M) and not failed:
        return "skipped", failed
    if status == 0:
        return "ok", failed
    return "failed", failed


def module(root, name, timeout, state, logs):
    start = time.monotonic()
    status, text = run(root, ["python3", "-m", "test", "-v", "--timeout", str(timeout), name],
                       timeout + 60, state)
    verdict, failed = judge(status, text)
    if logs:
        pathlib.Path(logs, name + ".log").write_text(text)
    return {"module": name, "verdict": verdict, "status": status, "failed": failed,
            "seconds": round(time.monotonic() - start, 1), "text": text}


def unexpected(result, listed):
    """What of a module is not as the list says: tests that failed and may not, and those that are listed and
    did not fail."""
    known_here = listed.get(result["module"], {})
    verdict, failed = result["verdict"], result["failed"]
    if "*" in known_here:
        return ["listed, but passes"] if verdict == "ok" else []
    left = []
    if verdict not in ("ok", "skipped"):
        left = [f for f in failed
                if f not in known_here and f.split(".")[0] + ".*" not in known_here]
        if not failed or verdict == "timeout":
            left.append(verdict)
    if verdict in ("ok", "failed"):
        left += [f"listed, but passes: {k}" for k in known_here if k not in failed]
    return left


def modules(root):
    folder = pathlib.Path(root, "usr/lib/python3.11/test")
    found = {p.stem for p in folder.glob("test_*.py")}
    return sorted(found | {p.parent.name for p in folder.glob("test_*/__init__.py")})


def parts(root, name):
    """The modules of a package of tests, which can run beside each other."""
    folder = pathlib.Path(root, "usr/lib/python3.11/test", name)
    return sorted(f"{name}.{p.stem}" for p in folder.glob("test_*.py"))


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("modules", nargs="*", help="only these; /N/M for the Nth of M parts")
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--timeout", type=int, default=300, help="seconds of one module")
    ap.add_argument("--json", type=pathlib.Path, help="results, added to what is there")
    ap.add_argument("--logs", type=pathlib.Path, help="a folder for the output of each")
    ap.add_argument("--seconds", type=int, help="begin no module after so long; --json says which are done")
    args = ap.parse_args()
    root = pathlib.Path(os.environ["DEBIAN_ROOT"])
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    open_modules = args.modules or [m for m in modules(root) if m not in results]
    listed, bad, start = known(), [], time.monotonic()
    if args.logs:
        args.logs.mkdir(parents=True, exist_ok=True)

    def one(name):
        if args.seconds and time.monotonic() - start > args.seconds:
            return None
        return module(root, name, args.timeout, state, args.logs)

    with tempfile.TemporaryDirectory(prefix="python-suite-state-") as state, \
            concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for r in pool.map(one, open_modules):
            if not r:
                continue
            wrong = unexpected(r, listed)
            bad += [f"{r['module']} {w}" for w in wrong]
            print(f"{r['module']:32} {r['verdict']:8} {r['seconds']:7} s {' '.join(wrong)}", flush=True)
            results[r["module"]] = {k: v for k, v in r.items() if k not in ("module", "text")}
            if args.json:
                args.json.write_text(json.dumps(results, indent=1))
    verdicts = [r["verdict"] for r in results.values()]
    print({v: verdicts.count(v) for v in sorted(set(verdicts))})
    print("\n".join(["unexpected:", *bad] if bad else ["as listed"]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
