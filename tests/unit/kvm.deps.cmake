set(deps kvm patch decoder mem platform)
