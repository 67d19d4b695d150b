#!/usr/bin/env python3
"""linux.seccomp of a configuration is laid over the container's programs, and over what is executed
in it later."""
from harness import Case, main

ENOTTY = 25


def profile(calls, default="SCMP_ACT_ALLOW", **more):
    def change(config):
        config["linux"]["seccomp"] = {
            "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": calls, **more}
    return change


class Seccomp(Case):
    def test_a_refused_call(self):
        change = profile([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
                           "errnoRet": ENOTTY}])
        p = self.shell("mkdir /tmp/x; echo $?; touch /tmp/y && echo fine; grep Seccomp:"
                       " /proc/self/status", change)
        self.assertIn("inappropriate ioctl", p.stderr.lower())
        self.assertEqual(p.stdout.split(), ["1", "fine", "Seccomp:", "2"])

    def test_the_default_refuses(self):
        p = self.shell("echo never", profile([], default="SCMP_ACT_ERRNO"))
        self.assertNotEqual(p.returncode, 0)
        self.assertNotIn("never", p.stdout)

    def test_arguments(self):
        # 10 is SIGUSR1.
        change = profile([{"names": ["kill"], "action": "SCMP_ACT_ERRNO",
                           "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}])
        p = self.shell("trap 'echo usr2' USR2; kill -USR2 $$; kill -USR1 $$ || echo refused", change)
        self.assertEqual(p.stdout.split(), ["usr2", "refused"], p.stderr)

    def test_a_killing_call(self):
        p = self.shell("mkdir /tmp/x", profile([{"names": ["mkdir", "mkdirat"],
                                                 "action": "SCMP_ACT_KILL_PROCESS"}]))
        self.assertEqual(p.returncode, 128 + 31)

    def test_exec_is_filtered_too(self):
        self.write(["/bin/sleep", "1000"], profile([
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]))
        cid = self.new_id()
        self.assertEqual(self.call_quiet("run", "--detach", "--bundle", str(self.bundle),
                                         cid).returncode, 0)
        p = self.call("exec", cid, "/bin/sh", "-c", "mkdir /tmp/x; echo $?")
        self.assertEqual(p.stdout, "1\n")
        self.assertIn("not permitted", p.stderr)
        self.call("delete", "--force", cid)

    def test_unknown_words_are_errors(self):
        p = self.shell("true", profile([{"names": ["mkdir"], "action": "SCMP_ACT_BOGUS"}]))
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("SCMP_ACT_BOGUS", p.stderr)
        self.assert_nothing_left()


if __name__ == "__main__":
    main()
