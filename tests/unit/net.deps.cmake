set(deps net vfs mm mem wait cred platform)
