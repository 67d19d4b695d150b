#!/usr/bin/env python3
"""config.json field by field: what is honoured, what is refused and why, what is ignored."""
import json
import os
import unittest

from harness import CAPS, IS_OURS, Case, main

CLASSES = ("bounding", "effective", "permitted")


def caps(*names):
    def change(c):
        for k in CLASSES:
            c["process"]["capabilities"][k] = CAPS + list(names)
    return change


def linux(**fields):
    return lambda c: c["linux"].update(fields)


def process(**fields):
    return lambda c: c["process"].update(fields)


def both(*changes):
    def change(c):
        for one in changes:
            one(c)
    return change


def tmpfs(options, where="/mnt", kind="tmpfs"):
    return lambda c: c["mounts"].append(
        {"destination": where, "type": kind, "source": "tmpfs", "options": options})


class Fields(Case):
    def out(self, script, change=None):
        p = self.shell(script, change)
        self.assertEqual(p.returncode, 0, p.stderr)
        return p.stdout

    def refused(self, change, *words):
        p = self.shell("true", change)
        self.assertNotEqual(p.returncode, 0)
        for w in words:
            self.assertIn(w, p.stderr)

    def bind(self, options, name="share", where="/m"):
        share = self.dir / name
        share.mkdir(exist_ok=True)
        return lambda c: c["mounts"].append(
            {"destination": where, "type": "bind", "source": str(share), "options": options})


class Process(Fields):
    def test_umask(self):
        for mask in (0, 0o77, 0o27):
            change = lambda c, mask=mask: c["process"]["user"].update(umask=mask)
            self.assertEqual(self.out("umask", change), f"{mask:04o}\n")

    def test_groups(self):
        def user(c):
            c["process"]["user"] = {"uid": 7, "gid": 8, "additionalGids": [9, 10]}
        self.assertEqual(self.out("id -u; id -g; id -G", user).split("\n")[:3], ["7", "8", "8 9 10"])

    def test_oom_score(self):
        self.assertEqual(self.out("cat /proc/self/oom_score_adj", process(oomScoreAdj=321)), "321\n")

    def test_no_new_privileges(self):
        for on in (True, False):
            text = self.out("grep NoNewPrivs /proc/self/status", process(noNewPrivileges=on))
            self.assertEqual(text.split()[1], str(int(on)))

    @unittest.skipUnless(IS_OURS, "1.2 of the specification")
    def test_scheduler(self):
        def fields(scheduler):
            """nice, real-time priority and policy."""
            words = self.out("cat /proc/self/stat", process(scheduler=scheduler)).rsplit(")", 1)[1].split()
            return [int(words[i - 3]) for i in (19, 40, 41)]
        self.assertEqual(fields({"policy": "SCHED_BATCH", "nice": 5}), [5, 0, 3])
        self.assertEqual(fields({"policy": "SCHED_FIFO", "priority": 10}), [0, 10, 1])
        self.refused(process(scheduler={"policy": "SCHED_DEADLINE"}), "scheduler", "SCHED_DEADLINE")
        self.refused(process(scheduler={"policy": "SCHED_OTHER", "priority": 3}), "scheduler.priority")

    @unittest.skipUnless(IS_OURS, "1.2 of the specification")
    def test_io_priority(self):
        change = process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6})
        self.assertIn("prio 6", self.out("ionice -p $$", change))
        self.refused(process(ioPriority={"class": "IOPRIO_CLASS_X"}), "ioPriority.class")

    @unittest.skipUnless(IS_OURS, "hosts differ")
    def test_labels_do_nothing(self):
        self.out("true", process(apparmorProfile="any", selinuxLabel="system_u:system_r:container_t:s0"))


