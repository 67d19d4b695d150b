#!/usr/bin/env python3
"""Servers and clients of Debian over a link: one side in a sandbox and the other on the host, each
way round. DEBIAN_ROOT names a root file system made with the packages of tests/oci/packages."""
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import unittest

from harness import IS_OURS, Case, children_of, default_config, eventually, kill9, main
from links import GUEST, HOST, Wire, in_namespace, namespace

DEBIAN_ROOT = os.environ.get("DEBIAN_ROOT", "")
# What goes over the bad wire, each way; 1024 is the whole of it.
MEBIBYTES = os.environ.get("MEBIBYTES", "8")
TIMEOUT = 300 + 2 * int(MEBIBYTES)
PATH = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:"
        "/usr/lib/postgresql/15/bin")
CAPS = ["CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL",
        "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_CHROOT"]

# A web server's files and settings, made below /tmp/n; $1: the address it listens on.
NGINX = r"""
mkdir -p /tmp/n/www; cd /tmp/n; echo hello > www/i.html
head -c 3000000 /dev/urandom > www/big; sha256sum < www/big > www/sum
openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=x 2>/dev/null
cat > c.conf <<X
worker_processes 2; pid /tmp/n/pid; error_log /tmp/n/e; user root; daemon off;
events { worker_connections 512; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_timeout 65;
client_body_temp_path /tmp/n/b; proxy_temp_path /tmp/n/p; fastcgi_temp_path /tmp/n/f;
uwsgi_temp_path /tmp/n/u; scgi_temp_path /tmp/n/s;
server { listen $1:8080 reuseport deferred; root /tmp/n/www; }
server { listen $1:8443 ssl; ssl_certificate /tmp/n/c.pem; ssl_certificate_key /tmp/n/k.pem;
root /tmp/n/www; } }
X
exec nginx -p /tmp/n -c /tmp/n/c.conf
"""
BROWSE = r"""
test "$(curl -s http://$1:8080/i.html)" = hello
curl -s http://$1:8080/i.html http://$1:8080/i.html http://$1:8080/i.html | sort | uniq -c
test "$(curl -s http://$1:8080/big | sha256sum)" = "$(curl -s http://$1:8080/sum)"
test "$(curl -sk https://$1:8443/big | sha256sum)" = "$(curl -s http://$1:8080/sum)"
wrk --timeout 60s -t1 -c20 -d1s http://$1:8080/i.html > /tmp/w; cat /tmp/w; ! grep -E 'Socket|Non' /tmp/w
"""

POSTGRES = r"""
mkdir /tmp/pg; chown postgres /tmp/pg; cd /tmp
run() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
run initdb -D /tmp/pg -A trust >/dev/null; echo "host all all all trust" >> /tmp/pg/pg_hba.conf
exec setpriv --reuid=postgres --regid=postgres --clear-groups postgres -D /tmp/pg \
    -c unix_socket_directories=/tmp -c listen_addresses=$1
"""
PGBENCH = r"""
for i in $(seq 1000); do psql -h $1 -U postgres -c 'select 1' postgres >/dev/null 2>&1 && break; sleep 0.2; done
pgbench -h $1 -U postgres -i -s 1 postgres 2>&1 | tail -1
pgbench -h $1 -U postgres -c 4 -t 50 postgres 2>&1 | grep 'failed transactions: 0'
"""

SSHD = r"""
mkdir -p /tmp/s /run/sshd; cd /tmp/s; ssh-keygen -q -t ed25519 -N '' -f host; echo "$2" > keys
exec /usr/sbin/sshd -D -e -o ListenAddress=$1 -o Port=2222 -o HostKey=/tmp/s/host -o UsePAM=no \
    -o AuthorizedKeysFile=/tmp/s/keys -o StrictModes=no -o PidFile=none
"""
SSH = r"""
cd /tmp; o="-i /tmp/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
for i in $(seq 1000); do ssh -p 2222 $o root@$1 true 2>/dev/null && break; sleep 0.2; done
test "$(ssh -p 2222 $o root@$1 'echo from $(hostname); exit 0')"
head -c 5000000 /dev/urandom > f
test "$(ssh -p 2222 $o root@$1 sha256sum < f)" = "$(sha256sum < f)"
"""

