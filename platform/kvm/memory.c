/* Guest-physical memory: slots of one size, given out in order, never deleted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/heap.h"
#include "platform/kvm/kvm_priv.h"

/* What such a host takes for a page of a slot. */
#define KVM_SLOT_PAGE_BYTES 10

uint64_t kvm_slot_gpa(uint32_t slot)
{
    return ((uint64_t)slot + 1) << KVM_SLOT_SHIFT;
}

uint8_t *kvm_hva(struct kvm_plat *p, uint64_t gpa)
{
    return p->slot_hva[(gpa >> KVM_SLOT_SHIFT) - 1] + (gpa & (KVM_SLOT_SIZE - 1));
}

int kvm_slot_add_locked(struct kvm_plat *p, uint8_t *hva, uint64_t size, uint32_t *out_slot)
{
    struct kvm_userspace_memory_region region = {
        .slot = p->slot_count,
        .guest_phys_addr = kvm_slot_gpa(p->slot_count),
        .memory_size = size,
        .userspace_addr = (uint64_t)(uintptr_t)hva,
    };

    if (p->slot_count == KVM_SLOTS_MAX)
        return -ENOMEM;
    if (ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) != 0)
        return -errno;
    /* A host that shadows tables remembers where each page is mapped, and which are tables. */
    if (p->ring3_syscall)
        heap_add((int64_t)(size >> PAGE_SHIFT) * KVM_SLOT_PAGE_BYTES);
    p->slot_hva[p->slot_count] = hva;
    *out_slot = p->slot_count++;
    return 0;
}

int kvm_mem_gpa(struct kvm_plat *p, uint64_t off, uint64_t *out_gpa)
{
    uint64_t chunk = off >> KVM_SLOT_SHIFT;
    uint32_t slot;
    int r = 0;

    if (off >= p->mem_size)
        return -EINVAL;
    mutex_lock(&p->mu);
    if (p->mem_slots[chunk] == 0) {
        r = kvm_slot_add_locked(p, p->mem + (chunk << KVM_SLOT_SHIFT), KVM_SLOT_SIZE, &slot);
        if (r == 0)
            p->mem_slots[chunk] = (uint16_t)(slot + 1);
    }
    if (r == 0)
        *out_gpa = kvm_slot_gpa(p->mem_slots[chunk] - 1u) + (off & (KVM_SLOT_SIZE - 1));
    mutex_unlock(&p->mu);
    return r;
}

struct table_chunk {
    struct list node; /* in kvm_plat.table_chunks */
    uint8_t *hva;
};

/* Tables have anonymous memory. Only addresses are used up for good: memory goes back by pages. */
static int table_slot_locked(struct kvm_plat *p)
{
    struct table_chunk *c = calloc(1, sizeof(*c));
    uint32_t slot;

    if (c == NULL)
        return -ENOMEM;
    c->hva = mmap(NULL, KVM_SLOT_SIZE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int r = c->hva == MAP_FAILED ? -ENOMEM : kvm_slot_add_locked(p, c->hva, KVM_SLOT_SIZE, &slot);
    if (r != 0) {
        if (c->hva != MAP_FAILED)
            (void)munmap(c->hva, KVM_SLOT_SIZE);
        free(c);
        return r;
    }
    list_add(&c->node, &p->table_chunks);
    p->table_hva = c->hva;
    p->table_next = kvm_slot_gpa(slot);
    p->table_end = p->table_next + KVM_SLOT_SIZE;
    return 0;
}

void kvm_tables_unmap(struct kvm_plat *p)
{
    struct table_chunk *c, *next;

    list_for_each_entry_safe (c, next, &p->table_chunks, node) {
        (void)munmap(c->hva, KVM_SLOT_SIZE);
        free(c);
    }
}

int kvm_table_page(struct kvm_plat *p, struct kvm_page *out)
{
    int r = 0;

    mutex_lock(&p->mu);
    if (p->table_next == p->table_end)
        r = table_slot_locked(p);
    if (r == 0) {
        *out = (struct kvm_page){.gpa = p->table_next, .hva = p->table_hva};
        p->table_next += PAGE_SIZE;
        p->table_hva += PAGE_SIZE;
    }
    mutex_unlock(&p->mu);
    return r;
}

void kvm_table_free(const struct kvm_page *page)
{
    BUG_ON(madvise(page->hva, PAGE_SIZE, MADV_DONTNEED) != 0);
}
