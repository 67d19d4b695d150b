#!/usr/bin/env python3
"""A container's network: links of its namespace taken over, and none where there is none."""
import os
import socket
import subprocess
import unittest

from harness import BUSYBOX, IS_OURS, Case, eventually, main
from links import GUEST, GUEST6, HOST, in_namespace, ip, namespace


# Which of what is sent and connected to, routed and not, has no way.
DIRECT = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static int error(int r)
{
    return r < 0 && errno == ENETUNREACH;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        for (int direct = 0; direct < 2; direct++) {
            struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
            int u = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM, 0);
            int t = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            inet_pton(AF_INET, argv[i], &to.sin_addr);
            printf("%d ", error(sendto(u, "x", 1, direct ? MSG_DONTROUTE : 0, (void *)&to, sizeof(to))));
            setsockopt(u, SOL_SOCKET, SO_DONTROUTE, &direct, sizeof(direct));
            setsockopt(c, SOL_SOCKET, SO_DONTROUTE, &direct, sizeof(direct));
            setsockopt(t, SOL_SOCKET, SO_DONTROUTE, &direct, sizeof(direct));
            printf("%d ", error(sendto(u, "x", 1, 0, (void *)&to, sizeof(to))));
            printf("%d ", error(connect(c, (void *)&to, sizeof(to))));
            printf("%d\n", error(connect(t, (void *)&to, sizeof(to))));
            close(u);
            close(c);
            close(t);
        }
    return 0;
}
"""


@unittest.skipUnless(IS_OURS and os.geteuid() == 0, "needs root")
class Network(Case):
    def test_past_the_routes(self):
        """SO_DONTROUTE and MSG_DONTROUTE reach what is on the link, as natively."""
        program = self.rootfs / "bin/direct"
        subprocess.run(["cc", "-O1", "-static", "-x", "c", "-", "-o", str(program)], input=DIRECT, check=True,
                       text=True)
        args = [HOST, "192.0.2.1"]
        with namespace() as tag:
            native = subprocess.run(["ip", "netns", "exec", tag, str(program), *args], check=True,
                                    stdout=subprocess.PIPE, text=True).stdout
            self.assertEqual(native, "0 0 0 0\n0 0 0 0\n0 0 0 0\n1 1 1 1\n")
            self.assertEqual(self.shell("direct " + " ".join(args), in_namespace(tag)).stdout, native)

    def test_without_links(self):
        p = self.shell("ip -o link; cat /proc/net/route | wc -l")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("lo:", p.stdout)
        self.assertNotIn("eth0", p.stdout)

    def test_takes_over_what_is_configured(self):
        with namespace() as tag:
            p = self.shell("ip -o addr; ip route; ip -6 route", in_namespace(tag))
            self.assertEqual(p.returncode, 0, p.stderr)
            for text in (GUEST + "/24", GUEST6 + "/64", f"default via {HOST} dev eth0"):
                self.assertIn(text, p.stdout)
            left = subprocess.run(["ip", "-n", tag, "addr", "show", "dev", "eth0"], check=True,
                                  stdout=subprocess.PIPE, text=True).stdout
            self.assertNotIn("inet", left)

    def test_routes_that_were_taken_away(self):
        """CNI's ptp removes the route that came with the address: all goes by the gateway."""
        with namespace() as tag:
            ip("-n", tag, "route", "flush", "dev", "eth0")
            ip("-n", tag, "route", "add", HOST, "dev", "eth0")
            ip("-n", tag, "route", "add", "default", "via", HOST)
            p = self.shell("ip route; ip -6 route; ip -o addr", in_namespace(tag))
            self.assertIn(f"default via {HOST} dev eth0", p.stdout)
            self.assertIn(f"{HOST} dev eth0", p.stdout)
            self.assertIn(f"{GUEST}/24", p.stdout)
            self.assertNotIn("10.231.7.0/24", p.stdout)
            self.assertIn("fd31:7::/64", p.stdout, "the other family keeps its own")

    def test_answers_from_outside(self):
        with namespace() as tag:
            cid = self.create(["sleep", "100"], in_namespace(tag))
            self.assertEqual(self.call("start", cid).returncode, 0)
            for args in ([GUEST], [GUEST6], ["-s", "9000", GUEST], ["-s", "9000", GUEST6]):
                eventually(lambda a=args: subprocess.run(
                    [BUSYBOX, "ping", "-c", "1", "-W", "1", *a], stdout=subprocess.DEVNULL,
                    check=False).returncode == 0, what=f"ping {args}")
            # Nobody listens: a reset, at once.
            for family, address in ((socket.AF_INET, GUEST), (socket.AF_INET6, GUEST6)):
                with socket.socket(family, socket.SOCK_STREAM) as s:
                    s.settimeout(120)
                    with self.assertRaises(ConnectionRefusedError):
                        s.connect((address, 81))

    def test_packet_sockets(self):
        """arping of the guest: frames of its own out, the answer past the link in."""
        with namespace() as tag:
            def change(config):
                in_namespace(tag)(config)
                for kind in ("bounding", "effective", "permitted"):
                    config["process"]["capabilities"][kind].append("CAP_NET_RAW")
            p = self.shell(f"arping -c 2 -w 20 -I eth0 {HOST}", change)
            self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
            self.assertIn("2 response(s)", p.stdout)

    def test_mode_none(self):
        with namespace() as tag:
            self.write(["/bin/ip", "-o", "addr"], in_namespace(tag))
            p = self.call("--network", "none", "run", "--bundle", str(self.bundle), self.new_id())
            self.assertEqual(p.returncode, 0)
            self.assertNotIn("eth0", p.stdout)

    def test_unknown_mode(self):
        p = self.call("--network", "cable", "list")
        self.assertEqual(p.returncode, 125)
        self.assertIn("--network", p.stderr)


if __name__ == "__main__":
    main()