MEMCACHED = r"""exec memcached -u nobody -p 11211 -l $1"""
MEMCACHE = r"""python3 -c "
import socket, sys, time
for i in range(1000):
    try:
        s = socket.create_connection(('$1', 11211)); break
    except OSError:
        time.sleep(0.2)
f = s.makefile('rwb')
for i in range(200):
    v = (b'%d' % i) * 100
    f.write(b'set k%d 0 0 %d\r\n%s\r\n' % (i, len(v), v)); f.flush()
    assert f.readline() == b'STORED\r\n'
for i in range(200):
    f.write(b'get k%d\r\n' % i); f.flush()
    assert f.readline().startswith(b'VALUE'); assert f.readline() == (b'%d' % i) * 100 + b'\r\n'
    assert f.readline() == b'END\r\n'
" """

DNS = r"""exec dnsmasq -k -p 53 -a $1 -z -R -h -u root --pid-file= --address=/www.test/192.0.2.7 \
    --txt-record=long.test,$(printf 'x%.0s' $(seq 200)),$(printf 'y%.0s' $(seq 200))"""
DIG = r"""
for i in $(seq 1000); do dig +short +time=1 +tries=1 @$1 www.test >/dev/null && break; sleep 0.2; done
test "$(dig +short @$1 www.test)" = 192.0.2.7; test "$(dig +tcp +short @$1 www.test)" = 192.0.2.7
dig +short @$1 long.test txt | grep -q yyy
"""

SINK = r"""exec python3 -c "
import hashlib, socket
l = socket.create_server(('$1', 7000)); c, _ = l.accept(); h = hashlib.sha256(); n = 0
while b := c.recv(1 << 16):
    h.update(b); n += len(b)
c.sendall(h.hexdigest().encode()); c.close()
" """
SOURCE = r"""exec python3 -c "
import hashlib, os, socket, time
for i in range(1000):
    try:
        s = socket.create_connection(('$1', 7000)); break
    except OSError:
        time.sleep(0.2)
h = hashlib.sha256(); left = $2 << 20
while left:
    b = os.urandom(1 << 16); h.update(b); s.sendall(b); left -= len(b)
s.shutdown(socket.SHUT_WR)
assert s.makefile().read() == h.hexdigest()
" """

# Who closes a connection with SO_LINGER comes back when the other side has begun to read, or when
# the time is over.
SLOW = r"""exec python3 -c "
import socket, threading, time
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(('$1', 7001)); l.listen()
got = 0
def read(c):
    global got
    time.sleep(0.5); got = 1
    while b := c.recv(1 << 16):
        got += len(b)
c, _ = l.accept(); t = threading.Thread(target=read, args=[c]); t.start()
d, _ = l.accept(); d.sendall(b'%d ' % min(got, 1)); t.join(); d.sendall(b'%d' % (got - 1)); d.close()
e, _ = l.accept(); time.sleep(100)
" """
LINGER = r"""exec python3 -c "
import socket, struct, time
def call():
    for i in range(1000):
        try:
            return socket.create_connection(('$1', 7001))
        except OSError:
            time.sleep(0.2)
def stuff(seconds):
    s = call(); s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, seconds))
    n = 0
    for i in range(5):
        try:
            while True:
                n += s.send(b'x' * 65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            time.sleep(0.01)
    return s, n
s, n = stuff(1000); s.close()
with call() as t:
    assert t.makefile().read() == '1 %d' % n
s, n = stuff(1); t = time.monotonic(); s.close(); assert time.monotonic() - t > 0.9
" """

