#!/usr/bin/env python3
"""Sockets and FIFOs of the host that a mount shows: refused, unless --host-uds=open and
--host-fifo=open say otherwise."""
import os
import select
import socket
import subprocess
import threading
import unittest

from harness import IS_OURS, Case, main

# client TYPE: connects to /m/TYPE; 0, or the number of the line that was not as it should be.
CLIENT = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#define CHECK(x) do { if (!(x)) { printf("line %d: errno %d\n", __LINE__, errno); return 1; } } while (0)
static struct sockaddr_un a = {.sun_family = AF_UNIX};
static int send_fd(int s)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {.iov_base = "x", .iov_len = 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                          .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(c), &s, sizeof(s));
    return (int)sendmsg(s, &m, 0);
}
static int recv_fd(int s, char *buf, size_t size, int *flags, size_t *control_size)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {.iov_base = buf, .iov_len = size};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = sizeof(control)};
    int n = (int)recvmsg(s, &m, 0);
    *flags = m.msg_flags;
    *control_size = m.msg_controllen;
    return n;
}
static int connected(int s, int type)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET}, got;
    struct pollfd p = {.fd = s, .events = POLLIN | POLLOUT};
    struct sockaddr_un peer = {0};
    struct timeval short_time = {.tv_usec = 1000};
    socklen_t len = sizeof(peer);
    size_t control;
    char buf[64];
    int flags, count, ep = epoll_create1(0);
    /* Who watches before there is a connection learns of what comes over it. */
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, s, &ev) == 0);
    CHECK(connect(s, (void *)&a, sizeof(a)) == 0);
    CHECK(connect(s, (void *)&a, sizeof(a)) == -1 && errno == EISCONN);
    CHECK(getpeername(s, (void *)&peer, &len) == 0 && strcmp(peer.sun_path, a.sun_path) == 0);
    CHECK(poll(&p, 1, -1) == 1 && p.revents == POLLOUT);
    CHECK(send_fd(s) == -1 && errno == EINVAL);
    CHECK(recv(s, buf, sizeof(buf), MSG_DONTWAIT) == -1 && errno == EAGAIN);
    CHECK(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &short_time, sizeof(short_time)) == 0);
    CHECK(recv(s, buf, sizeof(buf), 0) == -1 && errno == EAGAIN);
    short_time.tv_usec = 0;
    CHECK(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &short_time, sizeof(short_time)) == 0);
    while (epoll_wait(ep, &got, 1, 0) == 1)
        CHECK((got.events & EPOLLIN) == 0);
    CHECK(send(s, "ping", 4, 0) == 4);
    CHECK(epoll_wait(ep, &got, 1, -1) == 1 && got.events & EPOLLIN);
    CHECK(ioctl(s, FIONREAD, &count) == 0 && count == 4);
    CHECK(recv(s, buf, sizeof(buf), MSG_PEEK) == 4 && memcmp(buf, "pong", 4) == 0);
    CHECK(recv(s, buf, 2, type == SOCK_STREAM ? MSG_WAITALL : MSG_TRUNC) == (type == SOCK_STREAM ? 2 : 4));
    CHECK(type != SOCK_STREAM || recv(s, buf, sizeof(buf), 0) == 2);
    CHECK(write(s, "file", 4) == 4);
    CHECK(recv_fd(s, buf, sizeof(buf), &flags, &control) == 5 && memcmp(buf, "taken", 5) == 0);
    CHECK(flags & MSG_CTRUNC && control == 0);
    CHECK(shutdown(s, SHUT_WR) == 0);
    CHECK(send(s, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    CHECK(read(s, buf, sizeof(buf)) == 3 && memcmp(buf, "end", 3) == 0);
    CHECK(read(s, buf, sizeof(buf)) == 0);
    CHECK(poll(&p, 1, -1) == 1 && p.revents & POLLHUP);
    return 0;
}
static int datagrams(int s)
{
    CHECK(sendto(s, "x", 1, 0, (void *)&a, sizeof(a)) == -1 && errno == ECONNREFUSED);
    CHECK(connect(s, (void *)&a, sizeof(a)) == 0);
    CHECK(send(s, "one", 3, 0) == 3 && send(s, "", 0, 0) == 0 && write(s, "three", 5) == 5);
    CHECK(send_fd(s) == -1 && errno == EINVAL);
    return 0;
}
int main(int argc, char **argv)
{
    int type = !strcmp(argv[1], "stream") ? SOCK_STREAM
               : !strcmp(argv[1], "dgram") ? SOCK_DGRAM : SOCK_SEQPACKET;
    int s = socket(AF_UNIX, type, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "/m/%s", argv[1]);
    if (argc > 2) {
        CHECK(connect(s, (void *)&a, sizeof(a)) == -1);
        printf("%s\n", strerrorname_np(errno));
        return 0;
    }
    return type == SOCK_DGRAM ? datagrams(s) : connected(s, type);
}
"""

# fifo MODE: what the guest does with /m/fifo; 0, or the number of the line that was not as it should be.
FIFO = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>
#define CHECK(x) do { if (!(x)) { printf("line %d: errno %d\n", __LINE__, errno); return 1; } } while (0)
static void on_alarm(int s) { (void)s; }
static int all_of(int fd, const char *text)
{
    char buf[64] = "";
    size_t n = 0;
    while (n < strlen(text)) {
        ssize_t r = read(fd, buf + n, sizeof(buf) - n);
        if (r <= 0)
            return 0;
        n += (size_t)r;
    }
    return strcmp(buf, text) == 0;
}
static int reader(void)
{
    int fd = open("/m/fifo", O_RDONLY);
    char c;
    CHECK(fd >= 0 && all_of(fd, "from the host"));
    CHECK(read(fd, &c, 1) == 0 && lseek(fd, 0, SEEK_CUR) == -1 && errno == ESPIPE);
    return 0;
}
static int writer(void)
{
    int fd = open("/m/fifo", O_WRONLY);
    CHECK(fd >= 0 && write(fd, "from the guest", 14) == 14);
    return 0;
}
static int alone(void)
{
    struct sigaction sa = {.sa_handler = on_alarm};
    const struct itimerval often = {.it_value = {.tv_usec = 20000}, .it_interval = {.tv_usec = 20000}};
    const struct itimerval never = {0};
    struct pollfd p = {.events = POLLIN};
    char c, big[8192] = {0};
    int r, w, n;
    CHECK(open("/m/fifo", O_WRONLY | O_NONBLOCK) == -1 && errno == ENXIO);
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    CHECK(open("/m/fifo", O_RDONLY) == -1 && errno == EINTR);
    CHECK(open("/m/fifo", O_WRONLY) == -1 && errno == EINTR);
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK((r = open("/m/fifo", O_RDONLY | O_NONBLOCK)) >= 0 && read(r, &c, 1) == 0);
    CHECK((w = open("/m/fifo", O_WRONLY)) >= 0 && read(r, &c, 1) == -1 && errno == EAGAIN);
    p.fd = r;
    CHECK(poll(&p, 1, 0) == 0 && write(w, "abc", 3) == 3 && poll(&p, 1, -1) == 1);
    CHECK(ioctl(r, FIONREAD, &n) == 0 && n == 3 && read(r, &c, 1) == 1 && c == 'a');
    fcntl(w, F_SETFL, O_NONBLOCK);
    while (write(w, big, sizeof(big)) > 0)
        ;
    CHECK(errno == EAGAIN);
    close(r);
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(w, "x", 1) == -1 && errno == EPIPE);
    close(w);
    CHECK((w = open("/m/fifo", O_RDWR)) >= 0 && write(w, "z", 1) == 1 && read(w, &c, 1) == 1 && c == 'z');
    return 0;
}
int main(int argc, char **argv)
{
    (void)argc;
    return !strcmp(argv[1], "read") ? reader() : !strcmp(argv[1], "write") ? writer() : alone();
}
"""


class Mounted(Case):
    PROGRAM = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        subprocess.run(["cc", "-O1", "-static", "-x", "c", "-", "-o", str(cls.rootfs / "bin/client")],
                       input=cls.PROGRAM, text=True, check=True)

    def setUp(self):
        super().setUp()
        self.files = self.dir / "files"
        self.files.mkdir()

    def configure(self, args, change=None):
        def both(c):
            c["mounts"].append({"destination": "/m", "type": "bind", "source": str(self.files),
                                "options": ["bind"]})
            if change:
                change(c)
        self.write(["/bin/client", *args], both)
        return ("run", "--bundle", str(self.bundle), self.new_id())

    def client(self, *args, flags, change=None):
        return self.call(*flags, *self.configure(args, change))


@unittest.skipUnless(IS_OURS, "a flag of its own")
class Unix(Mounted):
    PROGRAM = CLIENT

    def listen(self, name, kind):
        s = socket.socket(socket.AF_UNIX, kind)
        self.addCleanup(s.close)
        s.bind(str(self.files / name))
        (self.files / name).chmod(0o777)
        if kind != socket.SOCK_DGRAM:
            s.listen()
        return s

    def client(self, *args, flags=("--host-uds=open",), change=None):
        return super().client(*args, flags=flags, change=change)

    def serve(self, s):
        """One conversation: what the guest said."""
        said = []

        def talk():
            c, _ = s.accept()
            with c:
                said.append(c.recv(100))
                c.send(b"pong")
                said.append(c.recv(100))
                socket.send_fds(c, [b"taken"], [s.fileno()])
                said.append(c.recv(100))
                c.send(b"end")
        t = threading.Thread(target=talk, daemon=True)
        t.start()
        return t, said

    def talks(self, name, kind):
        t, said = self.serve(self.listen(name, kind))
        p = self.client(name)
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, "", ""))
        t.join()
        self.assertEqual(said, [b"ping", b"file", b""])

    def test_stream(self):
        self.talks("stream", socket.SOCK_STREAM)

    def test_packets(self):
        self.talks("seqpacket", socket.SOCK_SEQPACKET)

    def test_datagrams(self):
        s = self.listen("dgram", socket.SOCK_DGRAM)
        p = self.client("dgram")
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, "", ""))
        self.assertEqual([s.recv(100) for _ in range(3)], [b"one", b"", b"three"])

    def test_a_socket_alone_is_mounted(self):
        t, said = self.serve(self.listen("there", socket.SOCK_STREAM))
        (self.files / "stream").touch()
        p = self.client("stream", change=lambda c: c["mounts"].append(
            {"destination": "/m/stream", "type": "bind", "source": str(self.files / "there"),
             "options": ["bind", "ro"]}))
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, "", ""))
        t.join()
        self.assertEqual(said[0], b"ping")

    def test_refusals(self):
        s = self.listen("stream", socket.SOCK_STREAM)
        for flags in ((), ("--host-uds=none",)):
            self.assertEqual(self.client("stream", "refused", flags=flags).stdout, "ECONNREFUSED\n")
        # Of another type.
        os.link(self.files / "stream", self.files / "dgram")
        self.assertEqual(self.client("dgram", "refused").stdout, "EPROTOTYPE\n")
        # Without the right to write to it.
        (self.files / "stream").chmod(0o700)

        def user(c):
            c["process"]["user"] = {"uid": 1000, "gid": 1000}
            c["process"]["capabilities"] = {}
        self.assertEqual(self.client("stream", "refused", change=user).stdout, "EACCES\n")
        # Nobody is there any more.
        s.close()
        self.assertEqual(self.client("stream", "refused").stdout, "ECONNREFUSED\n")
        p = self.call("--host-uds=some", "list")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("--host-uds", p.stderr)


