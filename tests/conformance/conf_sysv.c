/* System V IPC: shared memory, semaphores, message queues. */
#include "harness.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <time.h>

CONF_FAMILY("sysv");

union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
    struct seminfo *info;
};

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif
#ifndef SHM_STAT_ANY
#define SHM_STAT_ANY 15
#endif
#ifndef SEM_STAT_ANY
#define SEM_STAT_ANY 20
#endif

/* A key that no other run uses. */
static key_t own_key(int n)
{
    return (key_t)(0x52570000 + ((getpid() & 0xfff) << 4) + n);
}

static int sem_ctl(int id, int num, int cmd, int val)
{
    union semun u = {.val = val};
    return semctl(id, num, cmd, u);
}

static int sem_do(int id, unsigned short num, short op, short flags)
{
    struct sembuf b = {num, op, flags};
    return semop(id, &b, 1);
}

/* ---- shared memory ---- */

TEST(shm_basic)
{
    struct shmid_ds ds;
    int id = OK(shmget(IPC_PRIVATE, 5000, IPC_CREAT | 0640));
    time_t now = time(NULL);
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_segsz, 5000);
    CHECK_EQ(ds.shm_nattch, 0);
    CHECK_EQ(ds.shm_perm.mode, 0640);
    CHECK_EQ(ds.shm_cpid, getpid());
    CHECK_EQ(ds.shm_lpid, 0);
    CHECK_EQ(ds.shm_atime, 0);
    CHECK_EQ(ds.shm_dtime, 0);
    CHECK(ds.shm_ctime >= now - 2 && ds.shm_ctime <= now + 2);
    char *p = OK((char *)shmat(id, NULL, 0));
    for (size_t i = 0; i < 8192; i++)
        CHECK_EQ(p[i], 0);
    strcpy(p, "hello");
    char *q = OK((char *)shmat(id, NULL, SHM_RDONLY));
    CHECK(p != q);
    CHECK_STR(q, "hello");
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_nattch, 2);
    CHECK_EQ(ds.shm_lpid, getpid());
    CHECK(ds.shm_atime >= now - 2);
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(shmctl(id, IPC_STAT, &ds));
        CHECK_EQ(ds.shm_nattch, 4);
        strcpy(p + 100, "child");
        OK(shmdt(p));
        CHECK_ERRNO(shmdt(p), EINVAL);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_STR(q + 100, "child");
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_nattch, 2);
    OK(shmdt(p));
    CHECK_STR(q, "hello");
    OK(shmdt(q));
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_nattch, 0);
    CHECK(ds.shm_dtime >= now - 2);
    OK(shmctl(id, IPC_RMID, NULL));
    CHECK_ERRNO(shmctl(id, IPC_STAT, &ds), EINVAL);
    CHECK((long)shmat(id, NULL, 0) == -1 && errno == EINVAL);
}

TEST(shm_get_errors)
{
    key_t key = own_key(1);
    CHECK_ERRNO(shmget(key, 4096, 0), ENOENT);
    CHECK_ERRNO(shmget(key, 0, IPC_CREAT | 0600), EINVAL);
    CHECK_ERRNO(shmget(IPC_PRIVATE, ULONG_MAX, 0600), EINVAL);
    int id = OK(shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600));
    CHECK_ERRNO(shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
    CHECK_EQ(shmget(key, 4096, IPC_CREAT | 0600), id);
    CHECK_EQ(shmget(key, 0, 0), id);
    CHECK_EQ(shmget(key, 100, 0), id);
    CHECK_ERRNO(shmget(key, 4097, 0), EINVAL);
    OK(shmctl(id, IPC_RMID, NULL));
    CHECK_ERRNO(shmget(key, 0, 0), ENOENT);
}