# What a listener with TCP_DEFER_ACCEPT accepts, as told over a connection of its own.
DEFER = r"""exec python3 -c "
import socket
o = socket.create_server(('$1', 7001)); l = socket.create_server(('$1', 7002), backlog=8)
l.setsockopt(socket.SOL_TCP, socket.TCP_DEFER_ACCEPT, 1000)
c, _ = o.accept(); c.settimeout(None)
for line in c.makefile():
    said = 'done'
    if line == 'brief\n':
        l.setsockopt(socket.SOL_TCP, socket.TCP_DEFER_ACCEPT, 1)
    elif line == 'close\n':
        l.close()
    else:
        l.setblocking(line == 'accept\n')
        try:
            a, _ = l.accept(); said = 'silent'; said = str(a.recv(9, socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
    c.sendall(said.encode() + b'\n')
" """
DEFERRED = r"""exec python3 -c "
import socket, struct, time
def call(port):
    for i in range(1000):
        try:
            return socket.create_connection(('$1', port))
        except OSError:
            time.sleep(0.2)
c = call(7001); answers = c.makefile()
def ask(what):
    c.sendall(what.encode() + b'\n'); return answers.readline().strip()
def check(what, expected):
    said = ask(what); assert said == expected, (what, said)
a = call(7002); r = call(7002)
r.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); r.close()
check('try', 'done'); a.sendall(b'x'); check('accept', str(b'x')); check('try', 'done')
call(7002).close(); check('accept', str(b''))
many = [call(7002) for i in range(9)]; check('try', 'done')
for m in many: m.sendall(b'm')
for m in many: check('accept', str(b'm'))
ask('brief'); b = call(7002); check('accept', 'silent')
d = call(7002); ask('close'); d.sendall(b'x')
try:
    d.recv(1); assert False
except ConnectionResetError:
    pass
" """

# Who may be too far away by its TTL is not heard: neither its SYN nor its bytes, which come when they
# are sent again with more.
NEAR = r"""exec python3 -c "
import socket
l = socket.create_server(('$1', 7001)); l.setsockopt(socket.IPPROTO_IP, 21, 200)
c, _ = l.accept(); assert c.getsockopt(socket.IPPROTO_IP, 21) == 200
c.sendall(b'r'); c.recv(1)
try:
    c.recv(1, socket.MSG_DONTWAIT); c.sendall(b'early')
except BlockingIOError:
    c.sendall(b'silent')
c.sendall(c.recv(1)); c.recv(1)
" """
FAR = r"""exec python3 -c "
import socket, time
def call(ttl, seconds):
    for i in range(1000):
        s = socket.socket(); s.settimeout(seconds); s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        try:
            s.connect(('$1', 7001)); return s
        except TimeoutError:
            return None
        except OSError:
            time.sleep(0.2)
assert call(199, 1.5) is None
s = call(200, None); assert s.recv(1) == b'r'
s.sendall(b'1'); s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 199); s.sendall(b'x')
assert s.recv(6, socket.MSG_WAITALL) == b'silent'
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 200); assert s.recv(1) == b'x'
" """

# Urgent data, given and taken by either side.
ECHO = """
import socket, sys
l = socket.create_server((sys.argv[1], 7001), backlog=16)
while True:
    c, _ = l.accept()
    c.sendall(c.recv(100))
    c.close()
"""


def echoed(address):
    try:
        with socket.create_connection((address, 7001), timeout=120) as c:
            c.sendall(b"hello")
            return c.recv(100) == b"hello"
    except OSError:
        return False


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def flood(address, count):
    """Opens connections from neighbours that are not there."""
    to = socket.inet_aton(address)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        for i in range(count):
            source = to[:3] + bytes([3 + i % 250])
            tcp = struct.pack("!HHIIBBHHH", 1024 + i // 250, 7001, i, 0, 5 << 4, 2, 65535, 0, 0)
            pseudo = source + to + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp))
            tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
            ip_head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0, source, to)
            s.sendto(ip_head + tcp, (address, 0))


IGMP, ICMP6 = 2, 58


def query(group):
    """An Ethernet frame: a router of the newest version asks who is in which group, to be answered at once."""
    if ":" not in group:
        igmp = struct.pack("!BBH4xBBH", 0x11, 1, 0, 2, 125, 0)
        igmp = igmp[:2] + struct.pack("!H", checksum(igmp)) + igmp[4:]
        head = struct.pack("!BBHHHBBH", 0x46, 0xc0, 36, 0, 0, 1, IGMP, 0) + socket.inet_aton(HOST)
        head += socket.inet_aton("224.0.0.1") + b"\x94\x04\0\0"
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        return bytes.fromhex("01005e000001") + bytes(6) + b"\x08\x00" + head + igmp
    ends = socket.inet_pton(socket.AF_INET6, "fe80::1") + socket.inet_pton(socket.AF_INET6, "ff02::1")
    mld = struct.pack("!BBHHH16xBBH", 130, 0, 0, 1, 0, 2, 125, 0)
    mld = mld[:2] + struct.pack("!H", checksum(ends + struct.pack("!II", len(mld), ICMP6) + mld)) + mld[4:]
    head = struct.pack("!IHBB", 6 << 28, 8 + len(mld), 0, 1) + ends + bytes([ICMP6, 0, 5, 2, 0, 0, 1, 0])
    return bytes.fromhex("333300000001") + bytes(6) + b"\x86\xdd" + head + mld


