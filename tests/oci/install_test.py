#!/usr/bin/env python3
"""runsc install and uninstall: docker's daemon.json."""
import json
import os
import unittest

from harness import IS_OURS, Case, main


@unittest.skipUnless(IS_OURS, "a command of runsc")
class Install(Case):
    def setUp(self):
        super().setUp()
        self.config = self.dir / "daemon.json"

    def install(self, *args):
        p = self.call("install", "--config-file", str(self.config), *args)
        self.assertEqual(p.returncode, 0, p.stderr)
        return json.loads(self.config.read_text())

    def test_new_file(self):
        doc = self.install()
        path = doc["runtimes"]["runsc"]["path"]
        self.assertTrue(os.path.isabs(path) and os.access(path, os.X_OK))
        self.assertNotIn("default-runtime", doc)

    def test_other_settings_stay(self):
        self.config.write_text('{"bridge": "none", "runtimes": {"other": {"path": "/x"}}}')
        os.chmod(self.config, 0o600)
        doc = self.install("--runtime", "wall", "--default", "--", "--platform", "ptrace")
        self.assertEqual(doc["bridge"], "none")
        self.assertEqual(doc["runtimes"]["other"], {"path": "/x"})
        self.assertEqual(doc["runtimes"]["wall"]["runtimeArgs"], ["--platform", "ptrace"])
        self.assertEqual(doc["default-runtime"], "wall")
        self.assertEqual(self.config.stat().st_mode & 0o777, 0o600)
        p = self.call("uninstall", "--config-file", str(self.config), "--runtime", "wall")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(json.loads(self.config.read_text()),
                         {"bridge": "none", "runtimes": {"other": {"path": "/x"}}})

    def test_a_damaged_file_is_left_alone(self):
        self.config.write_text("{broken")
        p = self.call("install", "--config-file", str(self.config))
        self.assertNotEqual(p.returncode, 0)
        self.assertEqual(self.config.read_text(), "{broken")


if __name__ == "__main__":
    main()
