set(deps patch decoder)
