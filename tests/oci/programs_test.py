#!/usr/bin/env python3
"""Unmodified Debian programs in a Debian root file system. DEBIAN_ROOT names one that
tools/make_rootfs has made with the packages of tests/oci/packages."""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import unittest

import python_suite
from harness import IS_OURS, Case, children_of, default_config, kill9, main

DEBIAN_ROOT = os.environ.get("DEBIAN_ROOT", "")
TIMEOUT = 300


@unittest.skipUnless(DEBIAN_ROOT, "DEBIAN_ROOT is not set")
class Programs(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.rootfs = pathlib.Path(DEBIAN_ROOT)

    def configure(self, *args, mounts=(), readonly=True, change=None):
        """A bundle of args in the Debian root, read-only but for /tmp, which is the guest's own."""
        config = default_config(list(args))
        config["root"] = {"path": str(self.rootfs), "readonly": readonly}
        config["process"]["env"] = [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp",
            "LANG=C.UTF-8", "TMPDIR=/tmp"]
        config["mounts"] += [{"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}, *mounts]
        if change:
            change(config)
        (self.bundle / "config.json").write_text(json.dumps(config))

    def debian(self, *args, timeout=TIMEOUT, mounts=(), readonly=True, change=None, **kw):
        """Runs args to their end; only a runtime with an overlay of its own may have a root to write to."""
        self.configure(*args, mounts=mounts, readonly=readonly, change=change)
        return self.call("run", "--bundle", str(self.bundle), self.new_id(), timeout=timeout, **kw)

    def bash(self, script, **kw):
        p = self.debian("bash", "-ec", script, **kw)
        self.assertEqual(p.returncode, 0, p.stdout[-2000:] + p.stderr[-2000:])
        return p.stdout

    def test_busybox_shell_pipes(self):
        p = self.debian("busybox", "sh", "-c",
                        "seq 1 10000 | grep 7 | sort -rn | head -1; sleep 100 & kill %1; wait %1;"
                        "echo $?")
        self.assertEqual(p.stdout.split(), ["9997", "143"], p.stderr)

    def test_bash(self):
        out = self.bash("a=(one two three); echo ${#a[@]} ${a[1]^^}; diff <(echo x) <(echo x) &&"
                        " echo same; coproc cat; echo hi >&${COPROC[1]}; read -u ${COPROC[0]} l;"
                        " echo $l; (exit 3) || echo $?")
        self.assertEqual(out.split("\n")[:4], ["3 TWO", "same", "hi", "3"])

    def test_coreutils(self):
        out = self.bash("cd /tmp; seq 100000 > s; sha256sum < s; split -l 1000 s p.; ls p.* | wc -l;"
                        "cat p.* | cmp - s && echo equal; ln s h; stat -c %h s; mkdir -p a/b/c;"
                        "cp -a a z; rm -r a; find z | wc -l; df /tmp | tail -1 | wc -w; date +%Y")
        words = out.split()
        digest = hashlib.sha256("".join(f"{i}\n" for i in range(1, 100001)).encode()).hexdigest()
        self.assertEqual(words[0], digest)
        self.assertEqual(words[2:6], ["100", "equal", "2", "3"])

    def test_gdb_breakpoints_threads_and_calls(self):
        out = self.bash(r"""cat > /tmp/t.c <<X
#include <pthread.h>
#include <unistd.h>
static int g;
int sum(int a, int b)
{
    g = a;
    return a + b;
}
static void *run(void *p) { sum(3, 4); return p; }
int main(void)
{
    pthread_t t;
    sum(1, 2);
    pthread_create(&t, 0, run, 0);
    pthread_join(t, 0);
    return g == 3 ? 7 : 1;
}
X
gcc -g -o /tmp/t /tmp/t.c -pthread
gdb -batch -ex 'set can-use-hw-watchpoints 0' -ex 'break sum' -ex run -ex bt -ex 'watch g' -ex continue -ex 'delete 2' \
    -ex next -ex finish -ex continue -ex 'info threads' -ex 'print b' -ex delete \
    -ex 'print sum(20, 30)' -ex 'set var g = 3' -ex continue /tmp/t 2>&1""")
        for wanted in (r"Breakpoint 1, .*sum \(a=1, b=2\)", r"#1 .* in main \(\)", r"New value = 1",
                       r"Value returned is \$\d+ = 3", r"hit Breakpoint 1, sum \(a=3, b=4\)",
                       r"\* 2 +Thread ", r"\$\d+ = 4\n", r"\$\d+ = 50\n"):
            self.assertRegex(out, wanted)
        self.assertRegex(out, r"exited with code 07|exited with code 01")

    def test_gdb_attach(self):
        out = self.bash("sleep 100 & sleep 0.2; gdb -batch -p $! -ex 'info registers rip'"
                        " -ex detach 2>&1; kill $!; wait $! || echo $?")
        self.assertIn("rip ", out)
        self.assertIn("detached", out)
        self.assertEqual(out.split()[-1], "143")

    def test_strace(self):
        out = self.bash("strace -f -o /tmp/o sh -c 'ls / | wc -l; exit 3' || echo $?; cat /tmp/o")
        self.assertRegex(out, r"(?m)^\d+\n3\n")
        for wanted in (r"execve\(.*/sh\", .*= 0\n", r"pipe2\(\[3, 4\]", r"execve\(.*/ls\", \[\"ls\"",
                       r"getdents64\(3, ", r"exit_group\(3\) ", r"exited with 3"):
            self.assertRegex(out, wanted)
        out = self.bash("sh -c 'until grep -q \"TracerPid:.[1-9]\" /proc/$$/status; do :; done; sleep 0.1' &"
                        " strace -c -f -p $! 2>&1")
        self.assertRegex(out, "restart_syscall|clock_nanosleep")

    def test_perl(self):
        out = self.bash("perl -e 'my %h; $h{$_ % 7}++ for 1..100000; print join(\",\", map"
                        " {\"$_=$h{$_}\"} sort keys %h), \"\\n\"; my $p = fork; if (!$p) { exit 5 }"
                        " waitpid $p, 0; print $? >> 8, \"\\n\"; print `echo sub`'")
        self.assertEqual(out.split()[1:], ["5", "sub"])

    def test_gcc_and_make(self):
        out = self.bash("""cd /tmp
            for n in a b c d; do echo "int $n(void) { return '$n'; }" > $n.c; done
            cat > main.c <<'X'
#include <stdio.h>
int a(void), b(void), c(void), d(void);
int main(void) { printf("%c%c%c%c\\n", a(), b(), c(), d()); return 0; }
X
            printf 'prog: main.o a.o b.o c.o d.o\\n\\tgcc -o $@ $^\\n%%.o: %%.c\\n\\tgcc -O2 -c $<\\n' > Makefile
            make -j2 >/dev/null && ./prog""")
        self.assertEqual(out, "abcd\n")

    def test_sqlite(self):
        out = self.bash("cd /tmp; sqlite3 t.db \"create table t(a integer primary key, b text);"
                        " with recursive c(x) as (select 1 union all select x + 1 from c where x <"
                        " 10000) insert into t select x, hex(randomblob(20)) from c;"
                        " select count(*), count(distinct b) from t; pragma integrity_check;\"")
        self.assertEqual(out, "10000|10000\nok\n")

    def test_git(self):
        out = self.bash("cd /tmp; git init -q r; cd r; git config user.email a@b; git config"
                        " user.name n; seq 1000 > f; git add f; git commit -qm one; seq 2000 > f;"
                        " git commit -qam two; git clone -q . ../c; git -C ../c log --format=%s;"
                        " git -C ../c fsck 2>&1 | tail -1; wc -l < ../c/f")
        self.assertEqual(out.split()[:2], ["two", "one"])
        self.assertEqual(out.split()[-1], "2000")

    def test_git_with_ten_thousand_objects(self):
        out = self.bash("cd /tmp; git init -q r; (for i in $(seq 5000); do echo blob; echo mark :$i;"
                        " echo 'data <<E'; seq $i $((i + 20)); echo E; done; for c in $(seq 50); do"
                        " echo commit refs/heads/main; echo 'committer n <a@b> 1000000000 +0000';"
                        " echo 'data <<E'; echo m$c; echo E; for f in $(seq 100); do"
                        " echo M 100644 :$((c * 100 - 100 + f)) d$((f % 60))/s$f/f; done; done) |"
                        " git -C r fast-import --quiet; git -C r count-objects -v | grep in-pack;"
                        " git clone -q --no-local -b main r c; git -C c gc -q; git -C c fsck 2>&1 | tail -1;"
                        " git -C c status --short; find c -name f | wc -l; git -C c log --oneline | wc -l")
        out = out.split("\n")
        self.assertGreater(int(out[0].split()[1]), 10000)
        self.assertEqual(out[-3:-1], ["100", "50"])
        self.assertNotIn("error", "".join(out))

    def test_packages_are_built_and_unpacked(self):
        """Fifty packages into a fresh root, as apt has dpkg do it."""
        out = self.bash("mkdir -p /tmp/d && cd /tmp/d; for i in $(seq 50); do mkdir -p p$i/DEBIAN"
                        " p$i/usr/share/p$i/sub; printf 'Package: p%s\\nVersion: 1\\nArchitecture: all\\n"
                        "Maintainer: n <a@b>\\nDescription: d\\n' $i > p$i/DEBIAN/control;"
                        " for f in $(seq 20); do seq $f > p$i/usr/share/p$i/sub/$f; done;"
                        " ln -s sub/1 p$i/usr/share/p$i/link; ln p$i/usr/share/p$i/sub/2"
                        " p$i/usr/share/p$i/hard; chmod 4755 p$i/usr/share/p$i/sub/3;"
                        " dpkg-deb -Zgzip -b p$i >/dev/null; done; mkdir -p r/var/lib/dpkg/updates"
                        " r/var/lib/dpkg/info; touch r/var/lib/dpkg/status;"
                        " dpkg --root=/tmp/d/r --log=/dev/null --force-not-root --force-script-chrootless"
                        " -i *.deb >/dev/null; dpkg --root=/tmp/d/r -l | grep -c ^ii;"
                        " for i in 1 25 50; do diff -r p$i/usr r/usr/ | grep -v '^Only in r' | wc -l;"
                        " stat -c '%a %h' r/usr/share/p$i/sub/3 r/usr/share/p$i/hard; done;"
                        " find r/usr -type f | wc -l", timeout=600)
        self.assertEqual(out.split(), ["50"] + ["0", "4755", "1", "644", "2"] * 3 + ["1050"])

    # A writer in $db that says what it has committed, and waiting for the fiftieth time.
    SQLITE_WRITER = """writer() {
            sqlite3 $db "pragma journal_mode=$1; create table t(a integer primary key, b)" >/dev/null
            for i in $(seq 100000); do echo "insert into t values($i, hex(randomblob(500))); select 'at ' || $i;"; done |
                sqlite3 -cmd 'pragma synchronous=full' $db > $said & }
        fifty() { until [ $(wc -l < $said 2>/dev/null || echo 0) -ge 50 ]; do sleep 0.01; done; }
        whole() { told=$(tail -1 $said | grep -o '[0-9]*$' || tail -2 $said | head -1 | grep -o '[0-9]*$')
            sqlite3 $db 'pragma integrity_check; select count(*) from t' > /tmp/out
            head -1 /tmp/out; test $(tail -1 /tmp/out) -ge $told && echo kept; }
        """
    SQLITE_MODES = ("delete", "truncate", "persist", "wal")

    def host_folder(self, name="shared"):
        """A folder of the host that the guest has as /mnt."""
        (self.dir / name).mkdir(exist_ok=True)
        return {"destination": "/mnt", "type": "bind", "source": str(self.dir / name), "options": ["bind"]}

    def test_sqlite_is_killed(self):
        """What was committed before is there, and the file is whole, in every mode of its journal."""
        for place in ("/tmp", "/mnt", *(("/root",) if IS_OURS else ())):
            with self.subTest(place):
                out = self.bash(f"cd {place}; {self.SQLITE_WRITER} for m in {' '.join(self.SQLITE_MODES)}; do db=k$m.db;"
                                " said=at$m; writer $m; fifty; kill -9 $(pidof sqlite3); wait || true; whole; done",
                                mounts=[self.host_folder()], readonly=place != "/root")
                self.assertEqual(out.split(), ["ok", "kept"] * 4)

    def test_sqlite_and_the_sandbox_are_killed(self):
        for mode in self.SQLITE_MODES:
            with self.subTest(mode):
                mounts = [self.host_folder(mode)]
                names = f"cd /mnt; db=k.db; said=at; {self.SQLITE_WRITER}"
                self.configure("bash", "-ec", f"{names} writer {mode}; fifty; echo fifty; wait", mounts=mounts)
                p = self.popen("run", "--bundle", str(self.bundle), self.new_id())
                self.assertEqual(p.stdout.readline(), "fifty\n")
                for pid in [p.pid, *children_of(p.pid)]:
                    kill9(pid)
                p.wait(TIMEOUT)
                self.assertEqual(self.bash(names + " whole", mounts=mounts).split(), ["ok", "kept"])

    def test_find_and_du_as_outside(self):
        def native(*args):
            return subprocess.run(args, cwd=self.rootfs, stdout=subprocess.PIPE, check=True,
                                  stderr=subprocess.DEVNULL, text=True).stdout
        script = ("find . -mindepth 1 -xdev -path ./proc -prune -o -path ./dev -prune -o -path ./tmp -prune -o -printf"
                  " '%p %y %m %s %b %n %U:%G %T@ %l\\n' | LC_ALL=C sort | md5sum; du -a usr etc var | LC_ALL=C sort | md5sum;"
                  " du -s --apparent-size -b usr etc; find usr -type d | wc -l")
        self.assertEqual(self.bash("cd /; " + script), native("bash", "-c", script))

    def test_tar_keeps_attributes(self):
        out = self.bash("cd /tmp; mkdir -p x/y; echo t > x/y/f; truncate -s 1M x/sparse; mkfifo x/pipe;"
                        " ln -s y/f x/l; ln x/y/f x/h; chown 12:34 x/y; chmod 2751 x/y; touch -d @1000 x/y/f;"
                        " python3 -c \"import os; os.setxattr('x/y/f', 'user.k', b'v');"
                        " os.setxattr('x/y', 'trusted.t', b'w')\" || true;"
                        " tar --xattrs --xattrs-include='*' --acls --selinux -S -cf a.tar x; mkdir z; tar --xattrs"
                        " --xattrs-include='*' --acls --selinux -C z -xf a.tar; python3 -c \"import os;"
                        " print(os.getxattr('z/x/y/f', 'user.k').decode())\"; cd z;"
                        " stat -c '%A %u:%g %Y' x/y x/y/f | cut -d' ' -f1,2; stat -c '%F %b' x/pipe x/sparse;"
                        " test x/h -ef x/y/f && readlink x/l")
        self.assertEqual(out.splitlines(), ["v", "drwxr-s--x 12:34", "-rw-r--r-- 0:0", "fifo 0",
                                            "regular file 0", "y/f"])

    def test_layers_of_an_image_are_unpacked_and_mounted(self):
        """As an image tool does it inside: archives, .wh. names that become whiteouts, an overlay over them all."""
        def admin(config):
            caps = config["process"]["capabilities"]
            config["process"]["capabilities"] = {kind: [*names, "CAP_SYS_ADMIN"] for kind, names in caps.items()}
        out = self.bash(r"""mkdir -p /tmp/i && cd /tmp/i && mkdir -p 1/d/e 1/gone 1/opaque 2/opaque 2/d 3/d u w m o
            seq 100 > 1/d/f; ln 1/d/f 1/d/hard; ln -s f 1/d/link; echo x > 1/gone/x; echo old > 1/opaque/old; chmod 4755 1/d/f
            touch 2/.wh.gone 2/opaque/.wh..wh..opq; echo new > 2/opaque/new; touch 2/d/.wh.link; echo again > 3/d/link
            for l in 1 2 3; do tar -C $l -cf $l.tar .; mkdir l$l; tar -C l$l -xf $l.tar; done
            python3 - <<'X'
import os, stat
for top in ("l1", "l2", "l3"):
    for folder, _, names in os.walk(top):
        for n in (n for n in names if n.startswith(".wh.")):
            os.unlink(f"{folder}/{n}")
            if n == ".wh..wh..opq":
                os.setxattr(folder, "trusted.overlay.opaque", b"y")
            else:
                os.mknod(f"{folder}/{n[4:]}", stat.S_IFCHR, 0)
X
            mount -t overlay o -o lowerdir=l3:l2:l1,upperdir=u,workdir=w m
            (cd m; find . | LC_ALL=C sort | xargs; cat d/link opaque/new; stat -c '%a %h' d/f; echo more >> d/hard
             rm -r opaque; mkdir opaque; rm d/link; mv d/e d/g || echo no)
            tar --xattrs --xattrs-include='trusted.*' -C u -cf - . | tar --xattrs --xattrs-include='trusted.*' -C o -xf -
            umount m; mount -t overlay o -o lowerdir=o:l3:l2:l1 m
            cd m; find . | LC_ALL=C sort | xargs; tail -1 d/hard; wc -l < d/f; stat -c '%F %t:%T' ../o/d/link""",
                        change=admin)
        self.assertEqual(out.splitlines(), [
            ". ./d ./d/e ./d/f ./d/hard ./d/link ./opaque ./opaque/new", "again", "new", "4755 2",
            ". ./d ./d/f ./d/g ./d/hard ./opaque", "more", "100", "character special file 0:0"])

    def test_rsync_copies_everything(self):
        """rsync -aHAX finds nothing left to do, and what it made is the same to others as well."""
        out = self.bash("cd /tmp; mkdir -p x/d/e; for i in $(seq 200); do seq $i > x/d/$i; done; ln x/d/1 x/d/e/hard;"
                        " ln -s ../d/2 x/d/e/link; mkfifo x/pipe; truncate -s 1M x/sparse; chown 12:34 x/d/3;"
                        " chmod 4751 x/d/4; touch -d @1000 x/d/5; python3 -c \"import os, struct;"
                        " os.setxattr('x/d/6', 'user.k', b'v'); e = ((1, 7, -1), (2, 6, 1000), (4, 5, -1),"
                        " (16, 6, -1), (32, 0, -1)); os.setxattr('x/d/7', 'system.posix_acl_access',"
                        " struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *x) for x in e))\";"
                        " rsync -aHAXS x/ y/; rsync -aHAXSnci --delete x/ y/; test y/d/1 -ef y/d/e/hard; readlink y/d/e/link;"
                        " stat -c '%A %u:%g %Y %F' y/d/3 y/d/4 y/d/5 y/pipe | sed 's/ [0-9]\\{6,\\} / /';"
                        " stat -c %b y/sparse; python3 -c \"import os; print(os.getxattr('y/d/6', 'user.k').decode(),"
                        " os.getxattr('y/d/7', 'system.posix_acl_access') =="
                        " os.getxattr('x/d/7', 'system.posix_acl_access'))\"; rm x/d/8; date > x/d/9;"
                        " rsync -aHAX --delete x/ y/; diff -r --no-dereference x/d y/d && echo same")
        self.assertEqual(out.splitlines(), [
            "../d/2", "-rw-r--r-- 12:34 regular file", "-rwsr-x--x 0:0 regular file",
            "-rw-r--r-- 0:0 1000 regular file", "prw-r--r-- 0:0 fifo", "0", "v True", "same"])

    def test_fio_finds_what_it_wrote(self):
        for engine, depth in (("psync", 1), ("pvsync2", 1), ("libaio", 8), ("io_uring", 8), ("mmap", 1)):
            with self.subTest(engine):
                out = self.bash("mkdir /tmp/f; fio --name=v --directory=/tmp/f --size=8M --bs=4k --rw=randrw"
                                f" --iodepth={depth} --ioengine={engine} --verify=crc32c --verify_fatal=1 --do_verify=1 --thread"
                                " --minimal --terse-version=3 | cut -d';' -f1,5")
                self.assertEqual(out, "3;0\n")

    def test_access_lists_are_copied(self):
        out = self.bash("cd /tmp; mkdir -p x/y && touch x/f; cat > acl.py <<'END'\n"
                        "import os, struct, sys\n"
                        "e = ((1, 7, -1), (2, 6, 1000), (4, 5, -1), (16, 6, -1), (32, 0, -1))\n"
                        "v = struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *x) for x in e)\n"
                        "os.setxattr('x/f', 'system.posix_acl_access', v)\n"
                        "os.setxattr('x/y', 'system.posix_acl_default', v)\n"
                        "END\n"
                        "python3 acl.py; touch x/y/g; mkdir x/y/d; tar --acls -cf a.tar x; mkdir z;"
                        " tar --acls -C z -xf a.tar; cp -a x c; for d in x z/x c; do (cd $d; stat -c %A f y y/g y/d;"
                        " python3 -c \"import os; [print(n, sorted((k, os.getxattr(n, k).hex()) for k in"
                        " os.listxattr(n))) for n in ('f', 'y', 'y/g', 'y/d')]\") | tee $RANDOM.out | md5sum; done;"
                        " cat *.out | head -4; ls -l x/f | cut -c1-11")
        lines = out.splitlines()
        self.assertEqual(len(set(lines[:3])), 1, out)
        self.assertEqual(lines[3:], ["-rwxrw----", "drwxr-xr-x", "-rw-rw----", "drwxrw----", "-rwxrw----+"])

    def test_tar_and_find(self):
        count = subprocess.run(["find", str(self.rootfs / "usr")], stdout=subprocess.PIPE,
                               check=True).stdout.count(b"\n")
        out = self.bash("find /usr | wc -l; tar cf - /usr/bin 2>/dev/null | tar tf - | wc -l;"
                        "ls -A /usr/bin | wc -l")
        found, packed, there = map(int, out.split())
        self.assertEqual(found, count)
        self.assertEqual(packed, there + 1)

    def test_many_threads(self):
        out = self.bash("python3 -c \"\n"
                        "import threading\n"
                        "gate, lock, total = threading.Barrier(501), threading.Lock(), [0]\n"
                        "def run():\n"
                        "    gate.wait()\n"
                        "    for _ in range(20):\n"
                        "        with lock: total[0] += 1\n"
                        "ts = [threading.Thread(target=run) for _ in range(500)]\n"
                        "for t in ts: t.start()\n"
                        "gate.wait()\n"
                        "for t in ts: t.join()\n"
                        "print(total[0])\"")
        self.assertEqual(out, "10000\n")

    def test_node_workers(self):
        out = self.bash("""cat > /tmp/w.js <<'X'
const {Worker} = require("worker_threads");
const shared = new SharedArrayBuffer(4), sum = new Int32Array(shared);
const body = `const a = new Int32Array(require("worker_threads").workerData);
  for (let i = 0; i < 50000; i++) Atomics.add(a, 0, 1);`;
let ended = 0;
for (let i = 0; i < 4; i++)
  new Worker(body, {eval: true, workerData: shared}).on("exit", () => {
    if (++ended == 4) console.log(sum[0]); });
X
            node /tmp/w.js""")
        self.assertEqual(out, "200000\n")

    def test_java_compiles_and_runs_threads(self):
        out = self.bash("""cd /tmp; cat > T.java <<'X'
import java.util.*; import java.util.concurrent.*;
public class T { public static void main(String[] a) throws Exception {
  ExecutorService e = Executors.newFixedThreadPool(8); long sum = 0; List<Future<Long>> l = new ArrayList<>();
  for (int i = 0; i < 64; i++) { final int k = i; l.add(e.submit(() -> { long x = 0;
    for (int j = 0; j < 20000; j++) x += (j * k) % 7; return x; })); }
  for (Future<Long> f : l) sum += f.get();
  e.shutdown(); System.out.println(sum > 0 ? "done" : "wrong"); } }
X
            javac T.java && java T""")
        self.assertEqual(out, "done\n")

    def test_npm(self):
        out = self.bash("""mkdir -p /tmp/p/dep && cd /tmp/p && npm init -y >/dev/null
            echo '{"name": "dep", "version": "1.2.3", "main": "i.js"}' > dep/package.json
            echo 'module.exports = n => n * 2' > dep/i.js
            npm install --offline --no-audit --no-fund ./dep >/dev/null
            npm pkg set scripts.go='node -e "console.log(require(\\"dep\\")(21))"'
            npm run -s go; npm ls --depth=0 | grep -o 'dep@1.2.3'""")
        self.assertEqual(out.split(), ["42", "dep@1.2.3"])

    def test_npm_unpacks_a_thousand_files(self):
        out = self.bash("""mkdir -p /tmp/p/package/lib && cd /tmp/p && npm init -y >/dev/null
            echo '{"name": "big", "version": "1.0.0", "main": "i.js"}' > package/package.json
            for i in $(seq 1000); do echo "module.exports = $i" > package/lib/$i.js; done
            echo 'let n = 0; for (let i = 1; i <= 1000; i++) n += require("./lib/" + i); module.exports = n' > package/i.js
            tar czf big.tgz package
            npm install --offline --no-audit --no-fund ./big.tgz >/dev/null
            node -p 'require("big")'; diff -r package node_modules/big && find node_modules/big -type f | wc -l""")
        self.assertEqual(out.split(), ["500500", "1002"])

    def test_go_compiles_and_runs_goroutines(self):
        out = self.bash("""mkdir /tmp/g && cd /tmp/g && cat > m.go <<'X'
package main
import ("fmt"; "net"; "sync"; "time")
func main() {
  var w sync.WaitGroup; c := make(chan int, 10)
  for i := 0; i < 1000; i++ { w.Add(1); go func(n int) { defer w.Done(); c <- n }(i) }
  go func() { w.Wait(); close(c) }()
  sum := 0; for n := range c { sum += n }
  l, e := net.Listen("tcp", "127.0.0.1:0"); if e != nil { panic(e) }
  go func() { x, _ := l.Accept(); x.Write([]byte("hello")); x.Close() }()
  x, e := net.Dial("tcp", l.Addr().String()); if e != nil { panic(e) }
  b := make([]byte, 9); n, _ := x.Read(b); time.Sleep(time.Millisecond)
  fmt.Println(sum, string(b[:n])) }
X
            GOFLAGS=-mod=mod GO111MODULE=off GOCACHE=/tmp/gc go run m.go""")
        self.assertEqual(out, "499500 hello\n")

    def test_rust_program(self):
        out = self.bash("mkdir /tmp/r; cd /tmp/r; for i in 1 2 3 4 5 6 7 8; do seq $((i * 1000)) > f$i; done;"
                        " rg -j4 -c '^7' | sort | head -1; rg --files | wc -l; rg -l '^8000$'")
        self.assertEqual(out.split(), ["f1:111", "8", "f8"])

    def test_perl_forks(self):
        out = self.bash("""perl -e 'use strict; my $sum = 0;
            for my $round (1..20) { my @p; for my $n (1..10) { pipe(my $r, my $w);
              my $pid = fork // die; if (!$pid) { close $r; print $w $n * $round; close $w; exit $n }
              close $w; push @p, [$pid, $r, $n] }
              for (@p) { $sum += readline($_->[1]); waitpid $_->[0], 0; die if $? >> 8 != $_->[2] } }
            print "$sum\\n"'""")
        self.assertEqual(out, f"{55 * 210}\n")

    def test_bash_job_control(self):
        out = self.bash("""cat > /tmp/j <<'X'
sleep 100 | cat &
jobs
kill -STOP %1; sleep 1; jobs
bg %1 >/dev/null; sleep 1; jobs
kill %1; wait %1; echo ended $?
(trap 'exit 7' INT; kill -INT $BASHPID); echo inner $?
exit
X
            script -qec 'bash --norc -i' /dev/null < /tmp/j | tr -d '\r' 2>&1""")
        self.assertRegex(out, r"\[1\]\+ +Running +sleep 100 \| cat &")
        self.assertRegex(out, r"\[1\]\+ +Stopped +sleep 100 \| cat")
        self.assertIn("ended 143", out)
        self.assertIn("inner 7", out)

    def test_postgres(self):
        out = self.bash("""mkdir /tmp/pg; chown postgres /tmp/pg; cd /tmp/pg
            as() { runuser -u postgres -- "$@"; }
            PATH=$PATH:/usr/lib/postgresql/15/bin
            as initdb -D data >log
            as pg_ctl -D data -o "-c unix_socket_directories=/tmp -c listen_addresses=" -w -l server.log start >>log
            as psql -qAth /tmp -c "create table t(a int); insert into t select
                generate_series(1, 1000); select sum(a) from t" postgres
            as pg_ctl -D data stop >>log""")
        self.assertEqual(out, "500500\n")

    def test_ipcs(self):
        out = self.bash("id=$(ipcmk -M 4096 -p 0640 | grep -o '[0-9]*$'); ipcs -m | grep -c 640;"
                        "ipcrm -m $id; ipcmk -S 3 >/dev/null; ipcs -s | tail -n 2 | head -1 | awk"
                        " '{print $5}'; ipcmk -Q >/dev/null; ipcs -q | grep -c 644; ipcrm -a;"
                        "ipcs | grep -c 0x || true")
        self.assertEqual(out.split(), ["1", "3", "1", "0"])

    def test_stress(self):
        """One of each kind at once, for a few seconds; whole classes take their time by hand."""
        kinds = ("cpu", "vm", "mmap", "fork", "pthread", "futex", "sem", "sem-sysv", "shm-sysv", "msg",
                 "mq", "pipe", "switch", "yield", "timer", "sigq", "sigpipe", "poll", "eventfd",
                 "clone", "vfork", "mremap", "madvise", "sock", "udp", "dentry", "rename", "flock")
        args = [w for k in kinds for w in ("--" + k, "1")]
        p = self.debian("stress-ng", *args, "--vm-bytes", "64m", "--mmap-bytes", "32m", "--verify",
                        "--temp-path", "/tmp", "-t", "8", timeout=300)
        text = p.stdout + p.stderr
        # A receiver that waits for a second on a busy machine has met no fault.
        self.assertEqual([l for l in text.splitlines() if " fail: " in l and
                          not re.search("mq_timedreceive failed, errno=110", l)], [], text[-2000:])
        self.assertEqual(p.returncode, 0, text[-2000:])

    def python_suite(self, name):
        """One module of python_suite.py, which runs all of them."""
        self.root.mkdir(exist_ok=True)
        r = python_suite.module(self.rootfs, name, TIMEOUT, self.root, None)
        self.assertEqual(python_suite.unexpected(r, python_suite.known()), [], r["text"][-3000:])
        self.assertRegex(r["text"], r"Ran \d+ tests|Tests result:")

    def test_python_os(self):
        self.python_suite("test_os")

    def test_python_subprocess(self):
        self.python_suite("test_subprocess")

    def test_python_threading(self):
        self.python_suite("test_threading")

    def test_python_signal(self):
        self.python_suite("test_signal")

    def test_python_mmap(self):
        self.python_suite("test_mmap")


if __name__ == "__main__":
    main()
