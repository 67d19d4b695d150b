#include "runsc/state.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/limits.h"

#define STATE_ID_MAX 128
#define STATE_FILE "state.json"
/* It holds what config.json said of the process, hooks and annotations. */
#define STATE_SIZE_MAX ((off_t)LIMIT_CONFIG_SIZE * 2)

int state_check_id(const char *id, struct err *e)
{
    size_t len = strlen(id);

    if (len == 0 || len > STATE_ID_MAX)
        return err_set(e, EINVAL, "container id must have 1 to %d characters", STATE_ID_MAX);
    if (strcmp(id, ".") == 0 || strcmp(id, "..") == 0)
        return err_set(e, EINVAL, "container id \"%s\" is not allowed", id);
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)id[i]) && strchr("_+-.", id[i]) == NULL)
            return err_set(e, EINVAL,
                           "container id \"%.128s\" may hold letters, digits and _+-. only", id);
    return 0;
}

static void state_init(struct state *st)
{
    memset(st, 0, sizeof(*st));
    st->root_fd = -1;
    st->dir_fd = -1;
}

/* mkdir -p of the state root. */
static int state_make_root(const char *root, struct err *e)
{
    char path[2048];
    size_t len = strlen(root);

    if (len == 0 || len >= sizeof(path))
        return err_set(e, ENAMETOOLONG, "--root: the path is empty or too long");
    memcpy(path, root, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        char c = path[i];
        path[i] = '\0';
        if (mkdir(path, i == len ? 0711 : 0755) != 0 && errno != EEXIST)
            return err_errno(e, errno, "cannot make the state directory %s", path);
        path[i] = c;
    }
    return 0;
}

static int state_open_root(const char *root, struct state *st, struct err *e)
{
    st->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return st->root_fd < 0 ? err_errno(e, errno, "cannot open the state directory %s", root) : 0;
}

int state_create(const char *root, const char *id, struct state *st, struct err *e)
{
    state_init(st);
    if (state_check_id(id, e) != 0 || state_make_root(root, e) != 0 ||
        state_open_root(root, st, e) != 0)
        goto out_fail;
    if (mkdirat(st->root_fd, id, 0711) != 0) {
        if (errno == EEXIST)
            (void)err_set(e, EEXIST, "container \"%s\" exists already", id);
        else
            (void)err_errno(e, errno, "cannot make the state of container \"%s\"", id);
        goto out_fail;
    }
    st->id = strdup(id);
    st->dir_fd = openat(st->root_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (st->dir_fd < 0 || st->id == NULL) {
        (void)err_errno(e, errno, "cannot open the state of container \"%s\"", id);
        (void)unlinkat(st->root_fd, id, AT_REMOVEDIR);
        goto out_fail;
    }
    return 0;

out_fail:
    state_fini(st);
    return -1;
}

static json_t *state_process_json(const struct state_process *p)
{
    return json_pack("{s:i,s:I}", "pid", (int)p->pid, "start", (json_int_t)p->start_ticks);
}

static json_t *state_json(const struct state *st)
{
    json_t *cgroups = json_array();
    json_t *doc;

    for (size_t i = 0; i < st->cgroup_count; i++)
        (void)json_array_append_new(cgroups, json_string(st->cgroups[i]));
    doc = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:o}", "id", st->id, "bundle", st->bundle,
                    "rootfs", st->rootfs, "created", st->created, "platform", st->platform,
                    "ociVersion", st->oci_version, "sentry", state_process_json(&st->sentry),
                    "gofer", state_process_json(&st->gofer), "cgroups", cgroups);
    if (doc != NULL && st->sandbox != NULL)
        (void)json_object_set_new(doc, "sandbox", json_string(st->sandbox));
    if (doc != NULL && st->annotations != NULL)
        (void)json_object_set(doc, "annotations", st->annotations);
    if (doc != NULL && st->hooks != NULL)
        (void)json_object_set(doc, "hooks", st->hooks);
    if (doc != NULL && st->process != NULL)
        (void)json_object_set(doc, "process", st->process);
    return doc;
}

