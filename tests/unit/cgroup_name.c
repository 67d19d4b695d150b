/* Where the cgroup of a container is. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "runsc/cgroup_priv.h"

Test(cgroup_name, paths)
{
    static const struct {
        const char *path, *name; /* NULL: refused */
    } rows[] = {
        {"/a/b", "a/b"},
        {"a/b", "a/b"},
        {"//a", "a"},
        {"/a:b:c", "a:b:c"},
        {"a:b", "a:b"},
        {"/a/../b", NULL},
        {"a.slice:p:n", "a.slice/p-n.scope"},
        {"a-b-c.slice:p:n", "a.slice/a-b.slice/a-b-c.slice/p-n.scope"},
        {"-.slice:p:n", "p-n.scope"},
        {":p:n", "system.slice/p-n.scope"},
        {"a.slice::n", "a.slice/n.scope"},
        {"a.slice:p:n:m", "a.slice/p-n:m.scope"},
        {"a.slice:p:a-b.slice", "a.slice/a-b.slice"},
        {"a:p:n", NULL},
        {"-a.slice:p:n", NULL},
        {"a--b.slice:p:n", NULL},
        {"a-.slice:p:n", NULL},
        {".slice:p:n", NULL},
        {"x/a.slice:p:n", NULL},
        {"a.slice:p:n/m", NULL},
        {"a.slice:p/q:n", NULL},
    };
    struct err e;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char *out = NULL;
        const int rc = cgroup_name(rows[i].path, "id", &out, &e);
        cr_assert_eq(rc == 0, rows[i].name != NULL, "%s", rows[i].path);
        if (rc == 0)
            cr_assert_str_eq(out, rows[i].name, "%s: %s", rows[i].path, out);
        free(out);
    }
}

Test(cgroup_name, none_given)
{
    char *out = NULL;
    struct err e;

    cr_assert_eq(cgroup_name(NULL, "id", &out, &e), 0);
    cr_assert_str_eq(out, "ringwall/id");
    free(out);
}
