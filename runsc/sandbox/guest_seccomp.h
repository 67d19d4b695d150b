/*
 * What: linux.seccomp of a configuration, turned into the BPF program that the sentry lays over the
 * guest's system calls.
 * Depends on: runsc/err.h; jansson and libseccomp in the .c file.
 * Threading: one thread, before the sandbox is made: libseccomp is not for the sentry.
 * Ownership: struct guest_seccomp owns its program; guest_seccomp_free.
 */
#ifndef RINGWALL_RUNSC_SANDBOX_GUEST_SECCOMP_H
#define RINGWALL_RUNSC_SANDBOX_GUEST_SECCOMP_H

#include <linux/filter.h>
#include <stddef.h>

#include "base/compiler.h"
#include "runsc/err.h"

struct json_t;

struct guest_seccomp {
    struct sock_filter *insns; /* NULL: no profile */
    size_t count;
    unsigned flags; /* SECCOMP_FILTER_FLAG_* */
};

/* Words that a profile may use, one by one from 0; NULL behind the last. */
enum guest_seccomp_word {
    GUEST_SECCOMP_ACTION,
    GUEST_SECCOMP_OPERATOR,
    GUEST_SECCOMP_ARCH,
    GUEST_SECCOMP_FLAG
};
const char *guest_seccomp_word_name(enum guest_seccomp_word kind, size_t index);

/* profile: the object as it stands in config.json, or NULL. Names of calls that the library does
 * not know are left to the default action, as other runtimes do; any other unknown word is an
 * error. */
MUST_CHECK int guest_seccomp_build(const struct json_t *profile, struct guest_seccomp *out,
                                   struct err *e);
void guest_seccomp_free(struct guest_seccomp *g);

/* For the control protocol: the program as text, owned (NULL: out of memory), and back. *out is
 * untouched on failure. */
struct json_t *guest_seccomp_json(const struct guest_seccomp *g);
MUST_CHECK int guest_seccomp_parse(const struct json_t *doc, struct guest_seccomp *out);

#endif
