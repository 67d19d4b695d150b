/* Page tables of an address space, written from outside of the machine. The host does not see such
 * stores: a translation that it has made of an entry stays until the memory behind the entry is
 * unmapped from the machine for a moment (MADV_DONTNEED of a shared mapping keeps the bytes). That
 * is right for shadow paging and for nested paging, where it also invalidates combined
 * translations, on every processor before the call returns. An entry that was empty has no
 * translation and needs nothing. Intermediate entries are set once, and pages of tables are never
 * used for another table. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "platform/kvm/kvm_priv.h"

/* Software bit of an entry that is not present: mapped without any access. */
#define PTE_NONE UINT64_C(0x200)
#define PTE_TABLE (PTE_P | PTE_W | PTE_U)

static struct kvm_plat *table_plat(const struct kvm_as *as)
{
    return kvm_plat(as->base.plat);
}

static unsigned table_index(uint64_t addr, unsigned level)
{
    return (unsigned)(addr >> (PAGE_SHIFT + 9 * (level - 1))) & (PT_ENTRIES - 1);
}

static uint64_t table_span(unsigned level)
{
    return UINT64_C(1) << (PAGE_SHIFT + 9 * (level - 1));
}

static uint64_t *table_entries(struct kvm_plat *p, uint64_t entry)
{
    return (uint64_t *)(void *)kvm_hva(p, entry & PTE_ADDR);
}

static uint64_t table_flags(unsigned access)
{
    if (access == 0)
        return PTE_NONE;
    return PTE_P | PTE_U | ((access & PLAT_WRITE) ? PTE_W : 0) |
           ((access & PLAT_EXEC) ? 0 : PTE_NX);
}

static uint64_t table_load(const uint64_t *entry)
{
    return __atomic_load_n(entry, __ATOMIC_RELAXED);
}

