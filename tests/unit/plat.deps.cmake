set(deps mem platform stub)
