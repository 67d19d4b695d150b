/* Forgets the row macros after an inclusion of syscalls.def. No include guard: used many times.
 * Depends on: nothing.
 * Threading: none.
 * Ownership: none. */
#undef SYS0
#undef SYS1
#undef SYS2
#undef SYS3
#undef SYS4
#undef SYS5
#undef SYS6
#undef NOSYS
