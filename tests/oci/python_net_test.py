#!/usr/bin/env python3
"""Python's own tests of sockets, readiness, TLS and asyncio, with and without a network of the
sandbox's. What may fail stands in python_known.txt."""
import concurrent.futures
import os
import unittest
from unittest import mock

import python_suite
from harness import IS_OURS, RUNTIME, Case, main

DEBIAN_ROOT = os.environ.get("DEBIAN_ROOT", "")
WHOLE = ("test_socket", "test_ssl", "test_select", "test_selectors", "test_epoll", "test_poll")
# Seconds for a module, most of which it sleeps.
TIMEOUT = 900
AT_ONCE = 4


@unittest.skipUnless(IS_OURS and DEBIAN_ROOT, "DEBIAN_ROOT is not set")
class PythonNet(Case):
    def one(self, name):
        return python_suite.module(DEBIAN_ROOT, name, TIMEOUT, self.root, None)

    def suite(self, network):
        listed = python_suite.known()
        # Windows' own have nothing but what is left out elsewhere.
        asyncio = [p for p in python_suite.parts(DEBIAN_ROOT, "test_asyncio") if "_windows_" not in p]
        self.assertGreater(len(asyncio), 20)
        self.root.mkdir(exist_ok=True)
        with mock.patch.object(python_suite, "RUNTIME", [*RUNTIME, "--network", network]):
            with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
                results = list(pool.map(self.one, [*WHOLE, *asyncio]))
            # Some of them measure time: these are asked once more when nothing runs beside them.
            results = [self.one(r["module"]) if python_suite.unexpected(r, listed) else r
                       for r in results]
        for r in results:
            with self.subTest(r["module"]):
                self.assertEqual(python_suite.unexpected(r, listed), [], r["text"][-3000:])
                self.assertIn(r["verdict"], ("ok", "failed"), r["text"][-3000:])

    def test_loopback_only(self):
        self.suite("none")

    def test_sandbox(self):
        self.suite("sandbox")


if __name__ == "__main__":
    main()
