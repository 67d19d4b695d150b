set(deps systrap patch decoder stub mem platform)
