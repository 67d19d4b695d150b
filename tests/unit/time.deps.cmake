set(deps time wait)
