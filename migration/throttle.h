/*
 * Holding a guest back: every vCPU rests a part of its time, all at the same moments, so that none
 * spins for a lock whose holder rests.
 *
 * One thread of its own, made with the first percent. The engine's thread makes, sets and frees it;
 * the VM may be paused and resumed meanwhile by anybody.
 */
#pragma once

#include <stdint.h>

#include "vmm/vm.h"

struct throttle;

/* Rest @percent (1 to 99) of the time from now on. *@t is made when it is NULL. */
int throttle_set(struct throttle **t, struct vm *vm, uint32_t percent, struct err *e);

/* 0 for NULL. */
uint32_t throttle_percent(const struct throttle *t);

/* The guest runs freely again when this returns. NULL is allowed. */
void throttle_free(struct throttle *t);
