#include "runsc/sandbox/guest_seccomp.h"

#include <errno.h>
#include <jansson.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Linux: BPF_MAXINSNS. */
#define PROGRAM_MAX 4096u
#define ARGS_MAX 6u

struct word {
    const char *name;
    uint32_t value;
};

/* SCMP_ACT_ERRNO and _TRACE carry a number besides. */
static const struct word actions[] = {
    {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD},
    {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
    {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS},
    {"SCMP_ACT_TRAP", SCMP_ACT_TRAP},
    {"SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0)},
    {"SCMP_ACT_TRACE", SCMP_ACT_TRACE(0)},
    {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW},
    {"SCMP_ACT_LOG", SCMP_ACT_LOG},
};

static const struct word operators[] = {
    {"SCMP_CMP_NE", SCMP_CMP_NE},
    {"SCMP_CMP_LT", SCMP_CMP_LT},
    {"SCMP_CMP_LE", SCMP_CMP_LE},
    {"SCMP_CMP_EQ", SCMP_CMP_EQ},
    {"SCMP_CMP_GE", SCMP_CMP_GE},
    {"SCMP_CMP_GT", SCMP_CMP_GT},
    {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
};

/* Those a guest can run. The others of a profile are about programs that cannot be here. */
static const struct word arches[] = {
    {"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64},
    {"SCMP_ARCH_X86", SCMP_ARCH_X86},
    {"SCMP_ARCH_X32", SCMP_ARCH_X32},
};

static const struct word flags[] = {
    /* A new program has one thread: nothing to be in step with. */
    {"SECCOMP_FILTER_FLAG_TSYNC", 0},
    {"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
    {"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
};

const char *guest_seccomp_word_name(enum guest_seccomp_word kind, size_t index)
{
    static const struct {
        const struct word *v;
        size_t count;
    } lists[] = {
        [GUEST_SECCOMP_ACTION] = {actions, ARRAY_SIZE(actions)},
        [GUEST_SECCOMP_OPERATOR] = {operators, ARRAY_SIZE(operators)},
        [GUEST_SECCOMP_ARCH] = {arches, ARRAY_SIZE(arches)},
        [GUEST_SECCOMP_FLAG] = {flags, ARRAY_SIZE(flags)},
    };

    return index < lists[kind].count ? lists[kind].v[index].name : NULL;
}

static bool find_word(const struct word *w, size_t count, const char *name, uint32_t *out)
{
    for (size_t i = 0; name != NULL && i < count; i++)
        if (strcmp(w[i].name, name) == 0) {
            *out = w[i].value;
            return true;
        }
    return false;
}

static const char *text_of(const json_t *obj, const char *key)
{
    return json_string_value(json_object_get(obj, key));
}

static int bad_word(const char *where, const char *name, struct err *e)
{
    return err_set(e, EINVAL, "config.json: linux.seccomp.%s: unknown \"%.64s\"", where,
                   name != NULL ? name : "");
}

static int read_action(const json_t *obj, const char *key, const char *errno_key, uint32_t *out,
                       struct err *e)
{
    const char *name = text_of(obj, key);
    const json_t *ret = json_object_get(obj, errno_key);
    json_int_t code = json_is_integer(ret) ? json_integer_value(ret) : EPERM;

    if (name != NULL && strcmp(name, "SCMP_ACT_NOTIFY") == 0)
        return err_set(e, ENOTSUP,
                       "config.json: linux.seccomp: SCMP_ACT_NOTIFY needs an agent on "
                       "the host, which a sandbox does not talk to");
    if (!find_word(actions, ARRAY_SIZE(actions), name, out))
        return bad_word(key, name, e);
    if (code < 0 || code > 0xffff)
        return err_set(e, ERANGE, "config.json: linux.seccomp.%s is out of range", errno_key);
    if (*out == SCMP_ACT_ERRNO(0))
        *out = SCMP_ACT_ERRNO((uint32_t)code);
    else if (*out == SCMP_ACT_TRACE(0))
        *out = SCMP_ACT_TRACE((uint32_t)code);
    return 0;
}

static uint64_t read_u64(const json_t *v)
{
    /* Above INT64_MAX it was read as a real. */
    if (json_is_real(v))
        return (uint64_t)json_real_value(v);
    return (uint64_t)json_integer_value(v);
}

static int read_arg(const json_t *a, struct scmp_arg_cmp *out, struct err *e)
{
    const char *op = text_of(a, "op");
    const json_t *index = json_object_get(a, "index");
    uint32_t cmp = 0;

    if (!find_word(operators, ARRAY_SIZE(operators), op, &cmp))
        return bad_word("syscalls.args.op", op, e);
    if (!json_is_integer(index) || json_integer_value(index) < 0 ||
        json_integer_value(index) >= ARGS_MAX)
        return err_set(e, EINVAL, "config.json: linux.seccomp.syscalls.args.index is not 0 to 5");
    uint64_t one = read_u64(json_object_get(a, "value"));
    uint64_t two = read_u64(json_object_get(a, "valueTwo"));
    *out = (struct scmp_arg_cmp){.arg = (unsigned)json_integer_value(index),
                                 .op = (enum scmp_compare)cmp,
                                 .datum_a = one,
                                 .datum_b = two};
    return 0;
}

static int rule_failed(const char *name, int r, struct err *e)
{
    return err_errno(e, r, "config.json: linux.seccomp: a rule for %.64s", name);
}

/* Conditions on different arguments hold together; several on one argument are alternatives, as
 * runc has it. */
static int add_rule(scmp_filter_ctx ctx, uint32_t action, const char *name,
                    const struct scmp_arg_cmp *args, size_t count, struct err *e)
{
    int nr = seccomp_syscall_resolve_name(name), r = 0;
    unsigned seen = 0;
    bool twice = false;

    if (nr == __NR_SCMP_ERROR)
        return 0;
    for (size_t i = 0; i < count; i++) {
        twice |= (seen & 1u << args[i].arg) != 0;
        seen |= 1u << args[i].arg;
    }
    if (!twice)
        r = seccomp_rule_add_array(ctx, action, nr, (unsigned)count, args);
    for (size_t i = 0; twice && i < count && r == 0; i++)
        r = seccomp_rule_add_array(ctx, action, nr, 1, &args[i]);
    /* Not on every architecture of the profile, or a rule that is there already. */
    return r == 0 || r == -EDOM || r == -EEXIST ? 0 : rule_failed(name, r, e);
}

static int add_entry(scmp_filter_ctx ctx, const json_t *entry, uint32_t fallback, struct err *e)
{
    struct scmp_arg_cmp args[ARGS_MAX * 2];
    const json_t *names = json_object_get(entry, "names"), *list = json_object_get(entry, "args");
    uint32_t action = 0;

    if (read_action(entry, "action", "errnoRet", &action, e) != 0)
        return -1;
    if (json_array_size(list) > ARRAY_SIZE(args))
        return err_set(e, E2BIG, "config.json: linux.seccomp.syscalls.args: too many");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (read_arg(json_array_get(list, i), &args[i], e) != 0)
            return -1;
    if (action == fallback)
        return 0;
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (name == NULL)
            return err_set(e, EINVAL, "config.json: linux.seccomp.syscalls.names: not a string");
        if (add_rule(ctx, action, name, args, json_array_size(list), e) != 0)
            return -1;
    }
    return 0;
}

static int add_arches(scmp_filter_ctx ctx, const json_t *list, struct err *e)
{
    uint32_t token;

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name == NULL || strncmp(name, "SCMP_ARCH_", 10) != 0)
            return bad_word("architectures", name, e);
        if (!find_word(arches, ARRAY_SIZE(arches), name, &token))
            continue;
        int r = seccomp_arch_add(ctx, token);
        if (r != 0 && r != -EEXIST)
            return err_errno(e, r, "config.json: linux.seccomp.architectures: %.64s", name);
    }
    return 0;
}

static int read_flags(const json_t *list, unsigned *out, struct err *e)
{
    uint32_t value;

    *out = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!find_word(flags, ARRAY_SIZE(flags), name, &value))
            return bad_word("flags", name, e);
        *out |= value;
    }
    return 0;
}

static int export_program(scmp_filter_ctx ctx, struct guest_seccomp *out, struct err *e)
{
    const size_t room = PROGRAM_MAX * sizeof(struct sock_filter);
    int fd = memfd_create("seccomp", MFD_CLOEXEC);
    int r = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
    struct sock_filter *insns = malloc(room + 1);
    ssize_t n = -1;

    if (r == 0 && insns != NULL)
        n = pread(fd, insns, room + 1, 0);
    if (fd >= 0)
        (void)close(fd);
    if (r != 0 || n <= 0 || (size_t)n > room || (size_t)n % sizeof(*insns) != 0) {
        free(insns);
        return err_errno(e, r != 0 ? r : E2BIG, "config.json: linux.seccomp");
    }
    out->insns = insns;
    out->count = (size_t)n / sizeof(*insns);
    return 0;
}

static int fill_context(scmp_filter_ctx ctx, const json_t *profile, uint32_t fallback,
                        struct err *e)
{
    const json_t *list = json_object_get(profile, "syscalls");

    /* no_new_privs is the configuration's own affair, not the profile's. */
    if (seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0) != 0 ||
        seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) != 0)
        return err_set(e, EINVAL, "config.json: linux.seccomp: the library refuses");
    if (add_arches(ctx, json_object_get(profile, "architectures"), e) != 0)
        return -1;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (add_entry(ctx, json_array_get(list, i), fallback, e) != 0)
            return -1;
    return 0;
}

