set(deps shim runsc_core)
