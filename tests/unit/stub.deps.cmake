set(deps stub)
