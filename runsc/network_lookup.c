#include "runsc/network_lookup.h"

#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOKUP_BACKLOG 64

/* Instructions of the kernel's virtual machine (linux/bpf.h has their parts). */
#define LOAD32(dst_, src_, off_)                                                                   \
    ((struct bpf_insn){.code = BPF_LDX | BPF_W | BPF_MEM,                                          \
                       .dst_reg = (dst_),                                                          \
                       .src_reg = (src_),                                                          \
                       .off = (int16_t)(off_)})
#define STORE32_IMM(dst_, off_, imm_)                                                              \
    ((struct bpf_insn){                                                                            \
        .code = BPF_ST | BPF_W | BPF_MEM, .dst_reg = (dst_), .off = (off_), .imm = (imm_)})
#define MOVE(dst_, src_)                                                                           \
    ((struct bpf_insn){.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = (dst_), .src_reg = (src_)})
#define OP_IMM(op_, dst_, imm_)                                                                    \
    ((struct bpf_insn){.code = BPF_ALU64 | (op_) | BPF_K, .dst_reg = (dst_), .imm = (imm_)})
/* From instruction at_; the machine counts from the one after it. */
#define JUMP(at_, op_, dst_, imm_, to_)                                                            \
    ((struct bpf_insn){.code = BPF_JMP | (op_) | BPF_K,                                            \
                       .dst_reg = (dst_),                                                          \
                       .off = (to_) - (at_)-1,                                                     \
                       .imm = (imm_)})
#define CALL(fn_) ((struct bpf_insn){.code = BPF_JMP | BPF_CALL, .imm = (fn_)})
#define EXIT() ((struct bpf_insn){.code = BPF_JMP | BPF_EXIT})
#define FIELD(name_) offsetof(struct bpf_sk_lookup, name_)

