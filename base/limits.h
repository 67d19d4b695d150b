/* Every bound on guest-driven work that is not already a number of Linux's ABI.
 * Depends on: nothing.
 * Threading: constants.
 * Ownership: none. Each says what it bounds and what the guest sees at the bound. */
#ifndef RINGWALL_BASE_LIMITS_H
#define RINGWALL_BASE_LIMITS_H

/* Tasks (threads) in one sandbox: clone gives EAGAIN. Also the default pid_max of /proc. */
#define LIMIT_TASKS 32768
/* 64-bit words of an affinity mask that are kept: 512 CPUs. */
#define LIMIT_CPU_WORDS 8
/* Descriptors in one table, whatever RLIMIT_NOFILE says (fs.nr_open): EMFILE. */
#define LIMIT_NR_OPEN (1024 * 1024)
/* Queued real-time signals in one sandbox: EAGAIN, kill() then drops the extra information. */
#define LIMIT_SIGQUEUE 32768
/* Mappings in one address space (vm.max_map_count): ENOMEM. */
#define LIMIT_MAP_COUNT 65530
/* Buffers of a vectored call (UIO_MAXIOV): EINVAL. */
#define LIMIT_IOV 1024
/* One read or write moves at most this many bytes (MAX_RW_COUNT). */
#define LIMIT_RW_SIZE 0x7ffff000UL
/* Argument and environment strings of execve together, and one of them: E2BIG. */
#define LIMIT_ARG_SIZE (2UL * 1024 * 1024)
#define LIMIT_ARG_STRING (32UL * 4096)
#define LIMIT_ARG_COUNT 0x10000
/* Interpreter levels (#! scripts) of one execve: ELOOP. */
#define LIMIT_EXEC_DEPTH 5
/* Program headers looked at, bytes of them, and PT_INTERP length: ENOEXEC. */
#define LIMIT_ELF_PHNUM 512
#define LIMIT_ELF_INTERP 4096
/* Cached dentries, negative ones included. Each may cost a descriptor of the gofer's, whose limit
 * can make it fewer. */
#define LIMIT_DENTRY_CACHE 24576
/* Mounts in one namespace: ENOSPC. */
#define LIMIT_MOUNTS 10000
/* Locks on ranges of one file, and edges followed when looking for a deadlock: ENOLCK, EDEADLK. */
#define LIMIT_FILE_LOCKS 65536
#define LIMIT_FILE_SIGNALS 1024 /* events of one file that wait to be signalled */
#define LIMIT_LOCK_CHAIN 128
/* Bytes in one pipe (fs.pipe-max-size) and by default. */
#define LIMIT_PIPE_SIZE (1024 * 1024)
#define LIMIT_PIPE_DEFAULT 65536
/* Pseudo-terminals of one devpts (kernel.pty.max): ENOSPC. */
#define LIMIT_PTYS 4096
/* Control groups of all hierarchies: ENOSPC; levels below a top: EAGAIN. */
#define LIMIT_CGROUPS 4096
#define LIMIT_CGROUP_DEPTH 32
/* Watches of inotify and F_NOTIFY: ENOSPC. Instances of inotify: EMFILE. Events in one queue: then
 * IN_Q_OVERFLOW. */
#define LIMIT_NOTIFY_MARKS 65536
#define LIMIT_INOTIFY_INSTANCES 1024
#define LIMIT_INOTIFY_QUEUE 16384
/* Requests of io_setup(2) over all contexts (fs.aio-max-nr): EAGAIN. */
#define LIMIT_AIO_REQUESTS 65536u
/* io_uring: results kept for a full ring (then they are counted and lost), requests that wait
 * (EAGAIN), registered buffers, their size, registered files. */
