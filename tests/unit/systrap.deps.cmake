set(deps systrap patch stub mem platform)
