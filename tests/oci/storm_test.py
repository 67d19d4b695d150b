#!/usr/bin/env python3
"""Eight clients make 200 containers at once and end them at random moments: nothing is left."""
import glob
import json
import os
import pathlib
import random
import subprocess
import threading
import time

from harness import TIMEOUT, Case, default_config, eventually, kill9, main

CLIENTS = 8
EACH = 25


def processes_naming(text):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                line = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if text.encode() in line and stat not in "ZX":
                found.append(entry)
    return found


class Storm(Case):
    def bundle_of(self, client):
        d = self.dir / f"bundle{client}"
        d.mkdir()
        config = default_config(["/bin/sh", "-c", "sleep 1000 & exec sleep 1000"])
        config["root"] = {"path": str(self.rootfs), "readonly": True}
        config["linux"]["cgroupsPath"] = f"/ringwall-storm-{os.getpid()}/c{client}"
        (d / "config.json").write_text(json.dumps(config))
        return d

    def act(self, rng, bundle, cid):
        """One container's life, which may end early at any step."""
        create = subprocess.Popen(self.runtime("create", "--bundle", str(bundle), cid),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        if rng.random() < 0.2:
            time.sleep(rng.random() * 0.02)
            create.kill()
        create.wait(TIMEOUT)
        if rng.random() < 0.8:
            self.call("start", cid)
        for command in (("exec", "--detach", cid, "/bin/sleep", "999"), ("pause", cid), ("resume", cid),
                        ("update", "--pids-limit", "50", cid), ("ps", cid)):
            if rng.random() < 0.2:
                self.call_quiet(*command)
        time.sleep(rng.random() * 0.02)
        if rng.random() < 0.3:
            state = self.call("state", cid)
            if state.returncode == 0 and json.loads(state.stdout)["pid"]:
                kill9(json.loads(state.stdout)["pid"])
        elif rng.random() < 0.6:
            self.call("kill", cid, "KILL")
        self.call("delete", "--force", cid)

    def client(self, number, seed, failures):
        rng = random.Random(seed)
        bundle = self.bundle_of(number)
        for i in range(EACH):
            try:
                self.act(rng, bundle, f"s{os.getpid()}-{number}-{i}")
            except Exception as e:
                failures.append(f"client {number}, container {i}: {e!r}")

    def test_create_killed(self):
        """The command itself ends at every moment of its work."""
        bundle = self.bundle_of(0)
        for i in range(40):
            cid = f"k{os.getpid()}-{i}"
            p = subprocess.Popen(self.runtime("create", "--bundle", str(bundle), cid),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            time.sleep(i * 0.001)
            p.kill()
            p.wait()
            self.call("delete", "--force", cid)
        eventually(lambda: not processes_naming(str(self.root)), what="no process left")
        self.assert_nothing_left()
        self.remove_cgroups()

    def remove_cgroups(self):
        name = f"ringwall-storm-{os.getpid()}"
        for d in glob.glob(f"/sys/fs/cgroup/*/{name}/*/") + glob.glob(f"/sys/fs/cgroup/{name}/*/"):
            self.fail(f"{d} is left")
        for d in glob.glob(f"/sys/fs/cgroup/*/{name}") + glob.glob(f"/sys/fs/cgroup/{name}"):
            os.rmdir(d)

    def test_storm(self):
        failures = []
        seed = random.randrange(1 << 30)
        threads = [threading.Thread(target=self.client, args=(n, seed + n, failures))
                   for n in range(CLIENTS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [], f"seed {seed}")
        eventually(lambda: not processes_naming(str(self.root)), what=f"no process left, seed {seed}")
        self.assertEqual(list(self.root.glob("*")), [], f"seed {seed}")
        self.remove_cgroups()
        self.assertNotIn(str(self.dir), pathlib.Path("/proc/self/mounts").read_text())


if __name__ == "__main__":
    main()
