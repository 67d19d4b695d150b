/* The tree against an oracle: a sorted array, over random insertions and removals. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/rbtree.h"

#define COUNT 400
#define STEPS 20000

struct item {
    struct rb_node rb;
    int key;
    bool in;
};

static struct item items[COUNT];

static struct item *item_of(struct rb_node *n)
{
    return rb_entry(n, struct item, rb);
}

static void insert(struct rb_root *root, struct item *it)
{
    struct rb_node **link = &root->node, *parent = NULL;

    while (*link != NULL) {
        parent = *link;
        link = it->key < item_of(parent)->key ? &parent->left : &parent->right;
    }
    rb_link_node(&it->rb, parent, link);
    rb_insert_color(&it->rb, root);
    it->in = true;
}

/* Black nodes on every way down from the root, or -1 when two ways differ. */
static int black_height(const struct rb_root *root)
{
    int common = -1;

    for (struct rb_node *n = rb_first(root); n != NULL; n = rb_next(n)) {
        int height = 0;

        if (n->red)
            cr_assert(!(n->left && n->left->red) && !(n->right && n->right->red));
        cr_assert(n->left == NULL || n->left->parent == n);
        cr_assert(n->right == NULL || n->right->parent == n);
        if (n->left != NULL && n->right != NULL)
            continue;
        for (const struct rb_node *up = n; up != NULL; up = up->parent)
            height += !up->red;
        cr_assert(common == -1 || common == height, "unbalanced");
        common = height;
    }
    return common;
}

/* items[] is sorted by key and carries membership, so it is the oracle. */
static void check(const struct rb_root *root)
{
    struct rb_node *n = rb_first(root);
    struct rb_node *last = NULL;

    for (int i = 0; i < COUNT; i++) {
        if (!items[i].in)
            continue;
        cr_assert(n == &items[i].rb, "order differs at %d", i);
        cr_assert(rb_prev(n) == last);
        last = n;
        n = rb_next(n);
    }
    cr_assert_null(n);
    cr_assert(rb_last(root) == last);
    cr_assert(root->node == NULL || (!root->node->red && root->node->parent == NULL));
    black_height(root);
}

Test(rbtree, random_against_sorted_array)
{
    struct rb_root root = RB_ROOT;
    unsigned seed = 12345;

    for (int i = 0; i < COUNT; i++)
        items[i].key = i * 3;
    for (int step = 0; step < STEPS; step++) {
        struct item *it = &items[(unsigned)rand_r(&seed) % COUNT];

        if (it->in) {
            rb_erase(&it->rb, &root);
            it->in = false;
        } else {
            insert(&root, it);
        }
        if (step % 16 == 0)
            check(&root);
    }
    check(&root);
}

Test(rbtree, ascending_stays_shallow)
{
    static struct item many[4096];
    struct rb_root root = RB_ROOT;
    int deepest = 0;

    for (int i = 0; i < 4096; i++) {
        many[i].key = i;
        insert(&root, &many[i]);
    }
    for (struct rb_node *n = rb_first(&root); n != NULL; n = rb_next(n)) {
        int depth = 0;

        for (struct rb_node *up = n; up != NULL; up = up->parent)
            depth++;
        deepest = depth > deepest ? depth : deepest;
    }
    cr_assert_leq(deepest, 26, "2*log2(n+1) bounds the depth");
    for (int i = 0; i < 4096; i++)
        rb_erase(&many[i].rb, &root);
    cr_assert(rb_empty(&root));
}

Test(rbtree, replace_keeps_place)
{
    struct rb_root root = RB_ROOT;
    struct item a = {.key = 1}, b = {.key = 2}, c = {.key = 3}, b2 = {.key = 2};

    insert(&root, &b);
    insert(&root, &a);
    insert(&root, &c);
    rb_replace(&b.rb, &b2.rb, &root);
    cr_assert(rb_next(&a.rb) == &b2.rb);
    cr_assert(rb_prev(&c.rb) == &b2.rb);
    cr_assert(root.node == &b2.rb);
}
