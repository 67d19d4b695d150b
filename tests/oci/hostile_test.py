#!/usr/bin/env python3
"""Guests that want too much: they get errors or end, the sandbox and the host stay well."""
from harness import Case, main


class Hostile(Case):
    def test_fork_bomb(self):
        def change(c):
            c["linux"]["resources"] = {"pids": {"limit": 100}}
        p = self.shell("f() { f | f & }; f; i=0; while [ $i -lt 20 ]; do sleep 0.1; i=$((i+1));"
                       " done; echo alive; exit 3", change)
        # 2: the shell itself could not fork any more and gave up, as it may.
        self.assertIn((p.returncode, p.stdout), ((3, "alive\n"), (2, "")), p.stderr[-500:])
        self.assertIn("fork", p.stderr)
        self.assert_nothing_left()

    def test_endless_output_is_only_slow(self):
        p = self.shell("yes | head -c 20000000 | wc -c")
        self.assertEqual(p.stdout.strip(), "20000000")

    def test_deep_directories_and_long_names(self):
        p = self.shell("cd /tmp; n=0; while [ $n -lt 500 ]; do mkdir d && cd d || exit 1;"
                       " n=$((n+1)); done; pwd | wc -c; cd /tmp; rm -r d && echo gone")
        self.assertEqual(p.stdout.split(), ["1005", "gone"], p.stderr[-500:])

    def test_many_descriptors(self):
        def change(c):
            c["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]
        p = self.shell("i=3; while [ $i -lt 200 ]; do eval \"exec $i>/tmp/x\" || break;"
                       " i=$((i+1)); done; echo survived", change)
        self.assertNotEqual(p.stderr, "")
        self.assertLess(p.returncode, 128)


if __name__ == "__main__":
    main()
