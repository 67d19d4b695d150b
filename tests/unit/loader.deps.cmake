# The files and the kernel around the loader are faked in the test: found before the libraries' own.
set(deps loader vdso mm mem wait cred platform)
