/* Red-black tree, embedded in its elements; the caller compares and descends.
 * Depends on: compiler.h.
 * Threading: none of its own; the tree's owner says which lock guards it.
 * Ownership: borrows the elements.
 *
 * Insertion:
 *     struct rb_node **link = &root->node, *parent = NULL;
 *     while (*link) {
 *         parent = *link;
 *         link = key < rb_entry(parent, struct x, rb)->key ? &parent->left : &parent->right;
 *     }
 *     rb_link_node(&x->rb, parent, link);
 *     rb_insert_color(&x->rb, root); */
#ifndef RINGWALL_BASE_RBTREE_H
#define RINGWALL_BASE_RBTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct rb_node {
    struct rb_node *parent, *left, *right;
    bool red;
};

struct rb_root {
    struct rb_node *node;
};

#define RB_ROOT ((struct rb_root){NULL})
#define rb_entry(ptr, type, member) container_of(ptr, type, member)
/* NULL stays NULL. */
#define rb_entry_safe(ptr, type, member)                                                           \
    __extension__({                                                                                \
        struct rb_node *rb_entry_p_ = (ptr);                                                       \
        rb_entry_p_ ? rb_entry(rb_entry_p_, type, member) : NULL;                                  \
    })

static inline bool rb_empty(const struct rb_root *root)
{
    return root->node == NULL;
}

/* Hangs n below parent at *link (a child pointer that is NULL); rb_insert_color must follow. */
static inline void rb_link_node(struct rb_node *n, struct rb_node *parent, struct rb_node **link)
{
    n->parent = parent;
    n->left = NULL;
    n->right = NULL;
    n->red = true;
    *link = n;
}

void rb_insert_color(struct rb_node *n, struct rb_root *root);
void rb_erase(struct rb_node *n, struct rb_root *root);
/* Puts new, which compares equal, in the place of old. */
void rb_replace(struct rb_node *old, struct rb_node *new, struct rb_root *root);
/* In order; NULL at the end. */
struct rb_node *rb_first(const struct rb_root *root);
struct rb_node *rb_last(const struct rb_root *root);
struct rb_node *rb_next(const struct rb_node *n);
struct rb_node *rb_prev(const struct rb_node *n);

#endif
