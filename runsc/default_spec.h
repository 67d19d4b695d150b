/*
 * What: the default configuration of a container.
 * Depends on: jansson.
 * Threading: any.
 * Ownership: the result is the caller's.
 */
#ifndef RINGWALL_RUNSC_DEFAULT_SPEC_H
#define RINGWALL_RUNSC_DEFAULT_SPEC_H

#include <stdint.h>

struct json_t;

/* A whole config.json: `sh` on "rootfs", with the mounts and capabilities of docker's default.
 * NULL: out of memory. */
struct json_t *default_spec(void);
/* Adds what an ordinary user needs: a user namespace whose root is that user. */
void default_spec_rootless(struct json_t *doc, uint32_t uid, uint32_t gid);

#endif
