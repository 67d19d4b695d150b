/* wait: until a container, or one process in it, has ended. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runsc/cmd.h"
#include "runsc/container.h"
#include "runsc/control.h"

static int wait_number(void *arg, const char *value, struct err *e)
{
    char *end;
    long v = strtol(value, &end, 10);

    if (*value == '\0' || *end != '\0' || v < 1 || v > INT32_MAX)
        return err_set(e, EINVAL, "wait: --pid wants a process of the container, not \"%.40s\"",
                       value);
    *(int *)arg = (int)v;
    return 0;
}

static int wait_for(const struct state *st, int pid, struct err *e)
{
    json_t *req = container_op(st, "wait"), *reply = NULL;
    int fd = -1, rc;

    if (pid > 0)
        (void)json_object_set_new(req, "pid", json_integer(pid));
    if (container_connect(st, &fd, e) != 0) {
        json_decref(req);
        return err_set(e, ESRCH, "container not running");
    }
    rc = control_call(fd, req, -1, &reply, e);
    (void)close(fd);
    if (rc != 0)
        return rc;
    printf("{\"id\":\"%s\",\"exitStatus\":%lld}\n", st->id,
           json_integer_value(json_object_get(reply, "exit")));
    json_decref(reply);
    return 0;
}

int cmd_wait(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    int pid = 0;
    const struct cmd_opt opts[] = {{"pid", 0, NULL, NULL, wait_number, &pid}};
    struct state st;
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);

    if (first < 0 || cmd_operands(argc, argv, first, 1, 1, e) != 0 ||
        state_load(g->root, argv[first], &st, e) != 0)
        return -1;
    int rc = wait_for(&st, pid, e);
    state_fini(&st);
    return rc;
}
