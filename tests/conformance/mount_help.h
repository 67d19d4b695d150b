/* What the conformance programs of mounts share: a place of their own, and what mountinfo says.
 * Depends on: harness.h.
 * Threading: a case's own thread.
 * Ownership: a case's mounts are its own. */
#ifndef CONFORMANCE_MOUNT_HELP_H
#define CONFORMANCE_MOUNT_HELP_H

#include "harness.h"

#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define MOUNT_HELP __attribute__((unused)) static

/* A mount namespace of the case's own, in which nothing spreads; in a container whose namespaces
 * cannot be copied the container is thrown away anyway. */
MOUNT_HELP void own_mounts(void)
{
    NEED_ROOT();
    if (unshare(CLONE_NEWNS) != 0 && getenv("CONFORMANCE") == NULL)
        conf_fail(__FILE__, __LINE__, "no mount namespace (errno %d)", errno);
    if (getenv("CONFORMANCE") == NULL)
        OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("base", 0755));
    OK(mount("tmpfs", "base", "tmpfs", 0, "size=1m"));
    OK(mount(NULL, "base", NULL, MS_PRIVATE, NULL));
    OK(chdir("base"));
}

/* The line of mountinfo for what is mounted at path, the last of them: it is on top. */
MOUNT_HELP bool info_line(const char *path, char *line, size_t size)
{
    char cwd[256], full[512], at[1024], text[2048];
    bool found = false;

    OK(getcwd(cwd, sizeof(cwd)) ? 0 : -1);
    (void)snprintf(full, sizeof(full), "%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path);
    FILE *f = fopen("/proc/self/mountinfo", "r");
    CHECK(f != NULL);
    while (fgets(text, sizeof(text), f) != NULL)
        if (sscanf(text, "%*d %*d %*s %*s %1023s", at) == 1 && strcmp(at, full) == 0) {
            (void)snprintf(line, size, "%s", text);
            found = true;
        }
    (void)fclose(f);
    return found;
}

MOUNT_HELP int tag(const char *path, const char *name)
{
    char line[2048], *at;

    if (!info_line(path, line, sizeof(line)))
        conf_fail(__FILE__, __LINE__, "nothing is mounted at %s", path);
    at = strstr(line, name);
    if (at == NULL || at > strstr(line, " - "))
        return 0;
    return atoi(at + strlen(name));
}

MOUNT_HELP bool info_has(const char *path, const char *text)
{
    char line[2048];

    CHECK(info_line(path, line, sizeof(line)));
    return strstr(line, text) != NULL;
}

MOUNT_HELP bool is_mounted(const char *path)
{
    char line[2048];

    return info_line(path, line, sizeof(line));
}

MOUNT_HELP void tmpfs(const char *path)
{
    (void)mkdir(path, 0755);
    OK(mount("none", path, "tmpfs", 0, "size=64k"));
}

MOUNT_HELP void type(const char *path, unsigned long flags)
{
    OK(mount(NULL, path, NULL, flags, NULL));
}

#endif
