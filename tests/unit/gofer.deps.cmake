set(deps goferfs cred gofer gofer_proto)
