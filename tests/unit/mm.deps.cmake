set(deps mm mem wait cred ptrace platform)
