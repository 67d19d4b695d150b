#!/usr/bin/env python3
"""Wrong arguments and wrong configurations: one clear line, a status, nothing left behind."""
import json
import os
import unittest

from harness import IS_OURS, Case, default_config, main


class BadInput(Case):
    def refused(self, p, *words):
        """p failed with one line on stderr that holds words."""
        self.assertNotEqual(p.returncode, 0)
        self.assertEqual(p.stdout, "")
        if IS_OURS:
            self.assertEqual(len(p.stderr.strip().splitlines()), 1, p.stderr)
            for word in words:
                self.assertIn(word, p.stderr)
        self.assert_nothing_left()

    def run_bundle(self, *words):
        self.refused(self.call("run", "--bundle", str(self.bundle), self.new_id()), *words)

    def refuse_config(self, change, *words):
        self.write(["/bin/true"], change)
        self.run_bundle(*words)

    def test_missing_config(self):
        self.run_bundle("config.json")

    def test_missing_bundle(self):
        self.refused(self.call("run", "--bundle", "/no/such/bundle", self.new_id()),
                     "/no/such/bundle")

    def test_config_is_no_json(self):
        for text in ("", "{", "[]", "null", "{\"a\":}", "\x00\xff", "[" * 10000):
            with self.subTest(text=text[:10]):
                (self.bundle / "config.json").write_bytes(text.encode("latin1"))
                self.run_bundle("config.json")

    def test_config_is_huge(self):
        (self.bundle / "config.json").write_text(" " * (5 << 20) + "{}")
        self.run_bundle("config.json")

    def test_config_is_a_directory(self):
        (self.bundle / "config.json").mkdir()
        self.run_bundle("config.json")

    def test_fields(self):
        cases = [
            (lambda c: c.pop("ociVersion"), "ociVersion"),
            (lambda c: c.update(ociVersion="2.0.0"), "ociVersion"),
            (lambda c: c.update(ociVersion=7), "ociVersion"),
            (lambda c: c.pop("process"), "process"),
            (lambda c: c["process"].update(args=[]), "process.args"),
            (lambda c: c["process"].update(args="sh"), "process.args"),
            (lambda c: c["process"].update(args=["/bin/true", 7]), "process.args[1]"),
            (lambda c: c["process"].update(cwd="relative"), "process.cwd"),
            (lambda c: c["process"].pop("cwd"), "process.cwd"),
            (lambda c: c["process"].update(user={"uid": -1, "gid": 0}), "process.user.uid"),
            (lambda c: c["process"].update(rlimits=[{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]),
             "process.rlimits[0].type"),
            (lambda c: c.update(root={"path": 5}), "root.path"),
            (lambda c: c.update(mounts=[{"source": "x"}]), "mounts[0].destination"),
        ]
        for change, word in cases:
            with self.subTest(word=word):
                self.refuse_config(change, word)

    def test_missing_rootfs(self):
        self.refuse_config(lambda c: c["root"].update(path="nothing"), "root.path")

    def test_rootfs_is_a_file(self):
        (self.bundle / "file").write_text("")
        self.refuse_config(lambda c: c["root"].update(path="file"), "root.path")

    def test_missing_program(self):
        self.refuse_config(lambda c: c["process"].update(args=["/bin/nothing"]), "/bin/nothing")
        self.refuse_config(lambda c: c["process"].update(args=["nothing"]), "nothing")

    def test_program_cannot_run(self):
        (self.rootfs / "plain").write_text("plain text\n")
        os.chmod(self.rootfs / "plain", 0o644)
        self.refuse_config(lambda c: c["process"].update(args=["/plain"]), "/plain")
        self.refuse_config(lambda c: c["process"].update(args=["/etc"]), "/etc")
        (self.rootfs / "elf").write_bytes(b"\x7fELF" + b"\x02\x01\x01" + b"\xff" * 200)
        os.chmod(self.rootfs / "elf", 0o755)
        self.refuse_config(lambda c: c["process"].update(args=["/elf"]), "/elf")

    def test_missing_cwd(self):
        self.refuse_config(lambda c: c["root"].update(readonly=True) or
                           c["process"].update(cwd="/etc/passwd"), "/etc/passwd")

    def test_missing_mount_source(self):
        self.refuse_config(lambda c: c["mounts"].append(
            {"destination": "/mnt", "type": "bind", "source": "/no/such/source",
             "options": ["bind"]}), "/no/such/source")

    def test_ids(self):
        self.write(["/bin/true"])
        for name in ("", ".", "..", "a/b", "a b", "x" * 2000):
            with self.subTest(name=name[:10]):
                self.refused(self.call("run", "--bundle", str(self.bundle), name))

    def test_duplicate_id(self):
        cid = self.create(["/bin/sleep", "1000"])
        p = self.call("run", "--bundle", str(self.bundle), cid)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("exist", p.stderr)
        self.assertEqual(self.state(cid)["status"], "created")

    def test_unknown_container(self):
        for args in (["start", "no"], ["state", "no"], ["kill", "no"], ["delete", "no"],
                     ["exec", "no", "true"]):
            with self.subTest(args=args):
                p = self.call(*args)
                self.assertNotEqual(p.returncode, 0)
                self.assertIn("does not exist", p.stderr)

    def test_bad_signal(self):
        cid = self.create(["/bin/sleep", "1000"])
        for name in ("NOSUCH", "0x", "99", "-1"):
            with self.subTest(name=name):
                self.assertNotEqual(self.call("kill", cid, "--", name).returncode, 0)
        self.assertEqual(self.state(cid)["status"], "created")

    @unittest.skipUnless(IS_OURS, "texts of runsc")
    def test_flags_and_commands(self):
        self.refused(self.call("run", "--no-such-flag", "x"), "no-such-flag")
        self.refused(self.call("--no-such-flag", "run", "x"), "no-such-flag")
        self.refused(self.call("no-such-command"), "no-such-command")
        self.refused(self.call("run"), "run")
        self.refused(self.call("--platform", "warp", "do", "--", "/bin/true"), "warp")

    @unittest.skipUnless(IS_OURS, "options of runsc")
    def test_error_as_json_in_the_log(self):
        log = self.dir / "log.json"
        self.write(["/bin/true"], lambda c: c.pop("ociVersion"))
        p = self.call("--log", str(log), "--log-format", "json", "run", "--bundle",
                      str(self.bundle), self.new_id())
        self.assertNotEqual(p.returncode, 0)
        entry = json.loads(log.read_text().splitlines()[-1])
        self.assertEqual(entry["level"], "error")
        self.assertIn("ociVersion", entry["msg"])


class Fuzzed(Case):
    def test_wrong_types_everywhere(self):
        """Every value of the configuration replaced by one of another type: never a crash."""
        def places(node, path=()):
            for key in (node if isinstance(node, dict) else range(len(node))):
                yield path + (key,)
                if isinstance(node[key], (dict, list)):
                    yield from places(node[key], path + (key,))

        base = default_config(["/bin/true"])
        base["root"]["path"] = str(self.rootfs)
        for path in places(base):
            for value in (None, 7, -1, "x", [], {}, 1e300, [None], {"a": None}):
                config = json.loads(json.dumps(base))
                node = config
                for key in path[:-1]:
                    node = node[key]
                if isinstance(node[path[-1]], type(value)):
                    continue
                node[path[-1]] = value
                (self.bundle / "config.json").write_text(json.dumps(config))
                p = self.call("run", "--bundle", str(self.bundle), self.new_id())
                self.assertIn(p.returncode, range(0, 128), f"{path} = {value}: {p.stderr}")
        self.assert_nothing_left()


if __name__ == "__main__":
    main()
