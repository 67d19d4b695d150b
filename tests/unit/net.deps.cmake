set(deps net vfs mm mem wait cred time platform)
