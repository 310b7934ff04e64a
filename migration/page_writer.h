/*
 * A page writer: the half of a receiver that copies. What has come over a connection is moved, by
 * reference, into a pipe by the receiver's thread; the writer's thread copies it from there into
 * guest memory while the receiver goes on. So one connection keeps two processors busy, and the
 * bytes still touch memory once.
 *
 * One thread (the receiver's) calls all of these. Pages are written in the order in which they were
 * taken; whoever writes guest memory by other means asks page_writer_settle() first.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm/base/cancel.h"
#include "vmm/base/err.h"
#include "vmm/base/link.h"

struct page_writer;

/* @fd: the file to write, kept open by the caller for the writer's life. @abort is requested when
 * writing fails. */
int page_writer_new(int fd, struct cancel *abort, struct page_writer **out, struct err *e);

/* Take @len bytes from @link for @offset of the file: returns when they have come, perhaps before
 * they are written. Pages that do not exist yet are neither faulted in nor zeroed first. */
int page_writer_take(struct page_writer *w, struct link *link, uint64_t offset, size_t len,
		     struct err *e);

/* Wait until nothing that was taken for [offset, offset + len) is still unwritten. */
int page_writer_settle(struct page_writer *w, uint64_t offset, size_t len, struct err *e);

/* Wait until everything that was taken is written. */
int page_writer_drain(struct page_writer *w, struct err *e);

/* What is taken and unwritten is dropped. */
void page_writer_free(struct page_writer *w);