def older(frame):
    """The same question as the version before asks it."""
    v4 = frame[12] == 8
    start, ends = (38, b"") if v4 else (62, frame[22:54])
    body = frame[start:start + (8 if v4 else 24)]
    total = ends + (b"" if v4 else struct.pack("!II", len(body), ICMP6)) + body[:2] + bytes(2) + body[4:]
    body = body[:2] + struct.pack("!H", checksum(total)) + body[4:]
    head = bytearray(frame[:start])
    if v4:
        head[17] = 32
        head[24:26] = bytes(2)
        head[24:26] = struct.pack("!H", checksum(bytes(head[14:38])))
    else:
        head[19] = 32
    return bytes(head) + body


def report(frame):
    """(type, kind of the record, group, destination) of a report in a frame with right checksums, or None."""
    if frame[12:14] == b"\x08\x00" and frame[23] == IGMP:
        size = (frame[14] & 15) * 4
        head, body = frame[14:14 + size], frame[14 + size:14 + struct.unpack("!H", frame[16:18])[0]]
        if checksum(head) or checksum(body) or frame[22] != 1 or head[20:24] != b"\x94\x04\0\0":
            return None
        to = socket.inet_ntoa(frame[30:34])
        return (body[0], body[8], socket.inet_ntoa(body[12:16]), to) if body[0] == 0x22 else \
            (body[0], 0, socket.inet_ntoa(body[4:8]), to)
    if frame[12:14] == b"\x86\xdd" and frame[20] == 0 and frame[54] == ICMP6:
        body = frame[62:54 + struct.unpack("!H", frame[18:20])[0]]
        if checksum(frame[22:54] + struct.pack("!II", len(body), ICMP6) + body) or frame[21] != 1:
            return None
        to, at = socket.inet_ntop(socket.AF_INET6, frame[38:54]), 12 if body[0] == 143 else 8
        group = socket.inet_ntop(socket.AF_INET6, body[at:at + 16])
        return body[0], body[8] if at == 12 else 0, group, to
    return None


def memory(pid):
    """KiB that the descendants of pid have, by their share."""
    total = 0
    for child in children_of(pid):
        text = pathlib.Path(f"/proc/{child}/smaps_rollup").read_text()
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1))
    return total


URGENT = r"""
import array, fcntl, os, select, signal, socket, sys, termios, time
SIOCATMARK = 0x8905
signals = 0
def on_signal(*_):
    global signals
    signals += 1
signal.signal(signal.SIGURG, on_signal)
def mark(s):
    a = array.array('i', [0]); fcntl.ioctl(s, SIOCATMARK, a); return a[0]
def give(s):
    assert s.recv(1) == b'r'
    s.send(b'ab'); s.send(b'cU', socket.MSG_OOB); s.send(b'de'); assert s.recv(1) == b'd'
def exactly(s, n):
    got = b''
    while len(got) < n:
        b = s.recv(n - len(got)); assert b; got += b
    return got
def take(s, inline):
    before = signals
    fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid())
    s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
    try:
        s.recv(1, socket.MSG_OOB); assert False
    except OSError as e:
        assert e.errno == 22, e
    s.send(b'r')
    p = select.poll(); p.register(s, select.POLLPRI); assert p.poll(60000) == [(s.fileno(), select.POLLPRI)]
    for i in range(6000):
        if signals > before: break
        time.sleep(0.01)
    assert signals == before + 1, signals
    assert exactly(s, 3) == b'abc' and mark(s) == 1
    if inline:
        assert exactly(s, 3) == b'Ude'
    else:
        assert s.recv(1, socket.MSG_OOB) == b'U' and exactly(s, 2) == b'de'
    assert mark(s) == 0; s.send(b'd')
if sys.argv[1] == 'server':
    l = socket.create_server((sys.argv[2], 7002)); s, _ = l.accept()
    give(s); take(s, 0); give(s); take(s, 1)
    s.recv(1)
else:
    for i in range(1000):
        try:
            s = socket.create_connection((sys.argv[2], 7002)); break
        except OSError:
            time.sleep(0.2)
    take(s, 0); give(s); take(s, 1); give(s)
"""