int guest_seccomp_build(const json_t *profile, struct guest_seccomp *out, struct err *e)
{
    struct guest_seccomp g = {0};
    uint32_t fallback = 0;

    *out = g;
    if (profile == NULL)
        return 0;
    if (text_of(profile, "listenerPath") != NULL && text_of(profile, "listenerPath")[0] != '\0')
        return err_set(e, ENOTSUP, "config.json: linux.seccomp.listenerPath is not supported");
    if (read_action(profile, "defaultAction", "defaultErrnoRet", &fallback, e) != 0 ||
        read_flags(json_object_get(profile, "flags"), &g.flags, e) != 0)
        return -1;
    scmp_filter_ctx ctx = seccomp_init(fallback);
    if (ctx == NULL)
        return err_set(e, ENOMEM, "config.json: linux.seccomp: out of memory");
    int rc = fill_context(ctx, profile, fallback, e);
    if (rc == 0)
        rc = export_program(ctx, &g, e);
    seccomp_release(ctx);
    if (rc == 0)
        *out = g;
    return rc;
}

void guest_seccomp_free(struct guest_seccomp *g)
{
    free(g->insns);
    *g = (struct guest_seccomp){0};
}

/* ---- as text ---- */

json_t *guest_seccomp_json(const struct guest_seccomp *g)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = (const unsigned char *)g->insns;
    size_t size = g->count * sizeof(*g->insns);
    char *text = malloc(2 * size + 1);

    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[2 * size] = '\0';
    json_t *doc = json_pack("{s:s,s:I}", "program", text, "flags", (json_int_t)g->flags);
    free(text);
    return doc;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int guest_seccomp_parse(const json_t *doc, struct guest_seccomp *out)
{
    const char *text = text_of(doc, "program");
    size_t size = text != NULL ? strlen(text) / 2 : 0;
    unsigned char *bytes;

    if (size == 0 || size % sizeof(struct sock_filter) != 0 ||
        size > PROGRAM_MAX * sizeof(struct sock_filter) || strlen(text) != 2 * size)
        return -EINVAL;
    bytes = malloc(size);
    if (bytes == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < size; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            free(bytes);
            return -EINVAL;
        }
        bytes[i] = (unsigned char)(high << 4 | low);
    }
    out->insns = (struct sock_filter *)(void *)bytes;
    out->count = size / sizeof(struct sock_filter);
    out->flags = (unsigned)json_integer_value(json_object_get(doc, "flags"));
    return 0;
}
