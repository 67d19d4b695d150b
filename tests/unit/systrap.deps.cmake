set(deps systrap stub mem platform)