class Kernel(Fields):
    def test_names(self):
        def names(c):
            c["hostname"] = "one"
        self.assertEqual(self.out("hostname; cat /proc/sys/kernel/hostname", names), "one\none\n")

    def test_sysctl(self):
        values = {"kernel.shmmax": "123456789", "kernel.shmall": "4096", "kernel.shmmni": "100",
                  "kernel.msgmax": "9000", "kernel.sem": "300\t40000\t200\t150", "fs.mqueue.msg_max": "20"}
        files = " ".join("/proc/sys/" + name.replace(".", "/") for name in values)
        self.assertEqual(self.out(f"cat {files}", linux(sysctl=values)).splitlines(), list(values.values()))
        self.refused(linux(sysctl={"kernel.nosuch": "1"}), "kernel.nosuch")
        self.refused(linux(sysctl={"kernel.panic": "17"}), "kernel.panic")

    @unittest.skipUnless(IS_OURS, "what our network stack does always")
    def test_sysctl_as_it_is(self):
        self.out("true", linux(sysctl={"net.ipv4.ip_forward": "0", "net.ipv4.tcp_syncookies": "1"}))
        self.refused(linux(sysctl={"net.ipv4.ip_forward": "1"}), "ip_forward")
        self.out("true", linux(sysctl={"net.ipv4.nosuch": "1"}))

    @unittest.skipUnless(IS_OURS, "newer than runc 1.1")
    def test_affinity_of_exec(self):
        def started(affinity):
            cid = self.create(["/bin/sleep", "1000"], process(execCPUAffinity=affinity))
            self.assertEqual(self.call("start", cid).returncode, 0)
            return cid
        show = ["/bin/grep", "Cpus_allowed_list", "/proc/1/status", "/proc/self/status"]
        def shown(cid, *options):
            p = self.call("exec", *options, cid, *([] if options else show))
            self.assertEqual(p.returncode, 0, p.stderr)
            return [line.split()[-1] for line in p.stdout.splitlines()]
        everywhere = shown(started({}))[0]
        cid = started({"initial": "0", "final": "0,500-511"})
        self.assertEqual(shown(cid), [everywhere, "0"])
        self.assertEqual(shown(started({"initial": "0", "final": ""})), [everywhere] * 2)
        own = self.dir / "process.json"
        own.write_text(json.dumps({"args": show, "cwd": "/", "user": {"uid": 0, "gid": 0}}))
        self.assertEqual(shown(cid, "--process", str(own)), [everywhere] * 2)
        p = self.call("exec", started({"final": "511"}), "/bin/true")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("execCPUAffinity", p.stderr)
        for text in ("x", "0-", "-1", "1,", "3-2", "512", "0 1", ",", "99999999999999999999"):
            for key in ("initial", "final"):
                self.refused(process(execCPUAffinity={key: text}), f"execCPUAffinity.{key}", "CPUs")

    @unittest.skipUnless(IS_OURS, "newer than runc 1.1")
    def test_domain_name(self):
        self.assertEqual(self.out("cat /proc/sys/kernel/domainname", lambda c: c.update(domainname="a.b")),
                         "a.b\n")

    @unittest.skipUnless(IS_OURS, "newer than runc 1.1")
    def test_personality(self):
        self.assertEqual(self.out("uname -m", linux(personality={"domain": "LINUX32"})), "i686\n")
        self.assertEqual(self.out("uname -m; cat /proc/self/personality",
                                  linux(personality={"domain": "LINUX"})), "x86_64\n00000000\n")
        self.refused(linux(personality={"domain": "XENIX"}), "personality.domain", "XENIX")
        self.refused(linux(personality={"domain": "LINUX", "flags": ["X"]}), "personality.flags")

    @unittest.skipUnless(IS_OURS, "newer than runc 1.1")
    def test_time_offsets(self):
        def own(offsets):
            def change(c):
                c["linux"]["namespaces"].append({"type": "time"})
                c["linux"]["timeOffsets"] = offsets
            return change
        show = "cat /proc/self/timens_offsets; readlink /proc/self/ns/time; cut -d. -f1 /proc/uptime"
        lines = self.out(show, own({"monotonic": {"secs": 7, "nanosecs": 9},
                                    "boottime": {"secs": 1000000}})).splitlines()
        self.assertEqual([l.split() for l in lines[:2]],
                         [["monotonic", "7", "9"], ["boottime", "1000000", "0"]])
        self.assertNotEqual(lines[2], "time:[4026531834]")
        self.assertGreaterEqual(int(lines[3]), 1000000)
        self.assertNotIn("4026531834", self.out("readlink /proc/self/ns/time", own({})))
        self.refused(linux(timeOffsets={"monotonic": {"secs": 5}}), "timeOffsets.monotonic",
                     "need a time namespace")
        self.refused(own({"monotonic": {"nanosecs": 1000000000}}), "nanosecs", "1000000000")
        self.refused(own({"boottime": {"secs": -(1 << 40)}}), "cannot run", "range")
        self.out("true", linux(timeOffsets={"monotonic": {"secs": 0, "nanosecs": 0}}))

    @unittest.skipUnless(IS_OURS, "a kernel of its own")
    def test_what_a_sandbox_cannot(self):
        self.refused(linux(intelRdt={"closID": "x"}), "intelRdt", "not supported")
        self.out("true", linux(intelRdt={}))
        for group, key, value, nothing in (
                ("network", "classID", 0x100001, 0), ("blockIO", "leafWeight", 100, 0),
                ("network", "priorities", [{"name": "lo", "priority": 1}], []),
                ("blockIO", "weightDevice", [{"major": 8, "minor": 0, "weight": 100}], [])):
            self.refused(linux(resources={group: {key: value}}), f"{group}.{key}", "not supported")
            self.out("true", linux(resources={group: {key: nothing}}))

    def ns(self, kind, path):
        def change(c):
            c["linux"]["namespaces"] = [n for n in c["linux"]["namespaces"] if n["type"] != kind]
            c["linux"]["namespaces"].append({"type": kind, "path": path})
        return change

    @unittest.skipUnless(IS_OURS, "a kernel of its own")
    def test_namespaces_of_the_host(self):
        for kind, name in (("mount", "mnt"), ("user", "user"), ("cgroup", "cgroup"), ("time", "time")):
            self.refused(self.ns(kind, f"/proc/1/ns/{name}"), "linux.namespaces", f"host's {kind} namespace")
        for kind in ("pid", "ipc", "uts"):
            self.refused(self.ns(kind, f"/proc/1/ns/{kind}"), "linux.namespaces", "only a container of a pod")
        self.refused(self.ns("network", "/no/such/ns"), "/no/such/ns")
        self.refused(lambda c: c["linux"]["namespaces"].append({"type": "x"}), "namespaces", "unknown")

    def test_no_namespaces_are_listed(self):
        p = self.shell("echo $$", lambda c: c["linux"].update(
            namespaces=[{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]))
        self.assertEqual((p.returncode, p.stdout), (0, "1\n"), p.stderr)


class Mounts(Fields):
    def test_flags(self):
        for options, want in ((["ro"], "ro"), (["nosuid", "nodev", "noexec"], "nosuid,nodev,noexec"),
                              (["noatime"], "noatime"), (["nodiratime"], "nodiratime"),
                              (["ro", "rw"], "rw"), (["noexec", "exec"], "rw"), (["relatime"], "relatime")):
            line = self.out("grep ' /mnt ' /proc/mounts", tmpfs(options)).split()
            for word in want.split(","):
                self.assertIn(word, line[3].split(","), options)
            if "exec" in options:
                self.assertNotIn("noexec", line[3])

    @unittest.skipUnless(IS_OURS, "runc 1.1 gives it the mode of the place")
    def test_options_of_the_file_system(self):
        self.assertEqual(self.out("stat -c %a /mnt; df -k /mnt | tail -1 | awk '{print $2}'",
                                  tmpfs(["size=1m", "mode=1770"])), "1770\n1024\n")

    @unittest.skipUnless(IS_OURS, "newer than runc 1.1")
    def test_recursive_flags(self):
        change = both(self.bind(["rbind", "rro", "rnosuid", "rnoexec"]))
        self.assertIn("ro,nosuid,noexec", self.out("grep ' /m ' /proc/mounts", change))
        self.assertNotEqual(self.shell("touch /m/x", change).returncode, 0)

    def test_propagation(self):
        change = both(self.bind(["rbind", "rshared"]), self.bind(["rbind"], "b", "/n"))
        lines = {l.split()[4]: l for l in self.out("cat /proc/self/mountinfo", change).splitlines()}
        self.assertIn("shared:", lines["/m"])
        self.assertNotIn("shared:", lines["/n"])

    @unittest.skipUnless(IS_OURS, "runc means the host's side of it")
    def test_propagation_of_the_root(self):
        lines = self.out("cat /proc/self/mountinfo", linux(rootfsPropagation="shared")).splitlines()
        self.assertIn("shared:", next(l for l in lines if l.split()[4] == "/"))
        self.refused(linux(rootfsPropagation="sideways"), "rootfsPropagation")

    def test_copy_up(self):
        p = self.shell("cd /etc; cat passwd; stat -c '%a %u' passwd sub sub/run; readlink sub/link; "
                       "echo more >> passwd && echo written; grep -c ' /etc tmpfs' /proc/mounts",
                       tmpfs(["tmpcopyup"], "/etc"))
        self.assertEqual(p.stdout.splitlines(),
                         ["root:x:0:0:root:/root:/bin/sh", "644 0", "750 5", "755 0", "../passwd", "written", "1"],
                         p.stderr)
        self.assertEqual((self.rootfs / "etc/passwd").read_text().count("\n"), 1)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        sub = cls.rootfs / "etc/sub"
        sub.mkdir()
        (sub / "link").symlink_to("../passwd")
        (sub / "run").write_text("x")
        (sub / "run").chmod(0o755)
        sub.chmod(0o750)
        os.chown(sub, 5, 5)
        (cls.rootfs / "etc/passwd").chmod(0o644)

    @unittest.skipUnless(IS_OURS, "")
    def test_what_cannot_be(self):
        self.refused(tmpfs([], kind="ext4"), "mounts[4]", "/mnt")
        self.refused(tmpfs([], kind="nosuchfs"), "mounts[4]")
        self.refused(self.bind(["rbind", "idmap"]), "mapped ids are not supported")
        def mapped(c):
            self.bind(["rbind"])(c)
            c["mounts"][-1]["uidMappings"] = [{"containerID": 0, "hostID": 1, "size": 1}]
        self.refused(mapped, "uidMappings", "not supported")
        self.refused(self.bind(["tmpcopyup", "bind"]), "tmpcopyup is for tmpfs")

    def test_remount(self):
        def remount(c):
            tmpfs([])(c)
            tmpfs(["remount", "ro", "bind"])(c)
        if IS_OURS:
            self.assertIn("ro", self.out("grep ' /mnt ' /proc/mounts | cut -d' ' -f4", remount).split(",")[0])


class Devices(Fields):
    RULES = {"devices": [{"allow": False, "access": "rwm"},
                         {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}]}

    def nodes(self, c):
        c["linux"]["devices"] = [
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/sub/pipe", "type": "p", "fileMode": 0o600},
            {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11},
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]

    def test_nodes(self):
        text = self.out("stat -c '%a %u:%g %F' /dev/mine /dev/sub/pipe; head -c 2 /dev/mine | od -An -tx1",
                        self.nodes)
        self.assertEqual([" ".join(l.split()) for l in text.splitlines()],
                         ["640 3:4 character special file", "600 0:0 fifo", "00 00"])

    def test_rules(self):
        """What is not allowed gives EPERM before anybody asks whether there is such a device."""
        script = ("for d in mine null urandom; do head -c 1 /dev/$d >/dev/null && echo ok; done;"
                  "head -c 1 /dev/kmsg 2>&1 | grep -c 'not permitted'; (: > /dev/fuse) 2>&1 | grep -c 'not permitted';"
                  "mknod /dev/k c 1 11 && echo made; head -c 1 /dev/k 2>&1 | grep -c 'not permitted'")
        p = self.shell(script, both(self.nodes, linux(resources=self.RULES)))
        self.assertEqual(p.stdout.split(), ["ok", "ok", "ok", "1", "1", "made", "1"], p.stderr)

    @unittest.skipUnless(IS_OURS, "words")
    def test_mistakes(self):
        for rule, word in (({"allow": True, "access": "x"}, "access"), ({"allow": True, "type": "z"}, "type"),
                           ({"access": "r"}, "allow")):
            self.refused(linux(resources={"devices": [rule]}), "resources.devices[0]." + word)


@unittest.skipUnless(IS_OURS, "one's own words")
class Features(Fields):
    def features(self):
        return json.loads(self.call("features").stdout)

    def test_versions(self):
        doc = self.features()
        self.assertEqual((doc["ociVersionMin"], doc["ociVersionMax"]), ("1.0.0", "1.2.0"))
        p = self.shell("true", lambda c: c.update(ociVersion="1.2.0"))
        self.assertEqual(p.returncode, 0, p.stderr)
        self.refused(lambda c: c.update(ociVersion="2.0.0"), "ociVersion")

    def test_every_option_is_taken(self):
        """Each name that is promised, on a mount of its own."""
        names = [n for n in self.features()["mountOptions"] if n not in ("bind", "rbind", "remount")]
        def change(c):
            for i, n in enumerate(names):
                tmpfs([n], f"/mnt/{i}")(c)
        text = self.out("grep -c ' /mnt/' /proc/mounts", change)
        self.assertEqual(int(text), len(names))

    def test_every_capability_is_taken(self):
        names = self.features()["linux"]["capabilities"]
        def change(c):
            c["process"]["capabilities"] = {k: names for k in CLASSES}
        text = self.out("grep CapEff /proc/self/status", change)
        self.assertEqual(int(text.split()[1], 16), (1 << len(names)) - 1)

    def test_every_namespace_is_taken(self):
        one = [{"containerID": 0, "hostID": 0, "size": 65536}]
        change = linux(namespaces=[{"type": t} for t in self.features()["linux"]["namespaces"]],
                       uidMappings=one, gidMappings=one)
        self.assertEqual(self.out("echo on", change), "on\n")

    def test_what_it_says_no_to(self):
        lx = self.features()["linux"]
        self.assertEqual([lx[k]["enabled"] for k in ("apparmor", "selinux", "intelRdt")], [False] * 3)
        self.assertFalse(lx["mountExtensions"]["idmap"]["enabled"])
        self.assertTrue(lx["seccomp"]["enabled"])
        self.assertIn("SCMP_ACT_ERRNO", lx["seccomp"]["actions"])


class Ignored(Fields):
    def test_unknown_fields(self):
        def strange(c):
            c["strange"] = {"a": [1]}
            c["process"]["strange"] = c["linux"]["strange"] = True
        self.out("true", strange)

    def test_null_is_absent(self):
        def null(c):
            c["hooks"] = c["annotations"] = c["linux"]["resources"] = c["process"]["rlimits"] = None
        self.out("true", null)


if __name__ == "__main__":
    main()
