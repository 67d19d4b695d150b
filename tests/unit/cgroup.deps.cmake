set(deps runsc_core)
