/* What the code of sites and the platforms' own code in guests agree on: numbers only.
 * Depends on: nothing; also read by the assembler.
 * Threading: constants.
 * Ownership: none. */
#ifndef RINGWALL_PLATFORM_PATCH_ABI_H
#define RINGWALL_PLATFORM_PATCH_ABI_H

/* What code jumps through: eight bytes an entry, the first one to the platform's code for calls
 * from sites. The two high bytes of its addresses are instructions that trap. */
#define PATCH_TABLE 0x61060000
#define PATCH_TABLE_SIZE 0x10000
#define PATCH_CODE (PATCH_TABLE + PATCH_TABLE_SIZE)
#define PATCH_CODE_SIZE 0xf0000
#define PATCH_END (PATCH_CODE + PATCH_CODE_SIZE)

/* In the area of a thread: minus the FS base of the guest code that is found by it, or what is no
 * such base; where a call from a site goes on. */
#define PATCH_NEGFS 96
#define PATCH_AFTER 104

/* Words of the table of areas, by a hash of the FS base. */
#define PATCH_AREAS_COUNT 256

#endif