class Fifo(Mounted):
    PROGRAM = FIFO
    FLAGS = ("--host-fifo=open",) if IS_OURS else ()

    def setUp(self):
        super().setUp()
        os.mkfifo(self.files / "fifo", 0o666)

    def test_the_guest_reads(self):
        p = self.popen(*self.FLAGS, *self.configure(["read"]))
        with (self.files / "fifo").open("w") as f:
            f.write("from the host")
        self.assertEqual((p.wait(), p.stdout.read()), (0, ""))

    def test_the_guest_writes(self):
        p = self.popen(*self.FLAGS, *self.configure(["write"]))
        self.assertEqual((self.files / "fifo").read_text(), "from the guest")
        self.assertEqual((p.wait(), p.stdout.read()), (0, ""))

    def test_the_guest_alone(self):
        p = self.client("alone", flags=self.FLAGS)
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, "", ""))

    @unittest.skipUnless(IS_OURS, "a flag of its own")
    def test_refusals(self):
        """Without the flag a FIFO is the sandbox's, and works there as it should."""
        fd = os.open(self.files / "fifo", os.O_RDWR)
        self.addCleanup(os.close, fd)
        p = self.client("alone", flags=())
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, "", ""))
        self.assertEqual(select.select([fd], [], [], 0)[0], [])
        p = self.call("--host-fifo=some", "list")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("--host-fifo", p.stderr)


if __name__ == "__main__":
    main()
