/* The constructors in the table of dirty.c; private to dirty-tracking/. */
#pragma once

#include "dirty-tracking/dirty.h"

int dirty_bitmap_new(struct vm *vm, struct dirty_tracker **out, struct err *e);
int dirty_clear_log_new(struct vm *vm, struct dirty_tracker **out, struct err *e);

/* KVM_GET_DIRTY_LOG of every slot in every address space into @set (ORed); shared by both KVM log
 * trackers. @scratch has as many bits as @set. Source: KVM API document, 4.8. */
int dirty_read_kvm_log(struct vm *vm, struct bitmap *scratch, struct bitmap *set, struct err *e);

extern const struct dirty_ops dirty_bitmap_ops;
extern const struct dirty_ops dirty_clear_log_ops;
