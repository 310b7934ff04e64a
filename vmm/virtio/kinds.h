/*
 * The kinds of virtio device there are: a line here, a line in the table of kinds.c. Read only.
 */
#pragma once

#include "vmm/virtio/virtio.h"

/* Build the back end that @spec asks for (instance @instance of its type). */
int virtio_kind_new(const struct virtio_spec *spec, uint32_t instance, struct virtio_kind **out,
		    struct err *e);

/* rng: no argument. */
int virtio_rng_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		   struct virtio_kind **out, struct err *e);
