/*
 * What: the default configuration of a container.
 * Depends on: jansson.
 * Threading: any.
 * Ownership: the result is the caller's.
 */
#ifndef RINGWALL_RUNSC_DEFAULT_SPEC_H
#define RINGWALL_RUNSC_DEFAULT_SPEC_H

struct json_t;

/* A whole config.json: `sh` on "rootfs", with the mounts and capabilities of docker's default.
 * NULL: out of memory. */
struct json_t *default_spec(void);

#endif
