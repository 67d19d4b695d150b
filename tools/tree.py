"""What the checks share: which files belong to the tree, and C text without comments and strings."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(ROOT)

_SKIP = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL)


def files(*suffixes):
    """Files of the tree with one of the suffixes: what git knows, else (a tarball) what is there."""
    try:
        out = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True).stdout
        names = [n for n in out.decode().split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        names = [os.path.relpath(os.path.join(d, f), ROOT)
                 for d, _, fs in os.walk(ROOT) for f in fs]
        names = [n for n in names if not n.startswith(("build/", ".git/"))]
    return sorted(n for n in names if n.endswith(suffixes) and os.path.isfile(n))


def read(name):
    with open(name, encoding="utf-8", errors="replace") as f:
        return f.read()


def code(text, keep_strings=False):
    """The text with comments and literals blanked out, line breaks kept."""
    def blank(m):
        s = m.group(0)
        if keep_strings and s[0] in "\"'":
            return s
        return re.sub(r"[^\n]", " ", s)
    return _SKIP.sub(blank, text)


def finish(what, problems, checked):
    """Prints the problems and one summary line; the exit status says whether there were any."""
    for p in problems:
        print(p)
    print(f"{what}: {checked} checked, {len(problems)} problem(s)")
    sys.exit(1 if problems else 0)
