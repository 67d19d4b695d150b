set(deps systrap stub mem platform PkgConfig::CAPSTONE)
