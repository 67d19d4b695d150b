set(deps sandbox)
