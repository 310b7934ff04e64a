/*
 * Holds the kernel up in the middle of an instruction of the guest. A page of guest memory is taken
 * away; whoever touches it next waits for it (userfaultfd(2)); then that thread, the caller's, is
 * sent a signal, and only then the page is put back. What KVM was emulating ends as ever, and
 * KVM_RUN returns EINTR before anything else of the guest runs. Whatever fails, fails the running
 * cmocka test.
 */
#pragma once

#include "vmm/mem.h"

struct page_hold;

/* Only the calling thread may touch the page until _end. Skips the test where the kernel lets no
 * user wait for its own faults (vm.unprivileged_userfaultfd); @before_skip frees what is at hand.
 */
struct page_hold *page_hold_begin(struct guest_mem *mem, uint64_t gpa,
				  void (*before_skip)(void *arg), void *arg);

/* Somebody must have touched it. */
void page_hold_end(struct page_hold *h);
