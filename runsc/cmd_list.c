/* list: every container under the state root. */
#include <errno.h>
#include <jansson.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runsc/cmd.h"
#include "runsc/container.h"

/* From /etc/passwd alone: other sources of names need shared objects, which this program has not.
 */
static json_t *list_owner(const struct state *st)
{
    struct stat sb;
    const struct passwd *pw = NULL;
    FILE *f = fopen("/etc/passwd", "re");

    if (fstat(st->dir_fd, &sb) != 0)
        sb.st_uid = (uid_t)-1;
    while (f != NULL && (pw = fgetpwent(f)) != NULL && pw->pw_uid != sb.st_uid)
        ;
    json_t *owner = pw != NULL ? json_string(pw->pw_name) : json_sprintf("%u", (unsigned)sb.st_uid);
    if (f != NULL)
        (void)fclose(f);
    return owner;
}

static json_t *list_row(struct state *st)
{
    json_t *row = container_state_json(st, container_status(st));

    (void)json_object_set_new(row, "owner", list_owner(st));
    return row;
}

static const char *list_text(const json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

static void list_print(const json_t *rows, bool quiet, bool as_json)
{
    size_t i;
    json_t *r;

    if (as_json) {
        (void)json_dumpf(rows, stdout, JSON_COMPACT);
        (void)putchar('\n');
        return;
    }
    if (!quiet)
        printf("%-24s %-8s %-10s %-40s %-32s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED",
               "OWNER");
    json_array_foreach(rows, i, r)
    {
        if (quiet)
            printf("%s\n", list_text(r, "id"));
        else
            printf("%-24s %-8lld %-10s %-40s %-32s %s\n", list_text(r, "id"),
                   json_integer_value(json_object_get(r, "pid")), list_text(r, "status"),
                   list_text(r, "bundle"), list_text(r, "created"), list_text(r, "owner"));
    }
}

int cmd_list(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    bool quiet = false;
    const char *format = "table";
    const struct cmd_opt opts[] = {{"quiet", 'q', &quiet, NULL, NULL, NULL},
                                   {"format", 'f', NULL, &format, NULL, NULL}};
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
    char **ids;
    size_t count;

    if (first < 0 || cmd_operands(argc, argv, first, 0, 0, e) != 0)
        return -1;
    if (strcmp(format, "table") != 0 && strcmp(format, "json") != 0)
        return err_set(e, EINVAL, "list: --format must be table or json");
    if (state_list(g->root, &ids, &count, e) != 0)
        return -1;
    json_t *rows = json_array();
    for (size_t i = 0; i < count; i++) {
        struct state st;
        struct err gone;
        /* One that is being made, or removed, at this moment is not listed. */
        if (state_load(g->root, ids[i], &st, &gone) == 0) {
            (void)json_array_append_new(rows, list_row(&st));
            state_fini(&st);
        }
        free(ids[i]);
    }
    free(ids);
    list_print(rows, quiet, strcmp(format, "json") == 0);
    json_decref(rows);
    return 0;
}