TEST(shm_removed_while_attached)
{
    struct shmid_ds ds;
    key_t key = own_key(2);
    int id = OK(shmget(key, 4096, IPC_CREAT | 0600));
    char *p = OK((char *)shmat(id, NULL, 0));
    OK(shmctl(id, IPC_RMID, NULL));
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK(ds.shm_perm.mode & SHM_DEST);
    CHECK_EQ(ds.shm_perm.__key, IPC_PRIVATE);
    CHECK_ERRNO(shmget(key, 0, 0), ENOENT);
    /* Linux lets it be attached still. */
    char *q = OK((char *)shmat(id, NULL, 0));
    strcpy(p, "still");
    CHECK_STR(q, "still");
    int id2 = OK(shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600));
    CHECK(id2 != id);
    OK(shmctl(id2, IPC_RMID, NULL));
    OK(shmdt(q));
    OK(shmdt(p));
    CHECK_ERRNO(shmctl(id, IPC_STAT, &ds), EINVAL);
}

TEST(shm_removed_by_exit)
{
    struct shmid_ds ds;
    int *shared = conf_shared(sizeof(int));
    pid_t pid = conf_fork();
    if (pid == 0) {
        int id = OK(shmget(IPC_PRIVATE, 4096, 0600));
        OK((char *)shmat(id, NULL, 0));
        OK(shmctl(id, IPC_RMID, NULL));
        OK(shmctl(id, IPC_STAT, &ds));
        *shared = id;
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_ERRNO(shmctl(*shared, IPC_STAT, &ds), EINVAL);
}

TEST(shm_at_addresses)
{
    int id = OK(shmget(IPC_PRIVATE, 3 * CONF_PAGE, 0600));
    char *room = conf_pages(8);
    CHECK((long)shmat(id, room + 1, 0) == -1 && errno == EINVAL);
    CHECK((long)shmat(id, room + CONF_PAGE, 0) == -1 && errno == EINVAL);
    CHECK((long)shmat(id, NULL, SHM_REMAP) == -1 && errno == EINVAL);
    CHECK((long)shmat(-1, NULL, 0) == -1 && errno == EINVAL);
    room[CONF_PAGE] = 'x';
    char *p = OK((char *)shmat(id, room + CONF_PAGE + 5, SHM_REMAP | SHM_RND));
    CHECK(p == room + CONF_PAGE);
    CHECK_EQ(*p, 0);
    CHECK_ERRNO(shmdt(p + 1), EINVAL);
    CHECK_ERRNO(shmdt(p + CONF_PAGE), EINVAL);
    /* A hole in the middle: the rest goes as one. */
    OK(munmap(p + CONF_PAGE, CONF_PAGE));
    OK(shmdt(p));
    unsigned char vec[3];
    CHECK_ERRNO(mincore(p, CONF_PAGE, vec), ENOMEM);
    CHECK_ERRNO(mincore(p + 2 * CONF_PAGE, CONF_PAGE, vec), ENOMEM);
    OK(mincore(p + 3 * CONF_PAGE, CONF_PAGE, vec));
    OK(shmctl(id, IPC_RMID, NULL));
}

TEST(shm_rights)
{
    int id = OK(shmget(IPC_PRIVATE, CONF_PAGE, 0400));
    char *p = OK((char *)shmat(id, NULL, SHM_RDONLY));
    CHECK_ERRNO(mprotect(p, CONF_PAGE, PROT_READ | PROT_WRITE), EACCES);
    OK(shmdt(p));
    if (geteuid() == 0) {
        pid_t pid = conf_fork();
        if (pid == 0) {
            struct shmid_ds ds;
            conf_become(1234);
            CHECK((long)shmat(id, NULL, SHM_RDONLY) == -1 && errno == EACCES);
            CHECK_ERRNO(shmctl(id, IPC_STAT, &ds), EACCES);
            CHECK_ERRNO(shmctl(id, IPC_RMID, NULL), EPERM);
            CHECK_ERRNO(shmctl(id, SHM_LOCK, NULL), EPERM);
            _exit(0);
        }
        CHECK_EXIT(pid, 0);
        struct shmid_ds ds;
        OK(shmctl(id, IPC_STAT, &ds));
        ds.shm_perm.uid = 1234;
        ds.shm_perm.mode = 0666;
        OK(shmctl(id, IPC_SET, &ds));
        pid = conf_fork();
        if (pid == 0) {
            conf_become(1234);
            OK((char *)shmat(id, NULL, 0));
            OK(shmctl(id, IPC_STAT, &ds));
            CHECK_EQ(ds.shm_perm.uid, 1234);
            CHECK_EQ(ds.shm_perm.mode, 0666);
            OK(shmctl(id, IPC_RMID, NULL));
            _exit(0);
        }
        CHECK_EXIT(pid, 0);
        CHECK_ERRNO(shmctl(id, IPC_STAT, &ds), EINVAL);
        return;
    }
    OK(shmctl(id, IPC_RMID, NULL));
}

TEST(shm_info)
{
    struct shminfo info;
    struct shm_info used;
    struct shmid_ds ds;
    int id = OK(shmget(IPC_PRIVATE, CONF_PAGE, 0600)), found = 0;
    int max = OK(shmctl(0, IPC_INFO, (void *)&info));
    CHECK_EQ(info.shmmni, 4096);
    CHECK_EQ(info.shmmin, 1);
    CHECK(info.shmmax > 1ul << 32);
    CHECK(OK(shmctl(0, SHM_INFO, (void *)&used)) >= 0);
    CHECK(used.used_ids >= 1 && used.shm_tot >= 1);
    for (int i = 0; i <= max; i++)
        found += shmctl(i, SHM_STAT, &ds) == id;
    CHECK_EQ(found, 1);
    CHECK_ERRNO(shmctl(id, 99, &ds), EINVAL);
    OK(shmctl(id, SHM_LOCK, NULL));
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK(ds.shm_perm.mode & SHM_LOCKED);
    OK(shmctl(id, SHM_UNLOCK, NULL));
    CHECK_ERRNO(shmctl(id, IPC_STAT, (void *)16), EFAULT);
    OK(shmctl(id, IPC_RMID, NULL));
}

TEST(shm_in_maps)
{
    static char buf[65536];
    char want[64];
    int id = OK(shmget(own_key(3), CONF_PAGE, IPC_CREAT | 0600));
    OK((char *)shmat(id, NULL, 0));
    size_t n = conf_get("/proc/self/maps", buf, sizeof(buf));
    CHECK(n > 0);
    snprintf(want, sizeof(want), "/SYSV%08x (deleted)", (unsigned)own_key(3));
    CHECK(strstr(buf, want) != NULL);
    OK(shmctl(id, IPC_RMID, NULL));
}

/* ---- semaphores ---- */

TEST(sem_basic)
{
    struct semid_ds ds;
    union semun u = {.buf = &ds};
    int id = OK(semget(IPC_PRIVATE, 3, 0600));
    OK(semctl(id, 0, IPC_STAT, u));
    CHECK_EQ(ds.sem_nsems, 3);
    CHECK_EQ(ds.sem_otime, 0);
    CHECK_EQ(sem_ctl(id, 1, GETVAL, 0), 0);
    CHECK_EQ(sem_ctl(id, 1, GETPID, 0), 0);
    OK(sem_ctl(id, 1, SETVAL, 5));
    CHECK_EQ(sem_ctl(id, 1, GETVAL, 0), 5);
    CHECK_EQ(sem_ctl(id, 1, GETPID, 0), getpid());
    OK(sem_do(id, 1, -3, 0));
    CHECK_EQ(sem_ctl(id, 1, GETVAL, 0), 2);
    CHECK_ERRNO(sem_do(id, 1, -3, IPC_NOWAIT), EAGAIN);
    CHECK_ERRNO(sem_do(id, 1, 0, IPC_NOWAIT), EAGAIN);
    OK(sem_do(id, 0, 0, IPC_NOWAIT));
    CHECK_ERRNO(sem_do(id, 3, 1, 0), EFBIG);
    CHECK_ERRNO(sem_do(id, 1, 32767, 0), ERANGE);
    CHECK_EQ(sem_ctl(id, 1, GETVAL, 0), 2);
    OK(semctl(id, 0, IPC_STAT, u));
    CHECK(ds.sem_otime >= time(NULL) - 2);
    unsigned short all[3] = {7, 8, 9};
    u.array = all;
    OK(semctl(id, 0, SETALL, u));
    memset(all, 0, sizeof(all));
    OK(semctl(id, 0, GETALL, u));
    CHECK_EQ(all[0] * 100 + all[1] * 10 + all[2], 789);
    all[1] = 32768;
    CHECK_ERRNO(semctl(id, 0, SETALL, u), ERANGE);
    CHECK_ERRNO(sem_ctl(id, 0, SETVAL, 32768), ERANGE);
    CHECK_ERRNO(sem_ctl(id, 0, SETVAL, -1), ERANGE);
    CHECK_ERRNO(sem_ctl(id, 3, SETVAL, 1), EINVAL);
    CHECK_ERRNO(sem_ctl(id, -1, GETVAL, 1), EINVAL);
    CHECK_ERRNO(sem_ctl(id, 0, 99, 1), EINVAL);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
    CHECK_ERRNO(sem_do(id, 0, 1, 0), EINVAL);
}

TEST(sem_errors)
{
    key_t key = own_key(4);
    struct sembuf b[501] = {{0, 1, 0}};
    CHECK_ERRNO(semget(key, 1, 0), ENOENT);
    CHECK_ERRNO(semget(key, 0, IPC_CREAT | 0600), EINVAL);
    CHECK_ERRNO(semget(key, -1, IPC_CREAT | 0600), EINVAL);
    CHECK_ERRNO(semget(key, 32001, IPC_CREAT | 0600), EINVAL);
    int id = OK(semget(key, 2, IPC_CREAT | 0600));
    CHECK_EQ(semget(key, 0, 0), id);
    CHECK_EQ(semget(key, 2, 0), id);
    CHECK_ERRNO(semget(key, 3, 0), EINVAL);
    CHECK_ERRNO(semget(key, 2, IPC_CREAT | IPC_EXCL), EEXIST);
    CHECK_ERRNO(semop(id, b, 0), EINVAL);
    CHECK_ERRNO(semop(id, b, 501), E2BIG);
    CHECK_ERRNO(semop(-1, b, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_semop, id, 16, 1), EFAULT);
    struct timespec bad = {0, 1000000000};
    CHECK_ERRNO(semtimedop(id, b, 1, &bad), EINVAL);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

TEST(sem_all_or_nothing)
{
    int id = OK(semget(IPC_PRIVATE, 2, 0600));
    struct sembuf b[3] = {{0, 2, 0}, {0, -1, 0}, {1, -1, IPC_NOWAIT}};
    CHECK_ERRNO(semop(id, b, 3), EAGAIN);
    CHECK_EQ(sem_ctl(id, 0, GETVAL, 0), 0);
    OK(sem_ctl(id, 1, SETVAL, 1));
    OK(semop(id, b, 3));
    CHECK_EQ(sem_ctl(id, 0, GETVAL, 0), 1);
    CHECK_EQ(sem_ctl(id, 1, GETVAL, 0), 0);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

TEST(sem_wait_and_count)
{
    int id = OK(semget(IPC_PRIVATE, 2, 0600));
    pid_t more = conf_fork();
    if (more == 0) {
        OK(sem_do(id, 0, -2, 0));
        _exit(0);
    }
    OK(sem_ctl(id, 1, SETVAL, 1));
    pid_t zero = conf_fork();
    if (zero == 0) {
        OK(sem_do(id, 1, 0, 0));
        _exit(0);
    }
    while (sem_ctl(id, 0, GETNCNT, 0) != 1 || sem_ctl(id, 1, GETZCNT, 0) != 1)
        conf_sleep_ms(1);
    CHECK_EQ(sem_ctl(id, 0, GETZCNT, 0), 0);
    CHECK_EQ(sem_ctl(id, 1, GETNCNT, 0), 0);
    OK(sem_do(id, 0, 1, 0));
    conf_sleep_ms(20);
    CHECK_EQ(sem_ctl(id, 0, GETNCNT, 0), 1);
    OK(sem_do(id, 0, 1, 0));
    CHECK_EXIT(more, 0);
    CHECK_EQ(sem_ctl(id, 0, GETVAL, 0), 0);
    CHECK_EQ(sem_ctl(id, 0, GETPID, 0), more);
    OK(sem_do(id, 1, -1, 0));
    CHECK_EXIT(zero, 0);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

TEST(sem_timeout)
{
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    struct sembuf b = {0, -1, 0};
    struct timespec ts = {0, 50 * 1000 * 1000};
    int64_t start = conf_now();
    CHECK_ERRNO(semtimedop(id, &b, 1, &ts), EAGAIN);
    CHECK(conf_now() - start >= 49 * 1000 * 1000);
    CHECK_EQ(sem_ctl(id, 0, GETNCNT, 0), 0);
    b.sem_op = 1;
    OK(semtimedop(id, &b, 1, NULL));
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

TEST(sem_removed_under_sleeper)
{
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    pid_t pid = conf_fork();
    if (pid == 0) {
        CHECK_ERRNO(sem_do(id, 0, -1, 0), EIDRM);
        _exit(0);
    }
    while (sem_ctl(id, 0, GETNCNT, 0) != 1)
        conf_sleep_ms(1);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
    CHECK_EXIT(pid, 0);
}

static void on_signal(int sig)
{
    (void)sig;
}

TEST(sem_interrupted)
{
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_handler(SIGUSR1, on_signal, SA_RESTART);
        CHECK_ERRNO(sem_do(id, 0, -1, 0), EINTR);
        _exit(0);
    }
    while (sem_ctl(id, 0, GETNCNT, 0) != 1)
        conf_sleep_ms(1);
    OK(kill(pid, SIGUSR1));
    CHECK_EXIT(pid, 0);
    CHECK_EQ(sem_ctl(id, 0, GETNCNT, 0), 0);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

TEST(sem_undo)
{
    int id = OK(semget(IPC_PRIVATE, 3, 0600));
    OK(sem_ctl(id, 0, SETVAL, 10));
    OK(sem_ctl(id, 2, SETVAL, 1));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(sem_do(id, 0, -4, SEM_UNDO));
        OK(sem_do(id, 0, 1, SEM_UNDO));
        OK(sem_do(id, 1, 2, SEM_UNDO));
        OK(sem_do(id, 2, -1, SEM_UNDO));
        OK(sem_ctl(id, 1, SETVAL, 6)); /* forgets the 2 */
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(sem_ctl(id, 0, GETVAL, 0), 10);
    CHECK_EQ(sem_ctl(id, 1, GETVAL, 0), 6);
    CHECK_EQ(sem_ctl(id, 2, GETVAL, 0), 1);
    CHECK_EQ(sem_ctl(id, 0, GETPID, 0), pid);
    /* Killed while it holds: another gets it. */
    pid = conf_fork();
    if (pid == 0) {
        OK(sem_do(id, 2, -1, SEM_UNDO));
        pause();
        _exit(1);
    }
    while (sem_ctl(id, 2, GETVAL, 0) != 0)
        conf_sleep_ms(1);
    OK(kill(pid, SIGKILL));
    OK(sem_do(id, 2, -1, 0));
    CHECK_KILLED(pid, SIGKILL);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

TEST(sem_undo_clamps)
{
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(sem_do(id, 0, 5, SEM_UNDO));
        OK(sem_do(id, 0, -3, 0));
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(sem_ctl(id, 0, GETVAL, 0), 0);
    CHECK_ERRNO(sem_do(id, 0, -32768, SEM_UNDO | IPC_NOWAIT), EAGAIN);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

static void *undo_thread(void *arg)
{
    OK(sem_do(*(int *)arg, 0, 3, SEM_UNDO));
    return NULL;
}

/* Threads share what is undone: it is when the process ends, not the thread. */
TEST(sem_undo_threads)
{
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    pid_t pid = conf_fork();
    if (pid == 0) {
        pthread_t th;
        CHECK_EQ(pthread_create(&th, NULL, undo_thread, &id), 0);
        CHECK_EQ(pthread_join(th, NULL), 0);
        CHECK_EQ(sem_ctl(id, 0, GETVAL, 0), 3);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    CHECK_EQ(sem_ctl(id, 0, GETVAL, 0), 0);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

/* Turns between two processes: no wake-up is lost. */
TEST_TIMEOUT(sem_ping_pong, 60)
{
    int id = OK(semget(IPC_PRIVATE, 2, 0600));
    pid_t pid = conf_fork();
    if (pid == 0) {
        for (int i = 0; i < 2000; i++) {
            OK(sem_do(id, 0, -1, 0));
            OK(sem_do(id, 1, 1, 0));
        }
        _exit(0);
    }
    for (int i = 0; i < 2000; i++) {
        OK(sem_do(id, 0, 1, 0));
        OK(sem_do(id, 1, -1, 0));
    }
    CHECK_EXIT(pid, 0);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

TEST(sem_rights)
{
    NEED_ROOT();
    int id = OK(semget(IPC_PRIVATE, 1, 0604));
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_become(1234);
        CHECK_EQ(sem_ctl(id, 0, GETVAL, 0), 0);
        CHECK_ERRNO(sem_ctl(id, 0, SETVAL, 1), EACCES);
        CHECK_ERRNO(sem_do(id, 0, 1, 0), EACCES);
        OK(sem_do(id, 0, 0, 0));
        CHECK_ERRNO(sem_ctl(id, 0, IPC_RMID, 0), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

TEST(sem_info)
{
    struct seminfo info;
    union semun u = {.info = &info};
    int id = OK(semget(IPC_PRIVATE, 4, 0600)), found = 0;
    int max = OK(semctl(0, 0, IPC_INFO, u));
    CHECK_EQ(info.semvmx, 32767);
    CHECK_EQ(info.semmsl, 32000);
    OK(semctl(0, 0, SEM_INFO, u));
    CHECK(info.semusz >= 1 && info.semaem >= 4);
    for (int i = 0; i <= max; i++) {
        struct semid_ds ds;
        u.buf = &ds;
        found += semctl(i, 0, SEM_STAT, u) == id;
    }
    CHECK_EQ(found, 1);
    OK(sem_ctl(id, 0, IPC_RMID, 0));
}

/* ---- message queues ---- */

struct text_msg {
    long type;
    char text[32];
};

static int send_text(int id, long type, const char *text, int flags)
{
    struct text_msg m = {.type = type};
    strcpy(m.text, text);
    return msgsnd(id, &m, strlen(text) + 1, flags);
}

static void expect_text(int id, long want, int flags, long type, const char *text)
{
    struct text_msg m;
    memset(&m, 0, sizeof(m));
    CHECK_EQ(msgrcv(id, &m, sizeof(m.text), want, flags | IPC_NOWAIT), strlen(text) + 1);
    CHECK_EQ(m.type, type);
    CHECK_STR(m.text, text);
}

TEST(msg_types)
{
    struct text_msg m;
    int id = OK(msgget(IPC_PRIVATE, 0600));
    OK(send_text(id, 3, "three", 0));
    OK(send_text(id, 1, "one", 0));
    OK(send_text(id, 2, "two", 0));
    OK(send_text(id, 2, "two again", 0));
    OK(send_text(id, 5, "five", 0));
    expect_text(id, 2, 0, 2, "two");
    expect_text(id, -4, 0, 1, "one");
    expect_text(id, -4, 0, 2, "two again");
    expect_text(id, 3, MSG_EXCEPT, 5, "five");
    CHECK_ERRNO(msgrcv(id, &m, 32, 9, IPC_NOWAIT), ENOMSG);
    CHECK_ERRNO(msgrcv(id, &m, 2, 0, IPC_NOWAIT), E2BIG);
    CHECK_EQ(msgrcv(id, &m, 2, 0, IPC_NOWAIT | MSG_NOERROR), 2);
    CHECK(m.text[0] == 't' && m.text[1] == 'h');
    CHECK_ERRNO(msgrcv(id, &m, 32, 0, IPC_NOWAIT), ENOMSG);
    CHECK_ERRNO(msgrcv(id, &m, 32, LONG_MIN, IPC_NOWAIT), ENOMSG);
    OK(msgctl(id, IPC_RMID, NULL));
    CHECK_ERRNO(send_text(id, 1, "x", 0), EINVAL);
}

TEST(msg_errors)
{
    key_t key = own_key(5);
    struct text_msg m = {.type = 1};
    CHECK_ERRNO(msgget(key, 0), ENOENT);
    int id = OK(msgget(key, IPC_CREAT | 0600));
    CHECK_ERRNO(msgget(key, IPC_CREAT | IPC_EXCL), EEXIST);
    CHECK_EQ(msgget(key, 0600), id);
    CHECK_ERRNO(msgsnd(id, &m, (size_t)-1, 0), EINVAL);
    CHECK_ERRNO(msgsnd(id, &m, 8193, 0), EINVAL);
    CHECK_ERRNO(msgsnd(-1, &m, 1, 0), EINVAL);
    m.type = 0;
    CHECK_ERRNO(msgsnd(id, &m, 1, 0), EINVAL);
    m.type = -1;
    CHECK_ERRNO(msgsnd(id, &m, 1, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_msgsnd, id, 16, 1, 0), EFAULT);
    CHECK_ERRNO(msgrcv(id, &m, (size_t)-1, 0, 0), EINVAL);
    CHECK_ERRNO(msgrcv(id, &m, 1, 0, MSG_COPY), EINVAL);
    CHECK_ERRNO(msgrcv(id, &m, 1, 0, MSG_COPY | IPC_NOWAIT | MSG_EXCEPT), EINVAL);
    OK(send_text(id, 7, "", 0));
    CHECK_EQ(msgrcv(id, &m, 0, 0, MSG_NOERROR), 0);
    OK(msgctl(id, IPC_RMID, NULL));
}

TEST(msg_full)
{
    struct msqid_ds ds;
    static struct {
        long type;
        char text[8192];
    } big = {.type = 1};
    int id = OK(msgget(IPC_PRIVATE, 0600));
    OK(msgctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.msg_qbytes, 16384);
    CHECK_EQ(ds.msg_stime, 0);
    OK(msgsnd(id, &big, 8192, 0));
    OK(msgsnd(id, &big, 8192, 0));
    CHECK_ERRNO(msgsnd(id, &big, 1, IPC_NOWAIT), EAGAIN);
    OK(msgctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.msg_qnum, 2);
    CHECK_EQ(ds.__msg_cbytes, 16384);
    CHECK_EQ(ds.msg_lspid, getpid());
    pid_t pid = conf_fork();
    if (pid == 0) {
        OK(send_text(id, 2, "waited", 0));
        _exit(0);
    }
    conf_await_asleep(pid);
    CHECK_EQ(waitpid(pid, NULL, WNOHANG), 0);
    OK(msgrcv(id, &big, 8192, 1, 0));
    CHECK_EXIT(pid, 0);
    expect_text(id, 2, 0, 2, "waited");
    OK(msgctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.msg_lrpid, getpid());
    CHECK_EQ(ds.msg_lspid, pid);
    ds.msg_qbytes = 100;
    OK(msgctl(id, IPC_SET, &ds));
    CHECK_ERRNO(msgsnd(id, &big, 101, IPC_NOWAIT), EAGAIN);
    OK(msgctl(id, IPC_RMID, NULL));
}

TEST(msg_wait_removed_interrupted)
{
    int id = OK(msgget(IPC_PRIVATE, 0600));
    volatile int *step = conf_shared(CONF_PAGE);
    struct text_msg m;
    pid_t pid = conf_fork();
    if (pid == 0) {
        conf_handler(SIGUSR1, on_signal, SA_RESTART);
        CHECK_ERRNO(msgrcv(id, &m, 32, 0, 0), EINTR);
        *step = 1;
        CHECK_EQ(msgrcv(id, &m, 32, 4, 0), 5);
        CHECK_STR(m.text, "four");
        *step = 2;
        CHECK_ERRNO(msgrcv(id, &m, 32, 0, 0), EIDRM);
        _exit(0);
    }
    conf_await_asleep(pid);
    OK(kill(pid, SIGUSR1));
    conf_await(step, 1);
    conf_await_asleep(pid);
    OK(send_text(id, 4, "four", 0));
    conf_await(step, 2);
    conf_await_asleep(pid);
    OK(msgctl(id, IPC_RMID, NULL));
    CHECK_EXIT(pid, 0);
}

TEST(msg_copy)
{
    int id = OK(msgget(IPC_PRIVATE, 0600));
    struct text_msg m;
    OK(send_text(id, 1, "a", 0));
    OK(send_text(id, 2, "b", 0));
    CHECK_EQ(msgrcv(id, &m, 32, 1, MSG_COPY | IPC_NOWAIT), 2);
    CHECK_EQ(m.type, 2);
    CHECK_STR(m.text, "b");
    CHECK_ERRNO(msgrcv(id, &m, 32, 2, MSG_COPY | IPC_NOWAIT), ENOMSG);
    CHECK_ERRNO(msgrcv(id, &m, 32, LONG_MIN, MSG_COPY | IPC_NOWAIT), ENOMSG);
    expect_text(id, 0, 0, 1, "a");
    expect_text(id, 0, 0, 2, "b");
    OK(msgctl(id, IPC_RMID, NULL));
}

TEST(msg_rights)
{
    NEED_ROOT();
    int id = OK(msgget(IPC_PRIVATE, 0604));
    OK(send_text(id, 1, "a", 0));
    pid_t pid = conf_fork();
    if (pid == 0) {
        struct msqid_ds ds;
        conf_become(1234);
        expect_text(id, 0, 0, 1, "a");
        CHECK_ERRNO(send_text(id, 1, "a", 0), EACCES);
        CHECK_ERRNO(msgctl(id, IPC_RMID, NULL), EPERM);
        OK(msgctl(id, IPC_STAT, &ds));
        CHECK_ERRNO(msgctl(id, IPC_SET, &ds), EPERM);
        _exit(0);
    }
    CHECK_EXIT(pid, 0);
    OK(msgctl(id, IPC_RMID, NULL));
}

TEST(proc_sysvipc)
{
    static char buf[32768];
    char want[64];
    key_t key = own_key(6);
    int shm = OK(shmget(key, 12345, IPC_CREAT | 0640));
    int sem = OK(semget(key, 7, IPC_CREAT | 0641));
    int msg = OK(msgget(key, IPC_CREAT | 0642));
    conf_get("/proc/sysvipc/shm", buf, sizeof(buf));
    CHECK(strncmp(buf, "       key      shmid perms                  size", 49) == 0);
    snprintf(want, sizeof(want), "%10d %10d  %4o %21lu %5u", key, shm, 0640, 12345ul, getpid());
    CHECK(strstr(buf, want) != NULL);
    conf_get("/proc/sysvipc/sem", buf, sizeof(buf));
    snprintf(want, sizeof(want), "%10d %10d  %4o %10u", key, sem, 0641, 7);
    CHECK(strstr(buf, want) != NULL);
    conf_get("/proc/sysvipc/msg", buf, sizeof(buf));
    snprintf(want, sizeof(want), "%10d %10d  %4o  %10u %10u", key, msg, 0642, 0, 0);
    CHECK(strstr(buf, want) != NULL);
    OK(shmctl(shm, IPC_RMID, NULL));
    OK(sem_ctl(sem, 0, IPC_RMID, 0));
    OK(msgctl(msg, IPC_RMID, NULL));
    conf_get("/proc/sys/kernel/sem", buf, sizeof(buf));
    CHECK_STR(buf, "32000\t1024000000\t500\t32000\n");
    conf_get("/proc/sys/kernel/shmmni", buf, sizeof(buf));
    CHECK_STR(buf, "4096\n");
}

/* Ids of what is gone are not soon given again. */
TEST(ids_differ)
{
    int last = -1;
    for (int i = 0; i < 100; i++) {
        int id = OK(msgget(IPC_PRIVATE, 0600));
        CHECK(id != last);
        OK(msgctl(id, IPC_RMID, NULL));
        CHECK_ERRNO(msgctl(id, IPC_RMID, NULL), EINVAL);
        last = id;
    }
}