static int lookup_bpf(int cmd, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

/* A map of one entry, the socket: how a program names one. */
static int lookup_map(int listener, struct err *e)
{
    const uint32_t key = 0;
    const uint64_t value = (uint64_t)listener;
    union bpf_attr a;

    memset(&a, 0, sizeof(a));
    a.map_type = BPF_MAP_TYPE_SOCKMAP;
    a.key_size = sizeof(key);
    a.value_size = sizeof(value);
    a.max_entries = 1;
    int map = lookup_bpf(BPF_MAP_CREATE, &a);
    if (map < 0)
        return err_errno(e, errno, "a map of sockets");
    memset(&a, 0, sizeof(a));
    a.map_fd = (uint32_t)map;
    a.key = (uintptr_t)&key;
    a.value = (uintptr_t)&value;
    if (lookup_bpf(BPF_MAP_UPDATE_ELEM, &a) != 0) {
        (void)err_errno(e, errno, "a map of sockets");
        (void)close(map);
        return -1;
    }
    return map;
}

/* Where the program's parts begin. */
enum { AT_IP6 = 10, AT_TAKE = 18, AT_PASS = 32 };

static int lookup_program(int map, struct err *e)
{
    const struct bpf_insn insns[] = {
        MOVE(6, 1),
        /* TCP only; of which family? */
        LOAD32(2, 6, FIELD(protocol)),
        JUMP(2, BPF_JNE, 2, IPPROTO_TCP, AT_PASS),
        LOAD32(2, 6, FIELD(family)),
        JUMP(4, BPF_JEQ, 2, AF_INET6, AT_IP6),
        JUMP(5, BPF_JNE, 2, AF_INET, AT_PASS),
        /* To 127.0.0.0/8, in network order. */
        LOAD32(2, 6, FIELD(local_ip4)),
        OP_IMM(BPF_AND, 2, 0xff),
        JUMP(8, BPF_JNE, 2, 127, AT_PASS),
        JUMP(9, BPF_JA, 0, 0, AT_TAKE),
        /* AT_IP6: to ::1. */
        LOAD32(2, 6, FIELD(local_ip6[0])),
        JUMP(11, BPF_JNE, 2, 0, AT_PASS),
        LOAD32(2, 6, FIELD(local_ip6[1])),
        JUMP(13, BPF_JNE, 2, 0, AT_PASS),
        LOAD32(2, 6, FIELD(local_ip6[2])),
        JUMP(15, BPF_JNE, 2, 0, AT_PASS),
        LOAD32(2, 6, FIELD(local_ip6[3])),
        JUMP(17, BPF_JNE, 2, 0x01000000, AT_PASS),
        /* AT_TAKE: entry 0 of the map is the socket. */
        STORE32_IMM(10, -4, 0),
        MOVE(2, 10),
        OP_IMM(BPF_ADD, 2, -4),
        {.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map},
        {.code = 0},
        CALL(BPF_FUNC_map_lookup_elem),
        JUMP(24, BPF_JEQ, 0, 0, AT_PASS),
        MOVE(7, 0),
        MOVE(1, 6),
        MOVE(2, 7),
        OP_IMM(BPF_MOV, 3, 0),
        CALL(BPF_FUNC_sk_assign),
        MOVE(1, 7),
        CALL(BPF_FUNC_sk_release),
        /* AT_PASS */
        OP_IMM(BPF_MOV, 0, SK_PASS),
        EXIT(),
    };
    union bpf_attr a;

    memset(&a, 0, sizeof(a));
    a.prog_type = BPF_PROG_TYPE_SK_LOOKUP;
    a.expected_attach_type = BPF_SK_LOOKUP;
    a.insns = (uintptr_t)insns;
    a.insn_cnt = ARRAY_SIZE(insns);
    /* What it calls asks for no licence. */
    a.license = (uintptr_t) "Apache-2.0";
    int fd = lookup_bpf(BPF_PROG_LOAD, &a);
    return fd < 0 ? err_errno(e, errno, "a program that finds sockets") : fd;
}

static int lookup_listen(struct err *e)
{
    const int family[] = {AF_INET6, AF_INET};
    union {
        struct sockaddr any;
        struct sockaddr_in6 in6;
        struct sockaddr_in in;
    } sa;
    const int off = 0;
    int fd = -1;

    for (size_t i = 0; i < ARRAY_SIZE(family); i++) {
        memset(&sa, 0, sizeof(sa));
        sa.any.sa_family = (sa_family_t)family[i];
        fd = socket(family[i], SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            continue;
        /* Both families: the first one may be off. */
        if (family[i] == AF_INET6)
            (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
        if (bind(fd, &sa.any, family[i] == AF_INET6 ? sizeof(sa.in6) : sizeof(sa.in)) == 0 &&
            listen(fd, LOOKUP_BACKLOG) == 0)
            return fd;
        (void)close(fd);
    }
    return err_errno(e, errno, "a listening socket");
}

static int lookup_attach(int prog, int ns_fd, struct err *e)
{
    union bpf_attr a;

    memset(&a, 0, sizeof(a));
    a.link_create.prog_fd = (uint32_t)prog;
    a.link_create.target_fd = (uint32_t)ns_fd;
    a.link_create.attach_type = BPF_SK_LOOKUP;
    int fd = lookup_bpf(BPF_LINK_CREATE, &a);
    return fd < 0 ? err_errno(e, errno, "attach to the namespace") : fd;
}

int network_lookup(int ns_fd, int *out_listener, int *out_link, struct err *e)
{
    int listener, map = -1, prog = -1, link = -1;

    listener = lookup_listen(e);
    if (listener < 0)
        return -1;
    map = lookup_map(listener, e);
    if (map >= 0)
        prog = lookup_program(map, e);
    if (prog >= 0)
        link = lookup_attach(prog, ns_fd, e);
    /* The link keeps the program, and that the map. */
    if (map >= 0)
        (void)close(map);
    if (prog >= 0)
        (void)close(prog);
    if (link < 0) {
        (void)close(listener);
        return -1;
    }
    *out_listener = listener;
    *out_link = link;
    return 0;
}
