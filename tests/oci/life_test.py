#!/usr/bin/env python3
"""The life of a container: create, start, state, kill, delete, run, exec, list, exit codes."""
import json
import os
import pathlib
import signal
import subprocess
import unittest

from harness import IS_OURS, Case, eventually, main


class Life(Case):
    def test_output_and_exit_code(self):
        p = self.shell("echo out; echo err >&2; exit 7")
        self.assertEqual((p.returncode, p.stdout, p.stderr), (7, "out\n", "err\n"))

    @unittest.skipUnless(IS_OURS, "where ours is in a process's memory")
    def test_addresses_that_are_not_random(self):
        """A host may be told to put everything at the same place, the stack at the very end."""
        for platform in ("ptrace", "systrap", *(["kvm"] if os.path.exists("/dev/kvm") else [])):
            self.write(["/bin/sh", "-c", "sh -c 'ulimit -s unlimited; exec sh -c \"echo hi\"'"])
            p = subprocess.run(["setarch", "-R", *self.runtime("--platform", platform, "run", "--bundle",
                                                               str(self.bundle), self.new_id())],
                               stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)
            self.assertEqual((p.returncode, p.stdout), (0, "hi\n"), f"{platform}: {p.stderr}")

    def test_signal_exit_code(self):
        p = self.shell("sh -c 'kill -SEGV $$'; exit $?")
        self.assertEqual(p.returncode, 128 + signal.SIGSEGV)
        # init itself takes no signal from inside without a handler, as pid_namespaces(7) says.
        self.assertEqual(self.shell("kill -KILL $$; exit 3").returncode, 3)

    def test_stdin_reaches_the_guest(self):
        self.write(["/bin/cat"])
        p = subprocess.run(self.runtime("run", "--bundle", str(self.bundle), self.new_id()),
                           input="through\n" * 1000, text=True, stdout=subprocess.PIPE, timeout=180)
        self.assertEqual(p.stdout, "through\n" * 1000)

    def test_hostname_cwd_env_user(self):
        def change(c):
            c["process"]["cwd"] = "/etc"
            c["process"]["env"].append("COLOUR=green")
            c["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [7, 9]}
        p = self.shell("hostname; pwd; echo $COLOUR; id -u; id -g; id -G", change)
        self.assertEqual(p.stdout.split("\n")[:5], ["guest", "/etc", "green", "1000", "1001"])
        self.assertEqual(set(p.stdout.split("\n")[5].split()) - {"1001"}, {"7", "9"})

    def test_path_is_searched(self):
        p = self.run_guest(["echo", "found"])
        self.assertEqual((p.returncode, p.stdout), (0, "found\n"))

    def test_pid_1_and_proc(self):
        p = self.shell("echo $$; ls /proc | grep -c '^[0-9]*$'")
        self.assertEqual(p.stdout.split()[0], "1")

    def test_rlimits(self):
        def change(c):
            c["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
        p = self.shell("ulimit -Sn; ulimit -Hn", change)
        self.assertEqual(p.stdout.split(), ["100", "200"])

    def test_readonly_root(self):
        def change(c):
            c["root"]["readonly"] = True
        p = self.shell("echo x > /file; echo $?; touch /tmp/ok && echo tmp", change)
        self.assertNotEqual(p.stdout.split()[0], "0")
        self.assertEqual(p.stdout.split()[1], "tmp")

    def test_writes_reach_the_root_file_system(self):
        self.write(["/bin/sh", "-c",
                    "mkdir -p /root/d && echo data > /root/d/f && chmod 600 /root/d/f"])
        through = ["--overlay=none"] if IS_OURS else []
        p = self.call(*through, "run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual(p.returncode, 0, p.stderr)
        f = pathlib.Path(self.rootfs) / "root/d/f"
        self.assertEqual(f.read_text(), "data\n")
        self.assertEqual(f.stat().st_mode & 0o777, 0o600)

    def test_bind_mounts(self):
        (self.dir / "share").mkdir()
        (self.dir / "share/in").write_text("host\n")
        (self.dir / "one").write_text("single\n")

        def change(c):
            c["mounts"] += [
                {"destination": "/mnt/share", "type": "bind", "source": str(self.dir / "share"),
                 "options": ["rbind", "rw"]},
                {"destination": "/mnt/ro", "type": "bind", "source": str(self.dir / "share"),
                 "options": ["bind", "ro"]},
                {"destination": "/mnt/one", "type": "bind", "source": str(self.dir / "one"),
                 "options": ["bind", "ro"]}]
        p = self.shell("cat /mnt/share/in /mnt/one; echo guest > /mnt/share/out;"
                       "echo no > /mnt/ro/no || echo refused", change)
        self.assertEqual(p.stdout, "host\nsingle\nrefused\n")
        self.assertEqual((self.dir / "share/out").read_text(), "guest\n")
        self.assertFalse((self.dir / "share/no").exists())

    def test_create_start_delete(self):
        out = (self.dir / "out").open("w+")
        self.addCleanup(out.close)
        cid = self.create(["/bin/sh", "-c", "echo started; exec sleep 1000"], stdout=out)
        state = self.state(cid)
        self.assertEqual(state["status"], "created")
        self.assertEqual(state["id"], cid)
        self.assertEqual(state["bundle"], str(self.bundle))
        self.assertGreater(state["pid"], 0)
        self.assertEqual((self.dir / "out").read_text(), "")
        self.assertEqual(self.call("start", cid).returncode, 0)
        eventually(lambda: (self.dir / "out").read_text() == "started\n", what="output")
        self.assertEqual(self.state(cid)["status"], "running")
        self.assertNotEqual(self.call("start", cid).returncode, 0, "a second start is refused")
        self.assertNotEqual(self.call("delete", cid).returncode, 0, "running: delete is refused")
        self.assertEqual(self.call("kill", cid, "KILL").returncode, 0)
        self.wait_status(cid, "stopped")
        self.assertEqual(self.call("delete", cid).returncode, 0)
        self.assertIsNone(self.state(cid))
        self.assert_nothing_left()

    def test_kill_reaches_a_handler(self):
        out = (self.dir / "out").open("w+")
        self.addCleanup(out.close)
        script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
        cid = self.create(["/bin/sh", "-c", script], stdout=out)
        self.assertEqual(self.call("start", cid).returncode, 0)
        eventually(lambda: "ready" in (self.dir / "out").read_text(), what="ready")
        self.assertEqual(self.call("kill", cid, "SIGTERM").returncode, 0)
        self.wait_status(cid, "stopped")
        self.assertEqual((self.dir / "out").read_text(), "ready\ncaught\n")

    def test_pid_file_and_detach(self):
        self.write(["/bin/sleep", "1000"])
        cid = self.new_id()
        pid_file = self.dir / "pid"
        p = self.call_quiet("run", "--detach", "--pid-file", str(pid_file), "--bundle",
                            str(self.bundle), cid)
        self.assertEqual(p.returncode, 0)
        state = self.state(cid)
        self.assertEqual(state["status"], "running")
        self.assertEqual(int(pid_file.read_text()), state["pid"])
        self.assertEqual(self.call("delete", "--force", cid).returncode, 0)
        self.assert_nothing_left()

    def test_exec(self):
        cid = self.create(["/bin/sleep", "1000"])
        self.assertEqual(self.call("start", cid).returncode, 0)
        p = self.call("exec", cid, "/bin/sh", "-c", "echo in; echo bad >&2; exit 5")
        self.assertEqual((p.returncode, p.stdout, p.stderr), (5, "in\n", "bad\n"))
        p = self.call("exec", "--cwd", "/tmp", "-e", "A=b", "--user", "12:13", cid, "/bin/sh", "-c",
                      "pwd; echo $A; id -u; id -g")
        self.assertEqual(p.stdout.split(), ["/tmp", "b", "12", "13"])
        p = self.call("exec", cid, "/bin/sh", "-c", "kill -9 $$")
        self.assertEqual(p.returncode, 137)
        p = self.call("exec", cid, "/bin/no-such-program")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("no-such-program", p.stderr)
        self.assertEqual(self.state(cid)["status"], "running")

    def test_exec_sees_the_same_processes_and_files(self):
        cid = self.create(["/bin/sh", "-c", "echo shared > /tmp/f; exec sleep 1000"])
        self.assertEqual(self.call("start", cid).returncode, 0)
        eventually(lambda: self.call("exec", cid, "/bin/cat", "/tmp/f").stdout == "shared\n",
                   what="file")
        p = self.call("exec", cid, "/bin/sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '")
        self.assertEqual(p.stdout.strip(), "sleep 1000")

    def test_exec_ends_with_the_container(self):
        cid = self.create(["/bin/sleep", "1000"])
        self.assertEqual(self.call("start", cid).returncode, 0)
        p = self.popen("exec", cid, "/bin/sh", "-c", "echo up; exec sleep 1000")
        self.assertEqual(p.stdout.readline(), "up\n")
        self.assertEqual(self.call("kill", cid, "KILL").returncode, 0)
        self.assertEqual(p.wait(120), 137)

    def test_list(self):
        cid = self.create(["/bin/sleep", "1000"])
        rows = json.loads(self.call("list", "--format", "json").stdout)
        self.assertEqual([(r["id"], r["status"]) for r in rows], [(cid, "created")])
        self.assertEqual(self.call("list", "--quiet").stdout, cid + "\n")
        self.assertIn(cid, self.call("list").stdout)

    def test_spec_runs(self):
        p = self.call("spec", cwd=self.bundle)
        self.assertEqual(p.returncode, 0, p.stderr)
        config = json.loads((self.bundle / "config.json").read_text())
        config["process"]["terminal"] = False
        config["process"]["args"] = ["/bin/echo", "spec"]
        config["root"]["path"] = str(self.rootfs)
        (self.bundle / "config.json").write_text(json.dumps(config))
        p = self.call("run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual((p.returncode, p.stdout), (0, "spec\n"), p.stderr)

    def test_hooks(self):
        log = self.dir / "hooks"
        script = self.dir / "hook.sh"
        script.write_text(f"#!/bin/sh\necho $1 $(cat | grep -o '\"status\": *\"[a-z]*\"'"
                          f" | cut -d'\"' -f4) >> {log}\n")
        os.chmod(script, 0o755)

        def change(c):
            c["hooks"] = {stage: [{"path": str(script), "args": ["hook", stage]}] for stage in
                          ("createRuntime", "poststart", "poststop")}
        self.assertEqual(self.shell("exit 0", change).returncode, 0)
        lines = [line.split()[0] for line in log.read_text().splitlines()]
        self.assertEqual(lines, ["createRuntime", "poststart", "poststop"])

    def test_version(self):
        p = self.call("--version")
        self.assertEqual(p.returncode, 0)
        self.assertIn("spec: 1.", p.stdout)

    def test_signals_are_forwarded(self):
        self.write(["/bin/sh", "-c", "trap 'echo got; exit 9' INT; echo ready;"
                    "while :; do sleep 0.05; done"])
        p = self.popen("run", "--bundle", str(self.bundle), self.new_id(), start_new_session=True)
        self.assertEqual(p.stdout.readline(), "ready\n")
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.stdout.readline(), "got\n")
        self.assertEqual(p.wait(120), 9)
        self.assert_nothing_left()


@unittest.skipUnless(IS_OURS, "a command of runsc")
class Do(Case):
    def test_do(self):
        p = self.call("do", "--", "/bin/sh", "-c", "echo $((6 * 7)); exit 4")
        self.assertEqual((p.returncode, p.stdout), (4, "42\n"), p.stderr)

    def test_do_cannot_change_the_host(self):
        mark = self.dir / "mark"
        p = self.call("do", "--", "/bin/sh", "-c", f"echo x > {mark}")
        self.assertNotEqual(p.returncode, 0)
        self.assertFalse(mark.exists())


if __name__ == "__main__":
    main()
