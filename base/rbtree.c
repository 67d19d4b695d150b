#include "base/rbtree.h"

/* Invariants: a red node has black children; every path from a node down to NULL passes the same
 * number of black nodes; NULL counts as black. */

static bool rb_is_red(const struct rb_node *n)
{
    return n != NULL && n->red;
}

/* Puts new (may be NULL) where old hangs below its parent. old's own pointers stay. */
static void rb_swap_child(struct rb_root *root, const struct rb_node *old, struct rb_node *new)
{
    struct rb_node *parent = old->parent;

    if (parent == NULL)
        root->node = new;
    else if (parent->left == old)
        parent->left = new;
    else
        parent->right = new;
    if (new != NULL)
        new->parent = parent;
}

static void rb_rotate_left(struct rb_root *root, struct rb_node *n)
{
    struct rb_node *up = n->right;

    n->right = up->left;
    if (up->left != NULL)
        up->left->parent = n;
    rb_swap_child(root, n, up);
    up->left = n;
    n->parent = up;
}

static void rb_rotate_right(struct rb_root *root, struct rb_node *n)
{
    struct rb_node *up = n->left;

    n->left = up->right;
    if (up->right != NULL)
        up->right->parent = n;
    rb_swap_child(root, n, up);
    up->right = n;
    n->parent = up;
}

/* n and its parent are red, the uncle is black: at most two rotations end it. */
static void rb_fix_insert_black_uncle(struct rb_root *root, struct rb_node *n)
{
    struct rb_node *parent = n->parent;
    struct rb_node *grand = parent->parent;

    if (parent == grand->left) {
        if (n == parent->right) {
            rb_rotate_left(root, parent);
            parent = n;
        }
        rb_rotate_right(root, grand);
    } else {
        if (n == parent->left) {
            rb_rotate_right(root, parent);
            parent = n;
        }
        rb_rotate_left(root, grand);
    }
    parent->red = false;
    grand->red = true;
}

void rb_insert_color(struct rb_node *n, struct rb_root *root)
{
    while (rb_is_red(n->parent)) {
        struct rb_node *parent = n->parent;
        /* A red parent is not the root. */
        struct rb_node *grand = parent->parent;
        struct rb_node *uncle = grand->left == parent ? grand->right : grand->left;

        if (!rb_is_red(uncle)) {
            rb_fix_insert_black_uncle(root, n);
            break;
        }
        parent->red = false;
        uncle->red = false;
        grand->red = true;
        n = grand;
    }
    root->node->red = false;
}

/* Paths through parent's child n (may be NULL) lack one black node; the sibling is on the right.
 * Returns the node to go on with, or NULL when done. */
static struct rb_node *rb_fix_erase_left(struct rb_root *root, struct rb_node *parent)
{
    struct rb_node *sib = parent->right;

    if (sib->red) {
        sib->red = false;
        parent->red = true;
        rb_rotate_left(root, parent);
        sib = parent->right;
    }
    if (!rb_is_red(sib->left) && !rb_is_red(sib->right)) {
        sib->red = true;
        return parent;
    }
    if (!rb_is_red(sib->right)) {
        sib->left->red = false;
        sib->red = true;
        rb_rotate_right(root, sib);
        sib = parent->right;
    }
    sib->red = parent->red;
    parent->red = false;
    sib->right->red = false;
    rb_rotate_left(root, parent);
    return NULL;
}

static struct rb_node *rb_fix_erase_right(struct rb_root *root, struct rb_node *parent)
{
    struct rb_node *sib = parent->left;

    if (sib->red) {
        sib->red = false;
        parent->red = true;
        rb_rotate_right(root, parent);
        sib = parent->left;
    }
    if (!rb_is_red(sib->left) && !rb_is_red(sib->right)) {
        sib->red = true;
        return parent;
    }
    if (!rb_is_red(sib->left)) {
        sib->right->red = false;
        sib->red = true;
        rb_rotate_left(root, sib);
        sib = parent->left;
    }
    sib->red = parent->red;
    parent->red = false;
    sib->left->red = false;
    rb_rotate_right(root, parent);
    return NULL;
}

static void rb_fix_erase(struct rb_root *root, struct rb_node *n, struct rb_node *parent)
{
    while (parent != NULL && !rb_is_red(n)) {
        struct rb_node *up =
            n == parent->left ? rb_fix_erase_left(root, parent) : rb_fix_erase_right(root, parent);

        if (up == NULL)
            return;
        n = up;
        parent = up->parent;
    }
    if (n != NULL)
        n->red = false;
}

/* n has two children: its successor, which has no left child, takes its place and color. */
static void rb_erase_inner(struct rb_node *n, struct rb_root *root)
{
    struct rb_node *next = n->right;
    struct rb_node *child, *parent;
    bool was_black;

    while (next->left != NULL)
        next = next->left;
    child = next->right;
    parent = next->parent;
    was_black = !next->red;
    if (parent == n) {
        parent = next;
    } else {
        rb_swap_child(root, next, child);
        next->right = n->right;
        next->right->parent = next;
    }
    rb_swap_child(root, n, next);
    next->left = n->left;
    next->left->parent = next;
    next->red = n->red;
    if (was_black)
        rb_fix_erase(root, child, parent);
}

void rb_erase(struct rb_node *n, struct rb_root *root)
{
    struct rb_node *child, *parent = n->parent;

    if (n->left != NULL && n->right != NULL) {
        rb_erase_inner(n, root);
        return;
    }
    child = n->left != NULL ? n->left : n->right;
    rb_swap_child(root, n, child);
    if (!n->red)
        rb_fix_erase(root, child, parent);
}

void rb_replace(struct rb_node *old, struct rb_node *new, struct rb_root *root)
{
    *new = *old;
    rb_swap_child(root, old, new);
    if (new->left != NULL)
        new->left->parent = new;
    if (new->right != NULL)
        new->right->parent = new;
}

struct rb_node *rb_first(const struct rb_root *root)
{
    struct rb_node *n = root->node;

    while (n != NULL && n->left != NULL)
        n = n->left;
    return n;
}

struct rb_node *rb_last(const struct rb_root *root)
{
    struct rb_node *n = root->node;

    while (n != NULL && n->right != NULL)
        n = n->right;
    return n;
}

struct rb_node *rb_next(const struct rb_node *n)
{
    struct rb_node *up;

    if (n->right != NULL) {
        up = n->right;
        while (up->left != NULL)
            up = up->left;
        return up;
    }
    for (up = n->parent; up != NULL && up->right == n; up = up->parent)
        n = up;
    return up;
}

struct rb_node *rb_prev(const struct rb_node *n)
{
    struct rb_node *up;

    if (n->left != NULL) {
        up = n->left;
        while (up->right != NULL)
            up = up->right;
        return up;
    }
    for (up = n->parent; up != NULL && up->left == n; up = up->parent)
        n = up;
    return up;
}
