/* spec: a config.json to start from, and the document that `do` runs with. */
#include "runsc/default_spec.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runsc/cmd.h"
#include "runsc/spec.h"

int cmd_spec(const struct cmd_global *g, int argc, char **argv, struct err *e)
{
    const char *bundle = ".";
    bool rootless = false;
    const struct cmd_opt opts[] = {{"bundle", 'b', NULL, &bundle, NULL, NULL},
                                   {"rootless", 0, &rootless, NULL, NULL, NULL}};
    int first = cmd_parse(argc, argv, opts, ARRAY_SIZE(opts), e);
    char *path = NULL;
    int rc = 0;

    (void)g;
    if (first < 0 || cmd_operands(argc, argv, first, 0, 0, e) != 0)
        return -1;
    if (asprintf(&path, "%s/config.json", bundle) < 0)
        return err_set(e, ENOMEM, "out of memory");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = err_errno(e, errno, "cannot write %s", path);
        goto out_path;
    }
    json_t *doc = default_spec();
    if (rootless)
        default_spec_rootless(doc, geteuid(), getegid());
    if (doc == NULL || json_dumpfd(doc, fd, JSON_INDENT(2)) != 0 || write(fd, "\n", 1) != 1)
        rc = err_errno(e, errno, "cannot write %s", path);
    json_decref(doc);
    (void)close(fd);

out_path:
    free(path);
    return rc;
}
