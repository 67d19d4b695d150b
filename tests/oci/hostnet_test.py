#!/usr/bin/env python3
"""--network=host: sockets of the sandbox are those of its network namespace. The namespaces are made
here, so that nothing of this machine's own network is touched."""
import os
import pathlib
import re
import shlex
import socket
import subprocess
import unittest

from harness import BUSYBOX, IS_OURS, Case, children_of, eventually, main
from links import GUEST, GUEST6, HOST, in_namespace, ip, namespace

BUILD = os.environ.get("BUILD_DIR", "")
SUITE = pathlib.Path(__file__).resolve().parent.parent / "conformance/run"
FAMILIES = ("tcp", "tcpend", "udp", "inet", "netlink", "netsys", "poll", "unixmsg")
# What sockets of the host do not do; docs/network.md says why.
REFUSED = {"inet.socket_options", "inet.zerocopy_of_streams", "inet.zerocopy_of_datagrams",  # SO_ZEROCOPY
           "tcp.congestion_control",  # /proc/sys lists what the sandbox's own have
           "netlink.diag_of_one"}  # NETLINK_SOCK_DIAG does not see them


@unittest.skipUnless(IS_OURS and os.geteuid() == 0, "needs root")
class HostNetwork(Case):
    def runtime(self, *args):
        return super().runtime("--network", "host", *args)

    def inside(self, tag, script):
        p = self.shell(script, in_namespace(tag))
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        return p.stdout

    def started(self, tag, script, change=None):
        def both(config):
            in_namespace(tag)(config)
            if change:
                change(config)
        cid = self.create(["sh", "-c", script], both)
        self.assertEqual(self.call("start", cid).returncode, 0)
        return cid

    def test_links_are_the_namespaces(self):
        with namespace() as tag:
            out = self.inside(tag, "ip -o addr; ip route; ip -6 route; ifconfig eth0")
            for text in (GUEST + "/24", GUEST6 + "/64", f"default via {HOST}", "inet addr:" + GUEST):
                self.assertIn(text, out)
            native = subprocess.run(["ip", "netns", "exec", tag, BUSYBOX, "ip", "-o", "addr"],
                                    check=True, stdout=subprocess.PIPE, text=True).stdout
            self.assertEqual(self.inside(tag, "ip -o addr"), native)

    def test_changes_are_refused(self):
        with namespace() as tag:
            def admin(config):
                in_namespace(tag)(config)
                for kind in ("bounding", "effective", "permitted"):
                    config["process"]["capabilities"][kind].append("CAP_NET_ADMIN")
            for command in ("ip addr add 192.0.2.1/24 dev eth0", "ip link set eth0 down",
                            "ip route add 192.0.2.0/24 dev eth0", "ifconfig eth0 192.0.2.2"):
                p = self.shell(command, admin)
                self.assertNotEqual(p.returncode, 0, command)
                self.assertIn("not permitted", p.stderr, command)

    def test_both_directions(self):
        """A low port of the namespace, and a server outside of it."""
        with namespace() as tag:
            self.started(tag, "echo from inside | nc -l -p 81; echo again | nc -l -p 82")
            for port, text in ((81, b"from inside\n"), (82, b"again\n")):
                def ask(port=port):
                    try:
                        with socket.create_connection((GUEST, port), timeout=120) as s:
                            s.shutdown(socket.SHUT_WR)
                            return s.makefile("rb").read()
                    except OSError:
                        return None
                self.assertEqual(eventually(ask, what=f"port {port}"), text)
            with socket.create_server((HOST, 0)) as server:
                p = self.popen("run", "--bundle", str(self.bundle), self.prepared(
                    tag, f"echo hello | nc {HOST} {server.getsockname()[1]}"))
                server.settimeout(120)
                c, peer = server.accept()
                with c:
                    self.assertEqual(peer[0], GUEST)
                    self.assertEqual(c.recv(100), b"hello\n")
                self.assertEqual(p.wait(120), 0)

    def prepared(self, tag, script):
        self.write(["sh", "-c", script], in_namespace(tag))
        return self.new_id()

    def test_low_ports_take_the_capability(self):
        with namespace() as tag:
            def without(config):
                in_namespace(tag)(config)
                caps = config["process"]["capabilities"]
                for kind in caps:
                    caps[kind] = [c for c in caps[kind] if c != "CAP_NET_BIND_SERVICE"]
            p = self.shell("nc -l -p 81", without)
            self.assertNotEqual(p.returncode, 0)
            self.assertIn("ermission denied", p.stderr)

            def not_effective(config):
                in_namespace(tag)(config)
                config["process"]["user"] = {"uid": 1000, "gid": 1000}
                config["process"]["capabilities"]["effective"] = []
                config["process"]["capabilities"]["permitted"] = []
            p = self.shell("nc -l -p 81", not_effective)
            self.assertIn("ermission denied", p.stderr, "the broker has it, and the guest does not")

    def test_raw_and_packet_sockets_are_refused(self):
        with namespace() as tag:
            def raw(config):
                in_namespace(tag)(config)
                for kind in ("bounding", "effective", "permitted"):
                    config["process"]["capabilities"][kind].append("CAP_NET_RAW")
            p = self.shell(f"arping -c 1 -w 5 -I eth0 {HOST}", raw)
            self.assertNotEqual(p.returncode, 0)
            self.assertIn("not permitted", p.stderr)

    def test_its_own_namespace(self):
        """One that nobody named is new and has its loopback."""
        p = self.shell("ip -o addr; ping -c 1 -W 5 127.0.0.1 || true; echo x | nc -l -p 80 &"
                       " for i in $(seq 50); do nc 127.0.0.1 80 </dev/null && break; sleep 0.1; done")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("127.0.0.1/8", p.stdout)
        self.assertNotIn("eth0", p.stdout)
        self.assertIn("x\n", p.stdout)

    def test_the_broker(self):
        """What it is, and that it goes with the sandbox."""
        with namespace() as tag:
            self.write(["sh", "-c", "echo ready; sleep 1000"], in_namespace(tag))
            p = self.popen("run", "--bundle", str(self.bundle), self.new_id())
            self.assertEqual(p.stdout.readline(), "ready\n")
            names = {}
            for pid in children_of(p.pid):
                names.setdefault(pathlib.Path(f"/proc/{pid}/comm").read_text().strip(), pid)
            pid = names["runsc-broker"]
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            fields = dict(re.findall(r"^(\w+):[ \t]*(.*)$", status, re.M))
            self.assertEqual(fields["Uid"].split(), ["65534"] * 4)
            self.assertEqual(fields["Groups"].strip(), "")
            bind = 1 << 10
            self.assertEqual([int(fields[f], 16) for f in
                              ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
                             [0, bind, 0, 0, 0])
            self.assertEqual((fields["NoNewPrivs"], fields["Seccomp"]), ("1", "2"))
            self.assertEqual(os.listdir(f"/proc/{pid}/root"), [])
            self.assertEqual(os.stat(f"/proc/{pid}/ns/net").st_ino,
                             os.stat(f"/run/netns/{tag}").st_ino)
            links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            self.assertEqual({link.split(":")[0] for link in links}, {"/dev/null", "socket"})
            os.kill(names["runsc-sentry"], 9)
            eventually(lambda: not os.path.exists(f"/proc/{pid}/root"), what="the broker's end")

    def test_other_modes_have_none(self):
        self.write(["sh", "-c", "echo ready; sleep 1000"])
        p = subprocess.Popen(Case.runtime(self, "--network", "none", "run", "--bundle",
                                          str(self.bundle), self.new_id()),
                             stdout=subprocess.PIPE, text=True)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        self.addCleanup(p.stdout.close)
        self.assertEqual(p.stdout.readline(), "ready\n")
        names = {pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
                 for pid in children_of(p.pid)}
        self.assertNotIn("runsc-broker", names)

    @unittest.skipUnless(BUILD, "BUILD_DIR has no conformance programs")
    def test_conformance(self):
        """What Linux does, by the same programs; each container has a namespace of its own."""
        runtime = shlex.join(self.runtime())
        p = subprocess.run([str(SUITE), "--build", BUILD + "/tests/conformance", "--runtime",
                            runtime, "--families", ",".join(FAMILIES), "--no-rootfs"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           check=False)
        failed = set(re.findall(r"^not ok \d+ - (\S+)", p.stdout, re.M))
        passed = len(re.findall(r"^ok \d+ - ", p.stdout, re.M))
        self.assertLessEqual(failed, REFUSED, p.stdout[-4000:])
        self.assertGreater(passed, 100, p.stdout[-4000:])

    def test_unknown_namespace(self):
        def nowhere(config):
            for ns in config["linux"]["namespaces"]:
                if ns["type"] == "network":
                    ns["path"] = "/run/netns/nobody-has-this"
        p = self.shell("true", nowhere)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("network namespace", p.stderr)

    def test_delete_leaves_nothing(self):
        with namespace() as tag:
            cid = self.started(tag, "sleep 1000")
            ip("-n", tag, "link", "set", "lo", "up")
            self.assertEqual(self.call("delete", "--force", cid).returncode, 0)


if __name__ == "__main__":
    main()
