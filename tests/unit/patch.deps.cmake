set(deps patch PkgConfig::CAPSTONE)
