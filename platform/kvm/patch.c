/* Patched pages in address spaces, and where their sites find exchange pages. */
#include <sys/mman.h>

#include "platform/kvm/kvm_priv.h"

_Static_assert(PLAT_READ == PROT_READ && PLAT_WRITE == PROT_WRITE && PLAT_EXEC == PROT_EXEC,
               "patch_page.prot");

static struct kvm_as *patch_owner(struct patch_as *pa)
{
    return container_of(pa, struct kvm_as, patch);
}

static int patch_settle(struct patch_as *pa)
{
    kvm_zap_locked(patch_owner(pa));
    return 0;
}

static int patch_show_set(struct kvm_as *as, uint64_t slice)
{
    struct kvm_plat *p = kvm_plat(as->base.plat);
    int r = kvm_tables_reserve(as, PATCH_TABLE, PATCH_END, KVM_NO_GPA);

    if (r == 0)
        r = kvm_window_get(p, p->patch.fd, slice, PATCH_SLICE, false, &as->patch_window);
    if (r == 0)
        kvm_table_set(as, PATCH_TABLE, PATCH_END, as->patch_window->gpa, PLAT_READ | PLAT_EXEC);
    return r;
}

static bool patch_show(struct patch_as *pa, bool first, uint64_t addr, uint64_t slice, uint64_t off)
{
    struct kvm_as *as = patch_owner(pa);

    if ((first && patch_show_set(as, slice) != 0) ||
        kvm_tables_reserve(as, addr, addr + PAGE_SIZE, KVM_NO_GPA) != 0)
        return false;
    kvm_table_set(as, addr, addr + PAGE_SIZE, as->patch_window->gpa + (off - slice),
                  PLAT_READ | PLAT_EXEC);
    kvm_zap_locked(as);
    return true;
}

static int patch_unshow(struct patch_as *pa, const struct patch_page *pg, int prot)
{
    struct kvm_as *as = patch_owner(pa);
    const struct kvm_file_range *f = kvm_as_file_locked(as, pg->addr);
    int r = kvm_tables_reserve(as, pg->addr, pg->addr + PAGE_SIZE, KVM_NO_GPA);

    if (r != 0)
        return r;
    if (f != NULL)
        kvm_table_set(as, pg->addr, pg->addr + PAGE_SIZE,
                      f->window->gpa + f->off + (pg->addr - f->start), (unsigned)prot);
    else
        kvm_table_clear(as, pg->addr, pg->addr + PAGE_SIZE);
    return 0;
}

const struct patch_ops kvm_patch_ops = {
    .settle = patch_settle,
    .show = patch_show,
    .restore = patch_unshow,
};

int kvm_patch_init(struct kvm_plat *p, struct kvm_as *as)
{
    struct kvm_page areas = {.hva = NULL};
    int r = 0;

    if (p->patch.ops != NULL)
        r = kvm_table_own_page(as, KVM_AREAS_VA, PLAT_READ, &areas);
    if (areas.hva != NULL)
        patch_leave((uint64_t *)(void *)(areas.hva + (KVM_NOBODY_VA - KVM_AREAS_VA) + PATCH_NEGFS));
    patch_as_init(&as->patch, &p->patch, &as->mu, (_Atomic uint64_t *)(void *)areas.hva);
    return r;
}

void kvm_patch_fini(struct kvm_as *as)
{
    if (as->patch_window != NULL)
        kvm_window_put(kvm_plat(as->base.plat), as->patch_window);
    patch_as_fini(&as->patch);
}

int kvm_patch_fork(struct kvm_as *parent, struct kvm_as *as)
{
    int r = patch_fork(&parent->patch, &as->patch);

    if (r == 0 && parent->patch_window != NULL) {
        kvm_window_ref(kvm_plat(as->base.plat), parent->patch_window);
        as->patch_window = parent->patch_window;
    }
    return r;
}
