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
/* Where the address of an entry of 2 MiB is. */
#define PTE_LARGE_ADDR UINT64_C(0x000fffffffe00000)

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

static void table_zap(struct kvm_as *as, uint64_t entry, uint64_t size)
{
    if (!(entry & PTE_P))
        return;
    uint8_t *hva = kvm_hva(table_plat(as), entry & PTE_ADDR);
    struct kvm_zap *last = as->zap_count > 0 ? &as->zaps[as->zap_count - 1] : NULL;
    if (last != NULL && last->hva + last->size == hva) {
        last->size += size;
        return;
    }
    if (as->zap_count == KVM_ZAPS_MAX)
        kvm_zap_locked(as);
    as->zaps[as->zap_count++] = (struct kvm_zap){.hva = hva, .size = size};
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

static bool table_is_large(uint64_t entry)
{
    return entry & PTE_PS;
}

/* The entry for 2 MiB around addr, with the tables above it. */
static int table_make_large(struct kvm_as *as, uint64_t addr, uint64_t **out)
{
    uint64_t *table = (uint64_t *)(void *)as->root.hva;

    for (unsigned level = 4; level > 2; level--) {
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
    *out = &table[table_index(addr, 2)];
    return 0;
}

/* ... which points to a table afterwards: one of 2 MiB is taken apart. The table is whole before
 * anybody can see it, and says the same; what was made of the large entry is zapped. */
static int table_make_small(struct kvm_as *as, uint64_t *entry)
{
    const uint64_t old = table_load(entry);
    struct kvm_page page;

    if (old != 0 && !table_is_large(old))
        return 0;
    int r = table_new(as, &page);
    if (r != 0)
        return r;
    uint64_t *small = (uint64_t *)(void *)page.hva;
    for (uint64_t i = 0; old != 0 && i < PT_ENTRIES; i++)
        small[i] = (old & ~PTE_PS) + i * PAGE_SIZE;
    table_store(entry, page.gpa | PTE_TABLE);
    if (old != 0)
        table_zap(as, old, KVM_LARGE);
    return 0;
}

/* The entry of the last level for addr, with the tables above it. */
static int table_make(struct kvm_as *as, uint64_t addr, uint64_t **out)
{
    uint64_t *large;
    int r = table_make_large(as, addr, &large);

    if (r == 0)
        r = table_make_small(as, large);
    if (r == 0)
        *out = &table_entries(table_plat(as), table_load(large))[table_index(addr, 1)];
    return r;
}

/* The entry for 2 MiB around addr, which has something; or NULL and the end of the hole there. */
static uint64_t *table_find_large(struct kvm_as *as, uint64_t addr, uint64_t *out_end)
{
    uint64_t *table = (uint64_t *)(void *)as->root.hva, *entry = NULL;

    for (unsigned level = 4; level > 1; level--) {
        entry = &table[table_index(addr, level)];
        if (table_load(entry) == 0) {
            *out_end = ALIGN_DOWN(addr, table_span(level)) + table_span(level);
            return NULL;
        }
        if (level > 2)
            table = table_entries(table_plat(as), table_load(entry));
    }
    return entry;
}

/* Whether the 2 MiB at block of a mapping that begins at start get one entry. */
static bool table_takes_large(const struct kvm_as *as, uint64_t block, uint64_t start, uint64_t end,
                              uint64_t gpa)
{
    return as->base.plat->large != 0 && gpa != KVM_NO_GPA && block >= start &&
           end - block >= KVM_LARGE && IS_ALIGNED(gpa - start, KVM_LARGE);
}

int kvm_tables_reserve(struct kvm_as *as, uint64_t start, uint64_t end, uint64_t gpa)
{
    int r = 0;

    for (uint64_t at = ALIGN_DOWN(start, KVM_LARGE); at < end && r == 0; at += KVM_LARGE) {
        uint64_t *entry;
        r = table_make_large(as, at, &entry);
        if (r != 0)
            break;
        const uint64_t old = table_load(entry);
        if (table_takes_large(as, at, start, end, gpa) && (old == 0 || table_is_large(old)))
            continue;
        r = table_make_small(as, entry);
    }
    return r;
}

int kvm_tables_cut(struct kvm_as *as, uint64_t start, uint64_t end)
{
    const uint64_t edges[2] = {start, end};
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(edges) && r == 0; i++) {
        uint64_t hole;
        if (IS_ALIGNED(edges[i], KVM_LARGE))
            continue;
        uint64_t *entry = table_find_large(as, edges[i], &hole);
        if (entry != NULL && table_is_large(table_load(entry)))
            r = table_make_small(as, entry);
    }
    return r;
}

int kvm_table_own_page(struct kvm_as *as, uint64_t addr, unsigned access, struct kvm_page *out)
{
    struct kvm_page page;
    uint64_t *entry;
    int r = table_make(as, addr, &entry);

    if (r == 0)
        r = table_new(as, &page);
    if (r != 0)
        return r;
    table_store(entry, page.gpa | table_flags(access));
    *out = page;
    return 0;
}

/* What is done to the entries of a table that lie in a range. */
enum table_change { TABLE_SET, TABLE_CLEAR, TABLE_PROTECT };

static void table_change_one(struct kvm_as *as, uint64_t *entry, enum table_change change,
                             uint64_t gpa, uint64_t flags, uint64_t size)
{
    uint64_t old = table_load(entry), new = 0;

    if (change != TABLE_SET && old == 0)
        return;
    if (change == TABLE_SET)
        new = gpa | flags;
    else if (change == TABLE_PROTECT)
        new = (old & (size == KVM_LARGE ? PTE_LARGE_ADDR : PTE_ADDR)) | flags;
    if (new != 0 && size == KVM_LARGE)
        new |= PTE_PS;
    if (new == old)
        return;
    table_store(entry, new);
    table_zap(as, old, size);
}

/* Tables were reserved, or cut: an entry of 2 MiB is changed as a whole. */
static void table_change_range(struct kvm_as *as, uint64_t start, uint64_t end,
                               enum table_change change, uint64_t gpa, uint64_t flags)
{
    uint64_t next = 0;

    for (uint64_t at = start; at < end; at = next) {
        const uint64_t block_end = ALIGN_DOWN(at, KVM_LARGE) + KVM_LARGE;
        uint64_t *entry, hole = block_end;
        if (change == TABLE_SET)
            BUG_ON(table_make_large(as, at, &entry) != 0);
        else
            entry = table_find_large(as, at, &hole);
        next = entry == NULL ? hole : MIN(block_end, end);
        if (entry == NULL)
            continue;
        const uint64_t old = table_load(entry);
        if (old == 0 || table_is_large(old)) {
            BUG_ON(next - at != KVM_LARGE);
            table_change_one(as, entry, change, gpa + (at - start), flags, KVM_LARGE);
            continue;
        }
        entry = &table_entries(table_plat(as), old)[table_index(at, 1)];
        for (; at < next; at += PAGE_SIZE, entry++)
            table_change_one(as, entry, change, gpa + (at - start), flags, PAGE_SIZE);
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

/* All but exchange pages and their table, which are of one address space. */
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
    uint64_t next = 0, *to;
    int r = 0;

    for (uint64_t at = 0; at < KVM_USER_END && r == 0; at = next) {
        const uint64_t *from = table_find_large(parent, at, &next);
        if (from == NULL)
            continue;
        next = at + KVM_LARGE;
        const uint64_t entry = table_load(from);
        if (!table_is_large(entry)) {
            r = table_copy_leaf(as, at, table_entries(table_plat(as), entry));
            continue;
        }
        r = table_make_large(as, at, &to);
        if (r == 0)
            table_store(to, entry);
    }
    return r;
}

/* ---- looking ---- */

const uint8_t *kvm_table_find_byte(struct kvm_as *as, uint64_t addr)
{
    struct kvm_plat *p = table_plat(as);
    uint64_t end;
    const uint64_t *at = addr < KVM_USER_END ? table_find_large(as, addr, &end) : NULL;

    if (at == NULL)
        return NULL;
    uint64_t entry = table_load(at);
    if (table_is_large(entry))
        return (entry & PTE_P) ? kvm_hva(p, entry & PTE_LARGE_ADDR) + (addr & (KVM_LARGE - 1))
                               : NULL;
    entry = table_load(&table_entries(p, entry)[table_index(addr, 1)]);
    return (entry & PTE_P) ? kvm_hva(p, entry & PTE_ADDR) + (addr & (PAGE_SIZE - 1)) : NULL;
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
