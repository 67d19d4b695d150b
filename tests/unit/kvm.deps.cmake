set(deps kvm patch mem platform)
