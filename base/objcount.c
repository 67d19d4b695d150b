#include "base/objcount.h"

#include <stddef.h>
#include <string.h>

#include "base/log.h"

/* Weak: a program may define no counter at all. */
extern struct objcount __start_ringwall_objcount[] __attribute__((weak));
extern struct objcount __stop_ringwall_objcount[] __attribute__((weak));

int64_t objcount_report(void)
{
    int64_t sum = 0;

    for (struct objcount *o = __start_ringwall_objcount; o < __stop_ringwall_objcount; o++) {
        int64_t live = atomic_load(&o->live);

        if (live != 0)
            log_error("%lld live %s", (long long)live, o->name);
        sum += live;
    }
    return sum;
}

int64_t objcount_live(const char *name)
{
    for (struct objcount *o = __start_ringwall_objcount; o < __stop_ringwall_objcount; o++) {
        if (strcmp(o->name, name) == 0)
            return atomic_load(&o->live);
    }
    return -1;
}
