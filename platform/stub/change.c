/* What a change is in calls; holes found by halving. */
#include "platform/stub/change.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "platform/platform.h"

/* Switches spent on finding the holes of one range: then it fails. */
#define CHANGE_HOLE_STEPS 4096

static int change_prot(unsigned access)
{
    return ((access & PLAT_READ) ? PROT_READ : 0) | ((access & PLAT_WRITE) ? PROT_WRITE : 0) |
           ((access & PLAT_EXEC) ? PROT_EXEC : 0);
}

struct stub_change stub_change_map(uaddr_t addr, uint64_t size, unsigned access, int fd,
                                   uint64_t off, unsigned flags)
{
    return (struct stub_change){
        .start = addr.v,
        .end = addr.v + size,
        .kind = STUB_MAP,
        .prot = change_prot(access),
        .flags = MAP_FIXED | ((flags & PLAT_MAP_PRIVATE) ? MAP_PRIVATE : MAP_SHARED) |
                 ((flags & PLAT_MAP_POPULATE) ? MAP_POPULATE : 0),
        .fd = fd,
        .off = off,
    };
}

struct stub_change stub_change_protect(uaddr_t addr, uint64_t size, unsigned access)
{
    return (struct stub_change){
        .start = addr.v, .end = addr.v + size, .kind = STUB_PROTECT, .prot = change_prot(access)};
}

void stub_change_encode(struct stub_op *op, const struct stub_change *c)
{
    memset(op, 0, sizeof(*op));
    op->args[0] = c->start;
    op->args[1] = c->end - c->start;
    switch (c->kind) {
    case STUB_MAP:
        op->nr = SYS_mmap;
        op->args[2] = (uint64_t)c->prot;
        op->args[3] = (uint64_t)c->flags;
        op->args[4] = (uint64_t)c->fd;
        op->args[5] = c->off;
        break;
    case STUB_UNMAP:
        op->nr = SYS_munmap;
        break;
    case STUB_PROTECT:
        op->nr = SYS_mprotect;
        op->args[2] = (uint64_t)c->prot;
        break;
    }
}

static int64_t change_call(stub_call_fn call, void *arg, uint64_t nr, const struct plat_range *part,
                           const uint64_t more[4])
{
    const struct stub_op op = {
        .nr = nr,
        .args = {part->start, part->end - part->start, more[0], more[1], more[2], more[3]}};

    return call(arg, &op);
}

int stub_unmap(const struct stub_change *change, stub_call_fn call, void *arg)
{
    const struct plat_range range = {change->start, change->end};
    const uint64_t none[4] = {0};

    return (int)change_call(call, arg, SYS_munmap, &range, none);
}

/* Halves the range till every part is protected or known to be a hole: one that can be mapped
 * without replacing anything. */
int stub_protect_parts(const struct stub_change *change, stub_call_fn call, void *arg)
{
    const uint64_t protect[4] = {(uint64_t)change->prot};
    const uint64_t probe[4] = {
        PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, UINT64_MAX};
    const uint64_t none[4] = {0};
    struct plat_range parts[64] = {{change->start, change->end}};
    size_t count = 1;

    for (int step = 0; count > 0; step++) {
        const struct plat_range part = parts[--count];
        int64_t r = change_call(call, arg, SYS_mprotect, &part, protect);
        if (r == 0)
            continue;
        if (r != -ENOMEM || step == CHANGE_HOLE_STEPS)
            return (int)r;
        r = change_call(call, arg, SYS_mmap, &part, probe);
        if (r == (int64_t)part.start) {
            r = change_call(call, arg, SYS_munmap, &part, none);
            if (r != 0)
                return (int)r;
            continue;
        }
        if (r != -EEXIST || part.end - part.start <= PAGE_SIZE)
            return r == -ESRCH || r == -ECHILD ? (int)r : -ENOMEM;
        uint64_t middle = part.start + ALIGN_DOWN((part.end - part.start) / 2, PAGE_SIZE);
        parts[count++] = (struct plat_range){middle, part.end};
        parts[count++] = (struct plat_range){part.start, middle};
    }
    return 0;
}
