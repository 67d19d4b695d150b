#!/usr/bin/env python3
"""runsc install and uninstall: docker's daemon.json. cmake --install, and the Debian package that CPack
builds, installed into a root of its own. BUILD_DIR is the build folder."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import unittest

from harness import IS_OURS, RUNTIME, Case, is_static, main

BUILD_DIR = os.environ.get("BUILD_DIR")
PROGRAMS = ("runsc", "runsc-decoder", "containerd-shim-runsc-v1")


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


def sh(*args, **kw):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=600, stdin=subprocess.DEVNULL, **kw).stdout


ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@unittest.skipUnless(shutil.which("containerd"), "needs containerd")
class Manuals(Case):
    """What the documents say to put into configurations is what containerd understands."""

    def runtimes(self, text):
        """type and BinaryName of each runtime that containerd reads from a configuration."""
        path = self.dir / "config.toml"
        path.write_text(text)
        dump = sh("containerd", "-c", str(path), "config", "dump")
        found, name = {}, None
        for line in dump.splitlines():
            if m := re.match(r"\s*\[.*containerd\.runtimes\.(\w+)(\.options)?\]", line):
                name = m.group(1)
            elif line.strip().startswith("["):
                name = None
            elif name and (m := re.match(r'\s*(runtime_type|BinaryName) = "(.+)"', line)):
                found.setdefault(name, {})[m.group(1)] = m.group(2)
        return found

    def blocks(self, page):
        """Indented pieces of a page that are configuration of containerd."""
        text = (ROOT / page).read_text()
        pieces = re.findall(r"(?:^    .*\n)+", text, re.M)
        return [p for p in pieces if "containerd.runtimes" in p]

    def test_pages(self):
        seen = []
        for page in ("docs/oci.md", "README.md"):
            blocks = self.blocks(page)
            self.assertTrue(blocks, page)
            for block in blocks:
                found = self.runtimes("version = 2\n" + block)
                ours = {n: v for n, v in found.items() if n != "runc"}
                self.assertTrue(ours, block)
                seen += ours.values()
        self.assertIn({"runtime_type": "io.containerd.runsc.v1"}, seen)
        self.assertIn({"runtime_type": "io.containerd.runc.v2", "BinaryName": "/usr/local/bin/runsc"}, seen)

    def test_daemonset(self):
        """The script of the manifest, on a node that is a directory: twice, and with what was there kept."""
        text = (ROOT / "packaging/daemonset.yaml").read_text()
        script = re.search(r"- \|\n((?: {14}.*\n|\n)+)", text).group(1)
        script = re.sub(r"^ {14}", "", script, flags=re.M)
        node = self.dir / "node"
        for d in ("image", "host/usr/local/bin", "host/etc/containerd"):
            (node / d).mkdir(parents=True)
        for name in PROGRAMS:
            (node / "image" / name).write_text(f"#!/bin/sh\necho {name}\n")
        self.assertIn("nsenter --mount=/proc/1/ns/mnt systemctl restart containerd", script)
        script = script.replace("/host/", f"{node}/host/").replace("cp /$f", f"cp {node}/image/$f").replace(
            "nsenter --mount=/proc/1/ns/mnt", "echo")
        conf = node / "host/etc/containerd/config.toml"
        for before in (None, "version = 2\n[debug]\n  level = \"warn\"\n"):
            conf.unlink(missing_ok=True)
            if before:
                conf.write_text(before)
            for _ in range(2):
                sh("sh", "-ec", script)
            self.assertEqual(self.runtimes(conf.read_text()).get("runsc"), {"runtime_type": "io.containerd.runsc.v1"})
            self.assertTrue(conf.read_text().startswith(before or "version = 2\n"))
            self.assertEqual(conf.read_text().count("runtimes.runsc]"), 1)
        for name in PROGRAMS:
            self.assertEqual(sh(str(node / "host/usr/local/bin" / name)), name + "\n")


@unittest.skipUnless(IS_OURS and BUILD_DIR and is_static(RUNTIME[0]), "needs the build folder of a release")
class Package(Case):
    def check_files(self, prefix):
        """What both ways of installing put there, and that it is whole."""
        for name in PROGRAMS:
            self.assertTrue(os.access(prefix / "bin" / name, os.X_OK), name)
        listed = sh(str(prefix / "bin/runsc"), "help")
        names = re.findall(r"^  ([a-z][a-z-]*)\b", listed, re.M)
        self.assertIn("port-forward", names)
        page = (prefix / "share/man/man8/runsc.8").read_text().replace("\\-", "-")
        for name in names:
            self.assertIn(f"\\fB{name}\\fR", page)
        self.assertTrue((prefix / "share/man/man8/containerd-shim-runsc-v1.8").is_file())
        self.check_completion(prefix)
        docs = prefix / "share/doc/ringwall"
        for name in ("oci.md", "daemonset.yaml", "runtimeclass.yaml", "LICENSE"):
            self.assertTrue((docs / name).is_file(), name)

    def check_completion(self, prefix):
        script = prefix / "share/bash-completion/completions/runsc"

        def complete(*words):
            text = " ".join(f"'{w}'" for w in words)
            return sh("bash", "-c", f"PATH={prefix}/bin:$PATH; . {script}; COMP_WORDS=({text});"
                      f"COMP_CWORD={len(words) - 1}; _runsc; echo ${{COMPREPLY[@]}}").split()
        self.assertEqual(complete("runsc", "de"), ["delete", "debug"])
        self.assertEqual(complete("runsc", "port"), ["port-forward"])
        self.assertIn("--console-socket", complete("runsc", "exec", "--co"))
        self.assertIn("--network", complete("runsc", "--net"))

    def test_cmake_install(self):
        sh("cmake", "--install", BUILD_DIR, "--prefix", str(self.dir / "prefix"))
        self.check_files(self.dir / "prefix")

    @unittest.skipUnless(shutil.which("dpkg") and os.geteuid() == 0, "needs root and dpkg")
    def test_debian_package(self):
        out, root = self.dir / "out", self.dir / "root"
        sh("cpack", "-G", "DEB", "--config", f"{BUILD_DIR}/CPackConfig.cmake", "-B", str(out))
        package, = out.glob("*.deb")
        self.assertRegex(package.name, r"^ringwall_\d+\.\d+\.\d+.*_amd64\.deb$")
        info = sh("dpkg-deb", "--info", str(package))
        self.assertIn("Package: ringwall", info)
        self.assertNotIn("Depends:", info, "the programs stand by themselves")
        for d in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "proc", "etc/docker"):
            (root / d).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        dpkg = ("dpkg", f"--root={root}", "--force-not-root", "--force-script-chrootless")
        sh(*dpkg, "--install", str(package))
        self.check_files(root / "usr")
        # Alone in a root of their own, where nothing else is.
        inside = ("unshare", "--mount", "sh", "-ec", f'mount -t proc proc {root}/proc; exec chroot {root} "$@"', "sh")
        self.assertIn("runsc version", sh(*inside, "/usr/bin/runsc", "--version"))
        sh(*inside, "/usr/bin/runsc", "install")
        doc = json.loads((root / "etc/docker/daemon.json").read_text())
        self.assertEqual(doc["runtimes"]["runsc"]["path"], "/usr/bin/runsc")
        self.write(["/bin/sh", "-c", "exit 6"])
        p = subprocess.run([str(root / "usr/bin/runsc"), *RUNTIME[1:], "--root", str(self.root), "run", "--bundle",
                            str(self.bundle), self.new_id()], stdin=subprocess.DEVNULL, timeout=180)
        self.assertEqual(p.returncode, 6)
        # Its own names for its own code are not stripped: stacks and profiles need them.
        self.assertIn("boot_main", sh("nm", str(root / "usr/bin/runsc")))
        sh(*dpkg, "--purge", "ringwall")
        self.assertEqual([p for p in (root / "usr").rglob("*") if p.is_file()], [])


if __name__ == "__main__":
    main()
