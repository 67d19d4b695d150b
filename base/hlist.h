/* Doubly linked list with a head of one word, embedded in its elements: chains of hash tables. A
 * table of heads begins as zeros, so that the part of it that nobody uses takes no memory.
 * Depends on: compiler.h.
 * Threading: none of its own; the list's owner says which lock guards it.
 * Ownership: borrows the elements. */
#ifndef RINGWALL_BASE_HLIST_H
#define RINGWALL_BASE_HLIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

/* A node of zeros is on no list. */
struct hlist_node {
    struct hlist_node *next, **at; /* at: what points here */
};

struct hlist {
    struct hlist_node *first;
};

static inline bool hlist_is_on(const struct hlist_node *n)
{
    return n->at != NULL;
}

/* At the front. n must be on no list. */
static inline void hlist_add(struct hlist_node *n, struct hlist *head)
{
    n->next = head->first;
    n->at = &head->first;
    if (n->next != NULL)
        n->next->at = &n->next;
    head->first = n;
}

/* Takes n off its list, if it is on one. */
static inline void hlist_del(struct hlist_node *n)
{
    if (n->at == NULL)
        return;
    *n->at = n->next;
    if (n->next != NULL)
        n->next->at = n->at;
    *n = (struct hlist_node){0};
}

#define hlist_entry_or_null(node, type, member)                                                    \
    ((node) != NULL ? container_of((node), type, member) : NULL)

/* Front to back; the body must not take elements off. */
#define hlist_for_each_entry(pos, head, member)                                                    \
    for ((pos) = hlist_entry_or_null((head)->first, __typeof__(*(pos)), member); (pos) != NULL;    \
         (pos) = hlist_entry_or_null((pos)->member.next, __typeof__(*(pos)), member))

#endif
