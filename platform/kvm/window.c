/* Host files in guest-physical memory. A chunk is a slot whose host addresses are reserved; windows
 * are pieces of it on which a file is mapped. What the machine knew of a piece goes with the host's
 * mapping, so that a piece can be used again. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "platform/kvm/kvm_priv.h"

struct window_chunk {
    struct list node; /* in kvm_plat.window_chunks */
    uint8_t *hva;
    uint64_t gpa;
    struct list pieces; /* window_piece.node, in order; they cover the chunk */
};

struct window_piece {
    struct list node;
    struct window_chunk *chunk;
    uint64_t start, size;
    bool used;
    struct kvm_window w;
};

static struct window_piece *piece_of(struct kvm_window *w)
{
    return container_of(w, struct window_piece, w);
}

static struct window_chunk *chunk_new_locked(struct kvm_plat *p)
{
    struct window_chunk *c = calloc(1, sizeof(*c));
    struct window_piece *all = calloc(1, sizeof(*all));
    uint32_t slot;

    if (c == NULL || all == NULL)
        goto out_free;
    c->hva =
        mmap(NULL, KVM_SLOT_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->hva == MAP_FAILED)
        goto out_free;
    if (kvm_slot_add_locked(p, c->hva, KVM_SLOT_SIZE, &slot) != 0)
        goto out_unmap;
    c->gpa = kvm_slot_gpa(slot);
    list_init(&c->pieces);
    *all = (struct window_piece){.chunk = c, .size = KVM_SLOT_SIZE};
    list_add(&all->node, &c->pieces);
    list_add_tail(&c->node, &p->window_chunks);
    return c;

out_unmap:
    (void)munmap(c->hva, KVM_SLOT_SIZE);
out_free:
    free(c);
    free(all);
    return NULL;
}

/* First fit: windows are few, and most programs map the same ones. */
static struct window_piece *chunk_find(struct window_chunk *c, uint64_t size)
{
    struct window_piece *piece;

    list_for_each_entry (piece, &c->pieces, node)
        if (!piece->used && piece->size >= size)
            return piece;
    return NULL;
}

static struct window_piece *piece_find_locked(struct kvm_plat *p, uint64_t size)
{
    struct window_chunk *c;
    struct window_piece *piece;

    list_for_each_entry (c, &p->window_chunks, node) {
        piece = chunk_find(c, size);
        if (piece != NULL)
            return piece;
    }
    c = chunk_new_locked(p);
    return c != NULL ? chunk_find(c, size) : NULL;
}

static struct window_piece *piece_take_locked(struct kvm_plat *p, uint64_t size)
{
    struct window_piece *piece = piece_find_locked(p, size);

    if (piece == NULL)
        return NULL;
    if (piece->size > size) {
        struct window_piece *rest = calloc(1, sizeof(*rest));
        if (rest == NULL)
            return NULL;
        *rest = (struct window_piece){
            .chunk = piece->chunk, .start = piece->start + size, .size = piece->size - size};
        list_add(&rest->node, &piece->node);
        piece->size = size;
    }
    piece->used = true;
    return piece;
}

static void piece_join(struct window_piece *front, struct window_piece *back)
{
    front->size += back->size;
    list_del(&back->node);
    free(back);
}

static void piece_give_locked(struct window_piece *piece)
{
    struct list *head = &piece->chunk->pieces;

    piece->used = false;
    if (piece->node.next != head) {
        struct window_piece *next = list_first_entry(&piece->node, struct window_piece, node);
        if (!next->used)
            piece_join(piece, next);
    }
    if (piece->node.prev != head) {
        struct window_piece *prev = list_last_entry(&piece->node, struct window_piece, node);
        if (!prev->used)
            piece_join(prev, piece);
    }
}

static bool window_shows(const struct kvm_window *w, int fd, uint64_t off, uint64_t size,
                         bool private_map)
{
    return w->fd == fd && w->off == off && w->size == size && w->private_map == private_map;
}

/* A descriptor that may not be written cannot be mapped for writing; tables never ask for it. */
static int window_map(struct kvm_window *w)
{
    int flags = MAP_FIXED | (w->private_map ? MAP_PRIVATE : MAP_SHARED);
    int prot = PROT_READ | (w->private_map ? 0 : PROT_WRITE);
    void *at = mmap(w->hva, w->size, prot, flags, w->fd, (off_t)w->off);

    if (at == MAP_FAILED && errno == EACCES)
        at = mmap(w->hva, w->size, PROT_READ, flags, w->fd, (off_t)w->off);
    return at == MAP_FAILED ? -errno : 0;
}

static int window_new_locked(struct kvm_plat *p, const struct kvm_window *like,
                             struct kvm_window **out)
{
    struct window_piece *piece = piece_take_locked(p, like->size);

    if (piece == NULL)
        return -ENOMEM;
    piece->w = *like;
    piece->w.hva = piece->chunk->hva + piece->start;
    piece->w.gpa = piece->chunk->gpa + piece->start;
    int r = window_map(&piece->w);
    if (r != 0) {
        piece_give_locked(piece);
        return r;
    }
    list_add(&piece->w.node, &p->windows);
    *out = &piece->w;
    return 0;
}

int kvm_window_get(struct kvm_plat *p, int fd, uint64_t off, uint64_t size, bool private_map,
                   struct kvm_window **out)
{
    const struct kvm_window like = {
        .refs = 1, .fd = fd, .off = off, .size = size, .private_map = private_map};
    struct kvm_window *w;
    int r;

    mutex_lock(&p->mu);
    list_for_each_entry (w, &p->windows, node) {
        if (!window_shows(w, fd, off, size, private_map))
            continue;
        w->refs++;
        *out = w;
        mutex_unlock(&p->mu);
        return 0;
    }
    r = window_new_locked(p, &like, out);
    mutex_unlock(&p->mu);
    return r;
}

void kvm_window_ref(struct kvm_plat *p, struct kvm_window *w)
{
    mutex_lock(&p->mu);
    w->refs++;
    mutex_unlock(&p->mu);
}

void kvm_window_put(struct kvm_plat *p, struct kvm_window *w)
{
    mutex_lock(&p->mu);
    if (--w->refs == 0) {
        void *at = mmap(w->hva, w->size, PROT_NONE,
                        MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        BUG_ON(at == MAP_FAILED);
        list_del(&w->node);
        piece_give_locked(piece_of(w));
    }
    mutex_unlock(&p->mu);
}

void kvm_windows_fini(struct kvm_plat *p)
{
    struct window_chunk *c, *next_chunk;
    struct window_piece *piece, *next_piece;

    list_for_each_entry_safe (c, next_chunk, &p->window_chunks, node) {
        list_for_each_entry_safe (piece, next_piece, &c->pieces, node)
            free(piece);
        (void)munmap(c->hva, KVM_SLOT_SIZE);
        free(c);
    }
}
