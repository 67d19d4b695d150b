set(deps mem platform stub decoder)