/* The machine reads entries at any time. */
static void table_store(uint64_t *entry, uint64_t value)
{
    __atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

/* ---- what has to be forgotten ---- */

void kvm_zap_locked(struct kvm_as *as)
{
    for (size_t i = 0; i < as->zap_count; i++)
        BUG_ON(madvise(as->zaps[i].hva, as->zaps[i].size, MADV_DONTNEED) != 0);
    as->zap_count = 0;
    for (size_t i = 0; i < as->dead_count; i++)
        kvm_window_put(table_plat(as), as->dead[i]);
    as->dead_count = 0;
    atomic_store(&as->pending, false);
}

static void table_zap(struct kvm_as *as, uint64_t entry)
{
    uint8_t *hva = kvm_hva(table_plat(as), entry & PTE_ADDR);

    if (!(entry & PTE_P))
        return;
    struct kvm_zap *last = as->zap_count > 0 ? &as->zaps[as->zap_count - 1] : NULL;
    if (last != NULL && last->hva + last->size == hva) {
        last->size += PAGE_SIZE;
        return;
    }
    if (as->zap_count == KVM_ZAPS_MAX)
        kvm_zap_locked(as);
    as->zaps[as->zap_count++] = (struct kvm_zap){.hva = hva, .size = PAGE_SIZE};
    atomic_store(&as->pending, true);
}

void kvm_window_bury(struct kvm_as *as, struct kvm_window *w)
{
    if (as->dead_count == KVM_ZAPS_MAX)
        kvm_zap_locked(as);
    as->dead[as->dead_count++] = w;
    atomic_store(&as->pending, true);
}

/* ---- tables ---- */

static int table_new(struct kvm_as *as, struct kvm_page *out)
{
    if (as->table_count == as->table_capacity) {
        size_t capacity = MAX(2 * as->table_capacity, (size_t)16);
        struct kvm_page *tables = reallocarray(as->tables, capacity, sizeof(*tables));
        if (tables == NULL)
            return -ENOMEM;
        as->tables = tables;
        as->table_capacity = capacity;
    }
    int r = kvm_table_page(table_plat(as), out);
    if (r == 0)
        as->tables[as->table_count++] = *out;
    return r;
}

void kvm_root_init(const struct kvm_plat *p, const struct kvm_page *root)
{
    table_store((uint64_t *)(void *)root->hva + table_index(KVM_STUB_VA, 4),
                p->kernel_pdpt.gpa | PTE_TABLE);
}

int kvm_tables_init(struct kvm_plat *p, struct kvm_as *as)
{
    int r = table_new(as, &as->root);

    if (r == 0)
        kvm_root_init(p, &as->root);
    return r;
}

void kvm_tables_fini(struct kvm_as *as)
{
    for (size_t i = 0; i < as->table_count; i++)
        kvm_table_free(&as->tables[i]);
    free(as->tables);
}

/* The entry of the last level for addr, with the tables above it. */
static int table_make(struct kvm_as *as, uint64_t addr, uint64_t **out)
{
    uint64_t *table = (uint64_t *)(void *)as->root.hva;

    for (unsigned level = 4; level > 1; level--) {
        uint64_t *entry = &table[table_index(addr, level)];
        if (table_load(entry) == 0) {
            struct kvm_page page;
            int r = table_new(as, &page);
            if (r != 0)
                return r;
            table_store(entry, page.gpa | PTE_TABLE);
        }
        table = table_entries(table_plat(as), table_load(entry));
    }
    *out = &table[table_index(addr, 1)];
    return 0;
}

/* The entry of the last level for addr, or NULL and the end of the hole around it. */
static uint64_t *table_find(struct kvm_as *as, uint64_t addr, uint64_t *out_end)
{
    uint64_t *table = (uint64_t *)(void *)as->root.hva;

    for (unsigned level = 4; level > 1; level--) {
        uint64_t entry = table_load(&table[table_index(addr, level)]);
        if (entry == 0) {
            *out_end = ALIGN_DOWN(addr, table_span(level)) + table_span(level);
            return NULL;
        }
        table = table_entries(table_plat(as), entry);
    }
    return &table[table_index(addr, 1)];
}

int kvm_tables_reserve(struct kvm_as *as, uint64_t start, uint64_t end)
{
    uint64_t *entry;
    int r = 0;

    for (uint64_t at = ALIGN_DOWN(start, table_span(2)); at < end && r == 0; at += table_span(2))
        r = table_make(as, at, &entry);
    return r;
}

int kvm_table_own_page(struct kvm_as *as, uint64_t addr, struct kvm_page *out)
{
    struct kvm_page page;
    uint64_t *entry;
    int r = table_make(as, addr, &entry);

    if (r == 0)
        r = table_new(as, &page);
    if (r != 0)
        return r;
    table_store(entry, page.gpa | PTE_P | PTE_W | PTE_U | PTE_NX);
    *out = page;
    return 0;
}

/* What is done to the entries of a table that lie in a range. */
enum table_change { TABLE_SET, TABLE_CLEAR, TABLE_PROTECT };

static void table_change_one(struct kvm_as *as, uint64_t *entry, enum table_change change,
                             uint64_t gpa, uint64_t flags)
{
    uint64_t old = table_load(entry), new = 0;

    if (change != TABLE_SET && old == 0)
        return;
    if (change == TABLE_SET)
        new = gpa | flags;
    else if (change == TABLE_PROTECT)
        new = (old & PTE_ADDR) | flags;
    if (new == old)
        return;
    table_store(entry, new);
    table_zap(as, old);
}

static void table_change_range(struct kvm_as *as, uint64_t start, uint64_t end,
                               enum table_change change, uint64_t gpa, uint64_t flags)
{
    uint64_t next = 0;

    for (uint64_t at = start; at < end; at = next) {
        uint64_t *entry = table_find(as, at, &next);
        if (entry == NULL) {
            BUG_ON(change == TABLE_SET);
            continue;
        }
        next = MIN(ALIGN_DOWN(at, table_span(2)) + table_span(2), end);
        for (; at < next; at += PAGE_SIZE, entry++)
            table_change_one(as, entry, change, gpa + (at - start), flags);
    }
}

void kvm_table_set(struct kvm_as *as, uint64_t start, uint64_t end, uint64_t gpa, unsigned access)
{
    table_change_range(as, start, end, TABLE_SET, gpa, table_flags(access));
}

void kvm_table_clear(struct kvm_as *as, uint64_t start, uint64_t end)
{
    table_change_range(as, start, end, TABLE_CLEAR, 0, 0);
}

void kvm_table_protect(struct kvm_as *as, uint64_t start, uint64_t end, unsigned access)
{
    table_change_range(as, start, end, TABLE_PROTECT, 0, table_flags(access));
}

/* ---- fork ---- */

/* All but exchange pages, which are of one address space. */
static int table_copy_leaf(struct kvm_as *as, uint64_t addr, const uint64_t *from)
{
    const uint64_t own = KVM_HAND_VA + PAGE_SIZE;
    uint64_t *to;
    int r = table_make(as, addr, &to);

    if (r == 0)
        memcpy(to, from, own - addr < table_span(2) ? (own - addr) / PAGE_SIZE * 8 : PAGE_SIZE);
    return r;
}

int kvm_tables_copy(struct kvm_as *as, struct kvm_as *parent)
{
    uint64_t next = 0;
    int r = 0;

    for (uint64_t at = 0; at < KVM_USER_END && r == 0; at = next) {
        const uint64_t *leaf = table_find(parent, at, &next);
        if (leaf == NULL)
            continue;
        next = at + table_span(2);
        r = table_copy_leaf(as, at, leaf);
    }
    return r;
}

/* ---- looking ---- */

const uint8_t *kvm_table_find_byte(struct kvm_as *as, uint64_t addr)
{
    uint64_t end;
    const uint64_t *entry = addr < KVM_USER_END ? table_find(as, addr, &end) : NULL;

    if (entry == NULL || !(table_load(entry) & PTE_P))
        return NULL;
    return kvm_hva(table_plat(as), table_load(entry) & PTE_ADDR) + (addr & (PAGE_SIZE - 1));
}

/* ---- the machine's own half ---- */

int kvm_kernel_map(struct kvm_plat *p, uint64_t va, uint64_t gpa, uint64_t flags)
{
    uint64_t *table = (uint64_t *)(void *)p->kernel_pdpt.hva;

    for (unsigned level = 3; level > 1; level--) {
        uint64_t *entry = &table[table_index(va, level)];
        if (table_load(entry) == 0) {
            struct kvm_page page;
            int r = kvm_table_page(p, &page);
            if (r != 0)
                return r;
            table_store(entry, page.gpa | PTE_TABLE);
        }
        table = table_entries(p, table_load(entry));
    }
    table_store(&table[table_index(va, 1)], gpa | flags);
    return 0;
}