/* In one call each: jansson's own go by pieces of a few bytes. */
static int state_write_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, text, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        text += n;
        size -= (size_t)n;
    }
    return 0;
}

static json_t *state_read_json(int fd, json_error_t *je)
{
    struct stat st;
    size_t size = 0;
    char *text =
        fstat(fd, &st) == 0 && st.st_size <= STATE_SIZE_MAX ? malloc((size_t)st.st_size + 1) : NULL;

    (void)snprintf(je->text, sizeof(je->text), "it cannot be read");
    if (text == NULL)
        return NULL;
    for (ssize_t n = 1; n > 0 && size < (size_t)st.st_size; size += (size_t)MAX(n, 0))
        n = read(fd, text + size, (size_t)st.st_size - size);
    json_t *doc = json_loadb(text, size, 0, je);
    free(text);
    return doc;
}

int state_save(const struct state *st, struct err *e)
{
    json_t *doc = state_json(st);
    char *text = doc == NULL ? NULL : json_dumps(doc, JSON_COMPACT);
    int rc = -1;

    json_decref(doc);
    if (text == NULL)
        return err_set(e, ENOMEM, "out of memory");
    int fd = openat(st->dir_fd, "state.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        (void)err_errno(e, errno, "cannot write the container's state");
        goto out_text;
    }
    if (state_write_all(fd, text, strlen(text)) != 0)
        (void)err_errno(e, errno, "cannot write the container's state");
    else if (renameat(st->dir_fd, "state.new", st->dir_fd, STATE_FILE) != 0)
        (void)err_errno(e, errno, "cannot write the container's state");
    else
        rc = 0;
    (void)close(fd);

out_text:
    free(text);
    return rc;
}

static char *state_text(const json_t *doc, const char *key)
{
    const char *v = json_string_value(json_object_get(doc, key));

    return strdup(v != NULL ? v : "");
}

static void state_process_read(const json_t *doc, const char *key, struct state_process *out)
{
    const json_t *p = json_object_get(doc, key);

    out->pid = (pid_t)json_integer_value(json_object_get(p, "pid"));
    out->start_ticks = (uint64_t)json_integer_value(json_object_get(p, "start"));
}

static void state_read(struct state *st, const json_t *doc)
{
    const json_t *cgroups = json_object_get(doc, "cgroups");

    st->bundle = state_text(doc, "bundle");
    st->rootfs = state_text(doc, "rootfs");
    st->created = state_text(doc, "created");
    st->platform = state_text(doc, "platform");
    st->oci_version = state_text(doc, "ociVersion");
    if (json_is_string(json_object_get(doc, "sandbox")))
        st->sandbox = state_text(doc, "sandbox");
    state_process_read(doc, "sentry", &st->sentry);
    state_process_read(doc, "gofer", &st->gofer);
    for (size_t i = 0; i < json_array_size(cgroups) && i < STATE_CGROUPS_MAX; i++) {
        const char *dir = json_string_value(json_array_get(cgroups, i));
        if (dir != NULL)
            st->cgroups[st->cgroup_count++] = strdup(dir);
    }
    st->annotations = json_incref(json_object_get(doc, "annotations"));
    st->hooks = json_incref(json_object_get(doc, "hooks"));
    st->process = json_incref(json_object_get(doc, "process"));
}

