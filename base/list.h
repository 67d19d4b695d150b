/* Doubly linked circular list, embedded in its elements.
 * Depends on: compiler.h.
 * Threading: none of its own; the list's owner says which lock guards it.
 * Ownership: borrows the elements. */
#ifndef RINGWALL_BASE_LIST_H
#define RINGWALL_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

/* Both a head and a node. An initialised node that is on no list points at itself. */
struct list {
    struct list *next, *prev;
};

#define LIST_INIT(name)                                                                            \
    {                                                                                              \
        &(name), &(name)                                                                           \
    }

static inline void list_init(struct list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_insert_between(struct list *n, struct list *prev, struct list *next)
{
    n->prev = prev;
    n->next = next;
    prev->next = n;
    next->prev = n;
}

/* At the front. Also: right after element head. n must be on no list. */
static inline void list_add(struct list *n, struct list *head)
{
    list_insert_between(n, head, head->next);
}

/* At the back. Also: right before element head. */
static inline void list_add_tail(struct list *n, struct list *head)
{
    list_insert_between(n, head->prev, head);
}

/* Takes n off its list and leaves it initialised, so a second call does nothing and
 * list_empty(n) says whether n is on a list. */
static inline void list_del(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}

static inline void list_move(struct list *n, struct list *head)
{
    list_del(n);
    list_add(n, head);
}

static inline void list_move_tail(struct list *n, struct list *head)
{
    list_del(n);
    list_add_tail(n, head);
}

/* Moves all of from to the back of to; from is empty afterwards. */
static inline void list_splice_tail(struct list *from, struct list *to)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)
/* The list must not be empty. */
#define list_first_entry(head, type, member) list_entry((head)->next, type, member)
#define list_last_entry(head, type, member) list_entry((head)->prev, type, member)

#define list_for_each_entry(pos, head, member)                                                     \
    for (pos = list_entry((head)->next, __typeof__(*pos), member); &pos->member != (head);         \
         pos = list_entry(pos->member.next, __typeof__(*pos), member))

#define list_for_each_entry_reverse(pos, head, member)                                             \
    for (pos = list_entry((head)->prev, __typeof__(*pos), member); &pos->member != (head);         \
         pos = list_entry(pos->member.prev, __typeof__(*pos), member))

/* pos may be removed in the body; tmp is a second cursor of the same type. */
#define list_for_each_entry_safe(pos, tmp, head, member)                                           \
    for (pos = list_entry((head)->next, __typeof__(*pos), member),                                 \
        tmp = list_entry(pos->member.next, __typeof__(*pos), member);                              \
         &pos->member != (head);                                                                   \
         pos = tmp, tmp = list_entry(tmp->member.next, __typeof__(*tmp), member))

#endif
