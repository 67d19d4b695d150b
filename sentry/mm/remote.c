/* A debugger's way to another's memory: past the protection of pages, as FOLL_FORCE in mm/gup.c. */
#include <errno.h>
#include <string.h>

#include "sentry/mm/mm_priv.h"
#include "sentry/mm/safecopy.h"

/* check_vma_flags(): what may be read at all; what may be written in a private copy. */
static bool remote_permits(const struct vma *v, bool write)
{
    if (!write)
        return v->prot != PROT_NONE || (v->max_prot & PROT_READ);
    return (v->prot & PROT_WRITE) || (vma_private(v) && (v->max_prot & PROT_WRITE));
}

/* Memory behind addr that is this mm's alone when it is to be written. */
static int remote_page(struct mm *mm, uint64_t addr, bool write, struct pma **out)
{
    struct vma *v = mm_vma_or_grow(mm, addr, mm->stack_limit);
    bool changed = false;

    if (!v || !remote_permits(v, write))
        return -EFAULT;
    struct pma *p = pma_find(mm, addr);
    if (!p) {
        int err = mm_make_usable(mm, v, addr, PLAT_READ, &changed);
        if (err)
            return err;
        p = pma_find(mm, addr);
    }
    const bool ready = p->kind == PMA_ANON ? !p->cow : !vma_private(v) && p->writable;
    if (write && !ready) {
        int err = mm_make_usable(mm, v, addr, PLAT_WRITE, &changed);
        if (err)
            return err;
        /* Who runs in it must not go on with the page that was replaced. */
        err = mm_commit_locked(mm);
        if (err)
            return err;
        p = pma_find(mm, addr);
    }
    *out = p;
    return p ? 0 : -EFAULT;
}

static size_t remote_piece(struct mm *mm, uint64_t addr, char *buf, size_t size, bool write)
{
    struct hostwin *win = NULL;
    struct pma *p;
    void *ptr;

    if (remote_page(mm, addr, write, &p))
        return 0;
    const uint64_t off = p->off + (addr - p->start);
    uint64_t n = MIN((uint64_t)size, p->end - addr);
    n = MIN(n, PAGE_SIZE - addr % PAGE_SIZE);
    if (p->kind != PMA_HOST)
        ptr = memfile_ptr(mm->mf, off);
    else if (hostwin_get(p->m, p->fd, off, write, &n, &ptr, &win))
        return 0;
    const size_t left = write ? safecopy(ptr, buf, n) : safecopy(buf, ptr, n);
    hostwin_put(win);
    return n - left;
}

static size_t remote_run(struct mm *mm, uint64_t addr, char *buf, size_t size, bool write)
{
    size_t done = 0;

    while (done < size && addr + done < mm->max_addr && addr + done >= addr) {
        if (mm_begin(mm, NULL))
            break;
        const size_t n = remote_piece(mm, addr + done, buf + done, size - done, write);
        mm_end(mm);
        if (n == 0)
            break;
        done += n;
    }
    return done;
}

size_t mm_peek(struct mm *mm, uaddr_t addr, void *buf, size_t size)
{
    return remote_run(mm, addr.v, buf, size, false);
}

size_t mm_poke(struct mm *mm, uaddr_t addr, const void *buf, size_t size)
{
    /* Only read from. */
    return remote_run(mm, addr.v, (char *)(uintptr_t)buf, size, true);
}