# Joins a group on eth0, takes a datagram sent there, and leaves.
MEMBER = r"""exec python3 -c "
import socket, struct
v6 = ':' in '$1'
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 7003)); group = socket.inet_pton(s.family, '$1'); link = socket.if_nametoindex('eth0')
level, add, drop = (41, 20, 21) if v6 else (0, 35, 36)
r = group + (struct.pack('i', link) if v6 else struct.pack('4xi', link))
s.setsockopt(level, add, r); assert s.recv(100) == b'hello'; s.setsockopt(level, drop, r)
assert s.recv(100) == b'bye'; print('done', flush=True)
" """

NODE = r"""
cat > /tmp/s.js <<X
require('http').createServer((q, r) => { let n = 0; q.on('data', d => n += d.length);
  q.on('end', () => r.end('ok ' + n + '\n')); }).listen(8081, '$1');
X
exec node /tmp/s.js
"""
ASK_NODE = r"""
head -c 200000 /dev/zero > /tmp/z
for i in $(seq 1000); do curl -s http://$1:8081/ >/dev/null && break; sleep 0.2; done
test "$(curl -s --data-binary @/tmp/z http://$1:8081/)" = "ok 200000"
wrk --timeout 60s -t1 -c20 -d1s http://$1:8081/ > /tmp/w; cat /tmp/w; ! grep -E 'Socket|Non' /tmp/w
"""


