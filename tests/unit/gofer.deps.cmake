set(deps goferfs vfs mm cred gofer gofer_proto sandbox runsc_core)
