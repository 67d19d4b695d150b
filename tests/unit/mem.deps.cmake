set(deps mem)
