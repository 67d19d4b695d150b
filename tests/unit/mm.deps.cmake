set(deps mm mem wait cred platform)