#define LIMIT_URING_OVERFLOW 65536u
#define LIMIT_URING_PENDING 32768u
#define LIMIT_URING_BUFFERS 16384u
#define LIMIT_URING_BUFFER_SIZE (UINT64_C(1) << 30)
#define LIMIT_URING_FILES 32768u
#define LIMIT_URING_GROUPS 1024u
/* Nested epoll instances: ELOOP. Items over all instances: ENOSPC. */
#define LIMIT_EPOLL_DEPTH 5
#define LIMIT_EPOLL_ITEMS 262144
/* Descriptors of one poll or select call are bounded by RLIMIT_NOFILE and this. */
#define LIMIT_POLL_FDS 65536
/* Connections waiting in a listen queue (net.core.somaxconn). */
#define LIMIT_SOMAXCONN 4096
/* Socket buffer, default and largest (net.core.[rw]mem_max). */
#define LIMIT_SOCKBUF_DEFAULT 212992
#define LIMIT_SOCKBUF_MAX (8 * 1024 * 1024)
/* Descriptors in one SCM_RIGHTS message, and in flight in the sandbox. */
#define LIMIT_SCM_FDS 253
#define LIMIT_SCM_INFLIGHT 16384
/* Packets in one AF_UNIX receive queue (net.unix.max_dgram_qlen): the sender waits, or EAGAIN. */
#define LIMIT_UNIX_PACKETS 512
/* Ephemeral ports (net.ipv4.ip_local_port_range): EADDRINUSE, EADDRNOTAVAIL, EAGAIN. */
#define LIMIT_PORT_LOW 32768
#define LIMIT_PORT_HIGH 60999
/* Connections in TIME_WAIT (net.ipv4.tcp_max_tw_buckets): more are forgotten at once. */
#define LIMIT_TCP_TIME_WAIT 8192
/* Bytes in the queues of AF_INET sockets of one namespace (net.ipv4.tcp_mem, udp_mem): from the
 * first on each queue takes little, past the second next to nothing. */
#define LIMIT_INET_MEM_PRESSURE (64LL * 1024 * 1024)
#define LIMIT_INET_MEM (256LL * 1024 * 1024)
/* Groups of one socket (net.ipv4.igmp_max_memberships): ENOBUFS. */
#define LIMIT_INET_GROUPS 20
/* Links, addresses and routes of one network namespace: ENOSPC, ENOBUFS. */
#define LIMIT_NETNS_LINKS 64
#define LIMIT_NETNS_ADDRS 1024
#define LIMIT_NETNS_ROUTES 4096
/* Neighbours of one namespace: the one used longest ago goes; those a guest adds: ENOBUFS. */
#define LIMIT_NETNS_NEIGHS 1024
/* Multicast groups on the links of one namespace: ENOBUFS. */
#define LIMIT_EXT_GROUPS 1024
/* Connections over the links of one namespace, and those whose handshake is not over: ENOBUFS, SYN
 * cookies. */
#define LIMIT_EXT_CONNS 65536
#define LIMIT_EXT_HALF_OPEN 1024
/* POSIX timers of one process: EAGAIN. */
#define LIMIT_POSIX_TIMERS 4096
/* Robust futex list entries followed at exit (ROBUST_LIST_LIMIT). */
#define LIMIT_ROBUST_LIST 2048
/* waitv futexes of one call (FUTEX_WAITV_MAX). */
#define LIMIT_FUTEX_WAITV 128
/* Bytes of the sentry that semaphore sets, their undo lists and queued messages (System V and
 * POSIX) of a sandbox may take: ENOMEM. */
#define LIMIT_IPC_BYTES (64UL * 1024 * 1024)
/* Extended attribute name and value. */
#define LIMIT_XATTR_NAME 255
#define LIMIT_XATTR_SIZE 65536
/* Containers known to one runsc root, and bytes of a config.json. */
#define LIMIT_CONFIG_SIZE (4UL * 1024 * 1024)
/* Payload of one gofer message. */
#define LIMIT_GOFER_MESSAGE 65536
/* Files of the host that one gofer watches for its sentry: ENOSPC. Events that wait in it: then the
 * sentry is told that some are lost. */
#define LIMIT_GOFER_WATCHES 8192
#define LIMIT_GOFER_EVENTS 4096

#endif
