set(deps wait)
