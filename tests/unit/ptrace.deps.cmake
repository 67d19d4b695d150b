set(deps ptrace mem platform)
