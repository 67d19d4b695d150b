set(deps gofer gofer_proto)
