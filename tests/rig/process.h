/*
 * Real processes for tests: started, watched through what they print, ended whatever happens.
 *
 * A process dies with the test program that started it. One thread uses a process. What goes wrong
 * in here fails the running cmocka test.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct process;

/* Run @argv (NULL terminated, argv[0] is the program's path), with nothing to read on its standard
 * input. @inherited_fd keeps its number in the process; -1: none. */
struct process *process_start(const char *const argv[], int inherited_fd);

/* Everything it has said so far, on both standard outputs; valid until the next call. NULL is
 * allowed: somebody else's process. */
const char *process_output(struct process *p);

/* Wait for a whole line that begins with @prefix; what follows the prefix in @rest. */
void process_await_line(struct process *p, const char *prefix, char *rest, size_t cap);

pid_t process_pid(const struct process *p);

/* Is it gone? */
bool process_has_ended(struct process *p);

void process_signal(struct process *p, int signum);

/* Wait for its end: the exit status, or 128 + the signal that killed it. */
int process_wait(struct process *p);

/* Kill it if it still runs, and forget it. NULL is allowed. */
void process_free(struct process *p);

/* Kill every process that this thread has started and not forgotten. A cmocka teardown: a test that
 * fails leaves its processes, and the tests after it are to see none of them. */
int process_end_all(void **state);