@unittest.skipUnless(IS_OURS and DEBIAN_ROOT and os.geteuid() == 0, "needs root and DEBIAN_ROOT")
class Servers(Case):
    network = "sandbox"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.rootfs = pathlib.Path(DEBIAN_ROOT)

    def guest(self, tag, script, *args):
        """A shell in a sandbox that has the far end of the link."""
        config = default_config(["bash", "-ec", script, "sh", *args])
        config["root"] = {"path": str(self.rootfs), "readonly": True}
        config["process"]["env"] = [PATH, "HOME=/tmp", "LANG=C.UTF-8"]
        config["process"]["noNewPrivileges"] = False
        for kind in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][kind] = CAPS
        for place in ("/dev/shm", "/run"):
            config["mounts"].append({"destination": place, "type": "tmpfs", "source": "tmpfs"})
        if tag:
            in_namespace(tag)(config)
        bundle = self.dir / f"bundle{self.serial}"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(config))
        return self.runtime("--network", self.network, "run", "--bundle", str(bundle),
                            self.new_id())

    def native(self, script, *args):
        """The same on the host: in a mount namespace of its own, from the same files."""
        root = self.rootfs
        mounts = (f"mount --rbind /dev {root}/dev; mount -t proc proc {root}/proc;"
                  f"mount -t tmpfs tmpfs {root}/tmp; mount -t tmpfs tmpfs {root}/run;"
                  f"chmod 1777 {root}/tmp; root={root}; shift 0;"
                  "exec env -i HOME=/tmp LANG=C.UTF-8 " + PATH +
                  f" chroot {root} bash -ec \"$0\" sh \"$@\"")
        return ["unshare", "--mount", "--propagation", "private", "--pid", "--fork",
                "--kill-child", "sh", "-ec", mounts, script, *args]

    def start(self, command):
        log = open(self.dir / f"log{self.serial}", "w+", encoding="utf-8")
        self.addCleanup(log.close)
        p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                             stderr=subprocess.STDOUT)

        def stop():
            # --kill-child is forgotten by those that change their user.
            for pid in [p.pid, *children_of(p.pid)]:
                kill9(pid)
            p.wait()
        self.addCleanup(stop)
        return log

    def finish(self, command, log=None):
        p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT, check=False)
        if log:
            log.seek(0)
        self.assertEqual(p.returncode, 0, p.stdout[-3000:] + (log.read()[-2000:] if log else ""))
        return p.stdout

    def both_ways(self, server, client, server_args=(), client_args=()):
        with self.subTest("server in the sandbox"), namespace() as tag:
            log = self.start(self.guest(tag, server, GUEST, *server_args))
            self.finish(self.native(client, GUEST, *client_args), log)
            self.doCleanups()
        self.tmp_again()
        with self.subTest("client in the sandbox"), namespace() as tag:
            log = self.start(self.native(server, HOST, *server_args))
            self.finish(self.guest(tag, client, HOST, *client_args), log)
            self.doCleanups()
        self.tmp_again()

    def tmp_again(self):
        self.setUp()

    def test_redis(self):
        self.both_ways(
            "exec redis-server --save '' --bind $1 --protected-mode no --dir /tmp",
            "for i in $(seq 1000); do redis-cli -h $1 ping 2>/dev/null | grep -q PONG && break;"
            " sleep 0.2; done; redis-cli -h $1 set a 1; test $(redis-cli -h $1 get a) = 1;"
            "redis-benchmark -h $1 -q -n 5000 -c 50 -t set,get,lrange_100;"
            "redis-benchmark -h $1 -q -n 20000 -c 20 -P 16 -t set,get")

    def test_nginx(self):
        wait = "for i in $(seq 1000); do curl -s http://$1:8080/i.html && break; sleep 0.2; done;"
        self.both_ways(NGINX, wait + BROWSE)

    def test_postgres(self):
        self.both_ways(POSTGRES, PGBENCH)

    def test_ssh(self):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                        str(self.dir / "key")], check=True)
        private, public = ((self.dir / n).read_text() for n in ("key", "key.pub"))
        self.both_ways(SSHD, "umask 77; echo \"$2\" > /tmp/key; " + SSH, [public], [private])

    def test_memcached(self):
        self.both_ways(MEMCACHED, MEMCACHE)

    def test_dns(self):
        self.both_ways(DNS, DIG)

    def test_linger(self):
        self.both_ways(SLOW, LINGER)

    def test_defer_accept(self):
        self.both_ways(DEFER, DEFERRED)

    def test_least_ttl(self):
        self.both_ways(NEAR, FAR)

    def test_urgent(self):
        script = "exec python3 -c \"$3\" $2 $1"
        self.both_ways(script, script, ["server", URGENT], ["client", URGENT])

    def test_syn_flood(self):
        """Half-open connections of nobody: others still get in, and what is remembered is bounded."""
        with namespace() as tag:
            self.start(self.guest(tag, "exec python3 -c \"$2\" $1", GUEST, ECHO))
            for _ in range(3):
                eventually(lambda: echoed(GUEST), what="the server")
                flood(GUEST, 20000)
            before = memory(os.getpid())
            flood(GUEST, 20000)
            self.assertTrue(echoed(GUEST))
            self.assertLess(memory(os.getpid()) - before, 8 << 10)
            self.doCleanups()

    def multicast(self, group, question, joined, answer, left):
        """What a guest reports that joins a group, is asked, gets a datagram there and leaves."""
        with namespace() as tag, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
            s.bind((tag, 3))
            s.settimeout(TIMEOUT)

            def wait(what):
                eventually(lambda: report(s.recv(2000)) == what, TIMEOUT, f"report {what}")

            def say(text, to, family=socket.AF_INET6 if ":" in group else socket.AF_INET):
                with socket.socket(family, socket.SOCK_DGRAM) as u:
                    link = struct.pack("i", socket.if_nametoindex(tag))
                    if family == socket.AF_INET6:
                        u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link)
                    else:
                        u.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + link)
                    u.sendto(text, (to, 7003))

            log = self.start(self.guest(tag, MEMBER, group))
            for _ in range(2):
                wait(joined)
            s.send(question)
            wait(answer)
            say(b"hello", group)
            for _ in range(2):
                wait(left)
            say(b"no", group)
            say(b"bye", GUEST, socket.AF_INET)
            eventually(lambda: log.seek(0) or "done" in log.read(), TIMEOUT, "the guest's end")
            self.doCleanups()
        self.tmp_again()

    def test_multicast(self):
        """Routers, and switches that listen in, hear of groups; what is sent to these comes in."""
        four, six = "239.1.2.3", "ff05::1:3"
        for group, to, routers, types in ((four, "224.0.0.22", "224.0.0.2", (0x22, 0x16, 0x17)),
                                          (six, "ff02::16", "ff02::2", (143, 131, 132))):
            joined, new, old = ((t, kind, group, where) for t, kind, where in (
                (types[0], 4, to), (types[0], 2, to), (types[1], 0, group)))
            with self.subTest(group):
                self.multicast(group, query(group), joined, new, (types[0], 3, group, to))
            with self.subTest(group, version="older"):
                self.multicast(group, older(query(group)), joined, old, (types[2], 0, group, routers))

    def test_node(self):
        self.both_ways(NODE, ASK_NODE)

    def test_iperf(self):
        # A server that still cleans up after one test says that it is busy.
        client = ("t() { for i in $(seq 1000); do iperf3 -c \"$@\" -t 1 >/tmp/o 2>&1 && return; sleep 0.2; done;"
                  "cat /tmp/o; return 1; }; t $1; t $1 -R; t $1 -u -b 20M; t $1 -u -b 20M -R")
        self.both_ways("exec iperf3 -s -B $1", client)

    def test_host_network(self):
        """Sockets of the namespace itself."""
        self.network = "host"
        self.test_redis()
        self.test_nginx()
        self.test_dns()
        self.test_node()

    def test_resolv_conf(self):
        """The guest's resolver asks whom /etc/resolv.conf names."""
        with namespace() as tag:
            self.start(self.native(DNS, HOST))
            script = ("for i in $(seq 1000); do getent ahostsv4 www.test && break; sleep 0.2; done")
            (self.dir / "resolv.conf").write_text(f"nameserver {HOST}\n")
            command = self.guest(tag, script)
            config = pathlib.Path(command[command.index("--bundle") + 1]) / "config.json"
            c = json.loads(config.read_text())
            c["mounts"].append({"destination": "/etc/resolv.conf", "type": "bind",
                                "source": str(self.dir / "resolv.conf"), "options": ["bind", "ro"]})
            config.write_text(json.dumps(c))
            self.assertIn("192.0.2.7", self.finish(command))

    def test_two_sandboxes(self):
        with Wire(bad=False) as wire:
            log = self.start(self.guest(wire.namespace("b"), SINK, "10.231.9.1"))
            self.finish(self.guest(wire.namespace("a"), SOURCE, "10.231.9.1", "8"), log)

    def test_bad_wire(self):
        """Packets are lost, doubled, held back and put out of order: no byte differs."""
        for sink_in_sandbox in (True, False):
            with self.subTest(sink_in_sandbox=sink_in_sandbox), Wire() as wire:
                inside, outside = (SINK, SOURCE) if sink_in_sandbox else (SOURCE, SINK)
                there = "10.231.9.2" if sink_in_sandbox else "10.231.9.1"
                guest = self.guest(wire.namespace("a"), inside, there, MEBIBYTES)
                native = ["ip", "netns", "exec", wire.namespace("b"),
                          *self.native(outside, there, MEBIBYTES)]
                log = self.start(guest if sink_in_sandbox else native)
                self.finish(native if sink_in_sandbox else guest, log)
                self.assertGreater(wire.lost(), 0)

    def test_ping_ip_and_ss(self):
        with namespace() as tag:
            out = self.finish(self.guest(
                tag, f"ping -c 2 -i 0.2 {HOST}; python3 -m http.server 8000 & sleep 0.1;"
                "for i in $(seq 1000); do ss -ltn | grep -q :8000 && break; sleep 0.1; done;"
                "ss -ltnp; ip addr; ip route add 203.0.113.0/24 via " + HOST + "; ip route;"
                "ip route del 203.0.113.0/24; ip neigh; kill %1"))
            for text in ("0% packet loss", ":8000", GUEST + "/24", "203.0.113.0/24 via " + HOST):
                self.assertIn(text, out)

    def test_capture(self):
        """tcpdump's ring sees what passes the link."""
        with namespace() as tag:
            out = self.finish(self.guest(
                tag, f"tcpdump -Uni eth0 -c 2 icmp 2>&1 & sleep 0.5; for i in $(seq 1000); do"
                f" ping -c 1 -W 1 {HOST} >/dev/null; kill -0 $! 2>/dev/null || break; done;"
                " wait $!"))
            self.assertIn(f"{GUEST} > {HOST}: ICMP echo request", out)
            self.assertIn(f"{HOST} > {GUEST}: ICMP echo reply", out)


if __name__ == "__main__":
    main()
