/* The part of criterion's interface that our unit tests use, for builds in which criterion itself
 * cannot run: its shared arena wants addresses that the thread sanitizer keeps for itself. Each
 * test runs in a child process of its own, one after the other. Depends on: libc. Threading: tests
 * are registered before main. Ownership: none. */
#ifndef RINGWALL_INPROCESS_CRITERION_H
#define RINGWALL_INPROCESS_CRITERION_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct inprocess_options {
    int signal;    /* the signal that must end the test; 0: none */
    int exit_code; /* the status it must exit with */
    double timeout;
    bool disabled;
    const char *description;
    void (*init)(void);
    void (*fini)(void);
};

struct inprocess_test {
    const char *suite, *name;
    void (*fn)(void);
    struct inprocess_options options;
    struct inprocess_test *next;
};

void inprocess_register(struct inprocess_test *t);
void inprocess_suite(const char *suite, void (*init)(void), void (*fini)(void));
__attribute__((format(printf, 4, 5))) void inprocess_fail(const char *file, int line,
                                                          const char *expr, const char *fmt, ...);

#define Test(suite_, name_, ...)                                                                   \
    static void suite_##_##name_##_impl(void);                                                     \
    static struct inprocess_test suite_##_##name_##_test = {                                       \
        .suite = #suite_,                                                                          \
        .name = #name_,                                                                            \
        .fn = suite_##_##name_##_impl,                                                             \
        .options = (struct inprocess_options){__VA_ARGS__},                                        \
    };                                                                                             \
    __attribute__((constructor)) static void suite_##_##name_##_register(void)                     \
    {                                                                                              \
        inprocess_register(&suite_##_##name_##_test);                                              \
    }                                                                                              \
    static void suite_##_##name_##_impl(void)

#define TestSuite(suite_, ...)                                                                     \
    __attribute__((constructor)) static void suite_##_suite_register(void)                         \
    {                                                                                              \
        struct inprocess_options o = (struct inprocess_options){__VA_ARGS__};                      \
        inprocess_suite(#suite_, o.init, o.fini);                                                  \
    }

#define INPROCESS_CHECK_(ok, expr, ...)                                                            \
    do {                                                                                           \
        if (!(ok))                                                                                 \
            inprocess_fail(__FILE__, __LINE__, expr, "" __VA_ARGS__);                              \
    } while (0)

#define cr_assert(x, ...) INPROCESS_CHECK_((x), #x, __VA_ARGS__)
#define cr_assert_not(x, ...) INPROCESS_CHECK_(!(x), "not " #x, __VA_ARGS__)
#define cr_assert_eq(a, b, ...) INPROCESS_CHECK_((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) INPROCESS_CHECK_((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) INPROCESS_CHECK_((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) INPROCESS_CHECK_((a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) INPROCESS_CHECK_((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) INPROCESS_CHECK_((a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_null(a, ...) INPROCESS_CHECK_((a) == NULL, #a " is NULL", __VA_ARGS__)
#define cr_assert_not_null(a, ...) INPROCESS_CHECK_((a) != NULL, #a " is not NULL", __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)                                                                \
    INPROCESS_CHECK_(strcmp((a), (b)) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...)                                                               \
    INPROCESS_CHECK_(strcmp((a), (b)) != 0, #a " differs from " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, size, ...)                                                          \
    INPROCESS_CHECK_(memcmp((a), (b), (size)) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_assert_str_empty(a, ...) INPROCESS_CHECK_((a)[0] == '\0', #a " is empty", __VA_ARGS__)
#define cr_assert_fail(...) INPROCESS_CHECK_(false, "fail", __VA_ARGS__)
#define cr_log_info(...) fprintf(stderr, __VA_ARGS__)

/* A failed expectation ends the test here too: one report is enough. */
#define cr_expect cr_assert
#define cr_expect_eq cr_assert_eq
#define cr_expect_neq cr_assert_neq
#define cr_expect_lt cr_assert_lt
#define cr_expect_leq cr_assert_leq
#define cr_expect_gt cr_assert_gt
#define cr_expect_geq cr_assert_geq
#define cr_expect_null cr_assert_null
#define cr_expect_not_null cr_assert_not_null
#define cr_expect_str_eq cr_assert_str_eq
#define cr_expect_arr_eq cr_assert_arr_eq

#endif
