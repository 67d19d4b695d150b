#!/usr/bin/env python3
"""inotify(7) of a guest on files of the host: what others do there is told, once, and what the guest
does itself is told once, too."""
import collections
import os
import subprocess

from harness import Case, main

# Prints the events of the files named after its first argument, one a line. When "go" is created it
# changes files itself, if the first argument is "change", and many, beside what else happens, if it is
# "many"; when "end" is created it ends.
WATCHER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#define CHANGES (IN_ALL_EVENTS & ~(IN_ACCESS | IN_OPEN | IN_CLOSE_NOWRITE))
static const struct { unsigned bit; const char *name; } names[] = {
    {IN_MODIFY, "modify"}, {IN_ATTRIB, "attrib"}, {IN_CLOSE_WRITE, "close_write"},
    {IN_MOVED_FROM, "moved_from"}, {IN_MOVED_TO, "moved_to"}, {IN_CREATE, "create"},
    {IN_DELETE, "delete"}, {IN_DELETE_SELF, "delete_self"}, {IN_MOVE_SELF, "move_self"},
    {IN_IGNORED, "ignored"}, {IN_Q_OVERFLOW, "overflow"}};
static void change(void)
{
    int fd = open("/m/own", O_CREAT | O_RDWR, 0600);
    for (int i = 0; i < 3; i++) {
        (void)!write(fd, "12345", 5);
        (void)!ftruncate(fd, 3);
    }
    (void)!fallocate(fd, 0, 0, 100);
    fchmod(fd, 0640);
    fsetxattr(fd, "user.x", "1", 1, 0);
    close(fd);
    rename("/m/own", "/m/own2");
    link("/m/own2", "/m/link");
    symlink("text", "/m/symlink");
    mkdir("/m/dir", 0700);
    chmod("/m/dir", 0755);
    (void)!truncate("/m/own2", 1);
    utimensat(AT_FDCWD, "/m/own2", NULL, 0);
    renameat2(AT_FDCWD, "/m/own2", AT_FDCWD, "/m/dir", RENAME_EXCHANGE);
    rename("/m/link", "/m/symlink");
    rmdir("/m/own2");
    unlink("/m/dir");
    unlink("/m/symlink");
}
/* The second writer of a file is another than its first; half of them are gone at once. */
static void change_many(void)
{
    char a[64], b[64];
    for (int i = 0; i < 200; i++) {
        snprintf(a, sizeof(a), "/m/own-%d", i);
        snprintf(b, sizeof(b), "/m/own2-%d", i);
        int fd = open(a, O_CREAT | O_RDWR, 0600);
        (void)!write(fd, "x", 1);
        fchmod(fd, 0640);
        close(fd);
        fd = open(a, O_WRONLY | O_APPEND);
        (void)!write(fd, "y", 1);
        close(fd);
        rename(a, b);
        if (i % 2)
            unlink(b);
    }
    mkdir("/m/own", 0700);
}
int main(int argc, char **argv)
{
    char buf[65536];
    unsigned first_cookie = 0;
    int in = inotify_init1(0);
    for (int i = 2; i < argc; i++)
        if (inotify_add_watch(in, argv[i], CHANGES) != i - 1)
            return 1;
    printf("ready\n");
    fflush(stdout);
    if (!strcmp(argv[1], "many") && fork() == 0) {
        change_many();
        return 0;
    }
    for (;;) {
        fflush(stdout);
        long n = read(in, buf, sizeof(buf));
        if (n <= 0)
            return 2;
        for (char *p = buf; p < buf + n;) {
            struct inotify_event *e = (void *)p;
            p += sizeof(*e) + e->len;
            const char *name = e->len ? e->name : ".";
            printf("%d ", e->wd);
            for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (e->mask & names[i].bit)
                    printf("%s ", names[i].name);
            printf("%s%s", e->mask & IN_ISDIR ? "dir " : "", name);
            if (e->mask & IN_MOVED_FROM)
                first_cookie = e->cookie;
            printf(e->mask & IN_MOVED_TO && e->cookie != first_cookie && strcmp(argv[1], "many") ? " unpaired\n" : "\n");
            if (!strcmp(name, "go") && e->mask & IN_CREATE && !strcmp(argv[1], "change")) {
                change();
                printf("changed\n");
            }
            if (!strcmp(name, "end") && e->mask & IN_CREATE)
                return 0;
        }
    }
}
"""

OWN = """create own
modify own
attrib own
close_write own
moved_from own
moved_to own2
create link
create symlink
create dir dir
attrib dir dir
modify own2
attrib own2
moved_from own2
moved_to dir
moved_from dir dir
moved_to dir own2
moved_from link
moved_to symlink
delete dir own2
delete dir
delete symlink
""".splitlines()


class Watched(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        subprocess.run(["cc", "-O1", "-static", "-x", "c", "-", "-o", str(cls.rootfs / "bin/watcher")],
                       input=WATCHER, text=True, check=True)

    def watch(self, mode, *files):
        """A guest that watches files of self.files, which it has as /m: once it does."""
        self.files = self.dir / "shared"
        self.files.mkdir(exist_ok=True)
        self.write(["/bin/watcher", mode, *files], lambda c: c["mounts"].append(
            {"destination": "/m", "type": "bind", "source": str(self.files), "options": ["bind"]}))
        p = self.popen("run", "--bundle", str(self.bundle), self.new_id())
        self.assertEqual(p.stdout.readline(), "ready\n")
        return p

    def events(self, p):
        (self.files / "end").touch()
        text = p.stdout.read()
        self.assertEqual(p.wait(), 0, text)
        lines = text.splitlines()
        self.assertEqual(lines[-1], "1 create end")
        return lines[:-1]

    def test_what_others_do(self):
        p = self.watch("only", "/m")
        a, b = self.files / "a", self.files / "b"
        a.write_text("text")
        a.rename(b)
        b.chmod(0o600)
        (self.files / "dir").mkdir()
        os.link(b, self.files / "c")
        os.symlink("x", self.files / "l")
        with b.open("a") as f:
            f.write("more")
        b.unlink()
        (self.files / "dir").rmdir()
        self.assertEqual([x[2:] for x in self.events(p)], [
            "create a", "modify a", "close_write a", "moved_from a", "moved_to b", "attrib b",
            "create dir dir", "create c", "create l", "modify b", "close_write b", "delete b",
            "delete dir dir"])

    def test_what_the_guest_does(self):
        p = self.watch("change", "/m")
        (self.files / "go").mkdir()
        self.assertEqual(p.stdout.readline(), "1 create dir go\n")
        self.assertEqual(p.stdout.readline(), "changed\n")
        self.assertEqual([x[2:] for x in self.events(p)], OWN)

    def test_a_file(self):
        self.files = self.dir / "shared"
        self.files.mkdir()
        f = self.files / "f"
        f.write_text("old")
        p = self.watch("only", "/m", "/m/f")
        with f.open("a") as out:
            out.write("new")
        f.chmod(0o600)
        f.rename(self.files / "g")
        own = []
        while not own or own[-1] != "2 move_self .":
            own += [x for x in [p.stdout.readline().rstrip()] if x.startswith("2")]
        (self.files / "g").unlink()
        own += [x for x in self.events(p) if x.startswith("2")]
        self.assertEqual([x[2:] for x in own], ["modify .", "close_write .", "attrib .", "move_self .",
                                                "attrib .", "delete_self .", "ignored ."])

    def test_a_directory_goes(self):
        self.files = self.dir / "shared"
        inner = self.files / "inner"
        inner.mkdir(parents=True)
        (self.files / "other").mkdir()
        p = self.watch("only", "/m", "/m/inner", "/m/other")
        inner.rename(self.files / "moved")
        (self.files / "moved/f").mkdir()
        (self.files / "moved/f").rmdir()
        (self.files / "moved").rmdir()
        lines = []
        while "2 ignored ." not in lines:
            lines.append(p.stdout.readline().rstrip())
        (self.files / "new").mkdir()
        (self.files / "new").rename(self.files / "other")
        lines += self.events(p)
        self.assertEqual([x for x in lines if x[0] == "2"], [
            "2 move_self .", "2 create dir f", "2 delete dir f", "2 delete_self .", "2 ignored ."])
        self.assertEqual([x for x in lines if x[0] == "3"], [
            "3 attrib dir .", "3 delete_self .", "3 ignored ."])

    def test_both_at_once(self):
        """Each event of each file once, or as often as it happens."""
        p = self.watch("many", "/m")
        for i in range(200):
            a, b = self.files / f"their-{i}", self.files / f"their2-{i}"
            a.write_text("text")
            a.chmod(0o600)
            a.rename(b)
            if i % 2:
                b.unlink()
        # Both are through, whoever is first.
        (self.files / "their").mkdir()
        seen = collections.Counter()
        while seen["create dir own"] == 0 or seen["create dir their"] == 0:
            seen[p.stdout.readline().rstrip()[2:]] += 1
        seen.update(x[2:] for x in self.events(p))
        for name, twice in (("their", 1), ("own", 2)):
            for i in range(200):
                for what, count in (("create", 1), ("modify", twice), ("attrib", 1),
                                    ("close_write", twice), ("moved_from", 1)):
                    self.assertEqual(seen.pop(f"{what} {name}-{i}", 0), count, (what, name, i))
                self.assertEqual(seen.pop(f"moved_to {name}2-{i}", 0), 1)
                self.assertEqual(seen.pop(f"delete {name}2-{i}", 0), i % 2)
        self.assertEqual(sum(seen.values()), 2, seen)


if __name__ == "__main__":
    main()
