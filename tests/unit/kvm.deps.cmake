set(deps kvm mem platform)
