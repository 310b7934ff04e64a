/*
 * Named fault points. Code that can fail in production calls fault_point() at the places where it
 * can; a test arms the Nth one and checks that everything is put back. One struct per side of a
 * migration (no global state); NULL is allowed and never fires, which is what production passes.
 * Any thread.
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"

struct fault;

int fault_new(struct fault **out, struct err *e);
void fault_free(struct fault *f);

/* The @nth point from now on (1 is the next) fails, once. 0 disarms. Restarts the count. */
void fault_arm(struct fault *f, uint64_t nth);

/* As fault_arm(), for the next point that has this name. @name must outlive @f. */
void fault_arm_name(struct fault *f, const char *name);

/* Call @passed at every point, in the thread that comes by, before it is decided whether the point
 * fails; the thread goes on when it returns. So a test can hold a process in mid-step. Set it
 * before anybody passes a point; NULL: nobody watches. */
void fault_observe(struct fault *f, void (*passed)(void *ctx, const char *name), void *ctx);

/* How many points have been passed since the last arm, and the name of the one that fired. */
uint64_t fault_passed(const struct fault *f);
const char *fault_fired(const struct fault *f);

/* 0, or ERR_INJECTED when this one is armed. @name is a literal such as "src.track". */
int fault_point(struct fault *f, const char *name, struct err *e);
