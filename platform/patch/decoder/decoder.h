/* Finds the shapes of system call sites with a disassembler.
 * Depends on: platform/patch/shape.h, libcapstone.
 * Threading: one thread.
 * Ownership: a struct decoder is the caller's. What it is given is hostile. */
#ifndef RINGWALL_PLATFORM_PATCH_DECODER_DECODER_H
#define RINGWALL_PLATFORM_PATCH_DECODER_DECODER_H

#include <capstone/capstone.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "platform/patch/shape.h"

struct decoder {
    csh handle;
    cs_insn *insn;
};

/* False: no memory. What is made at first use is made now: no later call asks for memory. */
MUST_CHECK bool decoder_open(struct decoder *d);
void decoder_close(struct decoder *d);
/* All of q is checked. */
void decoder_decode(const struct decoder *d, const struct patch_question *q,
                    struct patch_answer *out);
/* Answers what comes over fd, a connected socket, till that ends: 0. -EPROTO: not a question.
 * It waits with wait, which is like recv(2), or NULL: that. Makes no other system calls than
 * recvfrom and sendto. */
MUST_CHECK int decoder_serve(const struct decoder *d, int fd,
                             ssize_t (*wait)(int fd, void *buf, size_t size));

#endif