static int state_open_dir(const char *root, const char *id, struct state *st, struct err *e)
{
    if (state_check_id(id, e) != 0)
        return -1;
    st->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (st->root_fd >= 0)
        st->dir_fd = openat(st->root_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (st->dir_fd >= 0)
        return 0;
    if (errno == ENOENT)
        return err_set(e, ENOENT, "container \"%s\" does not exist", id);
    return err_errno(e, errno, "cannot open the state of container \"%s\"", id);
}

int state_load(const char *root, const char *id, struct state *st, struct err *e)
{
    json_error_t je;
    json_t *doc;

    state_init(st);
    if (state_open_dir(root, id, st, e) != 0)
        goto out_fail;
    st->id = strdup(id);
    int fd = openat(st->dir_fd, STATE_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        (void)err_set(e, ENOENT, "container \"%s\" is not created completely", id);
        goto out_fail;
    }
    doc = state_read_json(fd, &je);
    (void)close(fd);
    if (!json_is_object(doc)) {
        json_decref(doc);
        (void)err_set(e, EINVAL, "state of container \"%s\" is damaged: %s", id, je.text);
        goto out_fail;
    }
    state_read(st, doc);
    json_decref(doc);
    return 0;

out_fail:
    state_fini(st);
    return -1;
}

void state_remove(struct state *st)
{
    if (st->dir_fd < 0)
        return;
    state_execs_clear(st);
    (void)unlinkat(st->dir_fd, "control.sock", 0);
    (void)unlinkat(st->dir_fd, "state.new", 0);
    (void)unlinkat(st->dir_fd, STATE_FILE, 0);
    (void)unlinkat(st->root_fd, st->id, AT_REMOVEDIR);
}

void state_remove_incomplete(const char *root, const char *id)
{
    struct state st;
    struct err e;

    state_init(&st);
    if (state_open_dir(root, id, &st, &e) == 0 && faccessat(st.dir_fd, STATE_FILE, F_OK, 0) != 0 &&
        (st.id = strdup(id)) != NULL)
        state_remove(&st);
    state_fini(&st);
}

void state_fini(struct state *st)
{
    if (st->dir_fd >= 0)
        (void)close(st->dir_fd);
    if (st->root_fd >= 0)
        (void)close(st->root_fd);
    free(st->id);
    free(st->bundle);
    free(st->rootfs);
    free(st->created);
    free(st->platform);
    free(st->oci_version);
    free(st->sandbox);
    for (size_t i = 0; i < st->cgroup_count; i++)
        free(st->cgroups[i]);
    json_decref(st->annotations);
    json_decref(st->hooks);
    json_decref(st->process);
    state_init(st);
}

/* Field 3 (state) and 22 (start time) of /proc/<pid>/stat; the name before them may hold anything.
 */
static int state_read_stat(pid_t pid, char *out_state, uint64_t *out_start)
{
    char path[64], text[1024];
    unsigned long long start;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (n <= 0)
        return -ESRCH;
    text[n] = '\0';
    const char *p = strrchr(text, ')');
    if (p == NULL ||
        sscanf(p + 1,
               " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               out_state, &start) != 2)
        return -EINVAL;
    *out_start = start;
    return 0;
}

void state_process_note(struct state_process *p, pid_t pid)
{
    char s;

    p->pid = pid;
    p->start_ticks = 0;
    if (state_read_stat(pid, &s, &p->start_ticks) != 0)
        p->pid = 0;
}

bool state_process_alive(const struct state_process *p)
{
    char s = 0;
    uint64_t start = 0;

    if (p->pid <= 0 || state_read_stat(p->pid, &s, &start) != 0)
        return false;
    return start == p->start_ticks && s != 'Z' && s != 'X';
}

int state_process_open(const struct state_process *p)
{
    int fd = p->pid > 0 ? (int)syscall(SYS_pidfd_open, p->pid, 0u) : -1;

    /* The descriptor is of whom we mean: it is there while its start time is the noted one. */
    if (fd >= 0 && !state_process_alive(p)) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static int state_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int state_list(const char *root, char ***out_ids, size_t *out_count, struct err *e)
{
    DIR *dir = opendir(root);
    char **ids = NULL;
    size_t count = 0, room = 0;

    if (dir == NULL && errno != ENOENT)
        return err_errno(e, errno, "cannot read the state directory %s", root);
    for (struct dirent *d; dir != NULL && (d = readdir(dir)) != NULL;) {
        struct err ignored;
        if (d->d_name[0] == '.' || state_check_id(d->d_name, &ignored) != 0)
            continue;
        if (count == room) {
            room = room != 0 ? 2 * room : 16;
            char **more = realloc(ids, room * sizeof(*ids));
            if (more == NULL)
                break;
            ids = more;
        }
        ids[count++] = strdup(d->d_name);
    }
    if (dir != NULL)
        (void)closedir(dir);
    if (count > 0)
        qsort(ids, count, sizeof(*ids), state_compare);
    *out_ids = ids;
    *out_count = count;
    return 0;
}
