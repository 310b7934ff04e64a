/*
 * The kinds of virtio device there are: a line here, a line in the table of kinds.c. Read only.
 */
#pragma once

#include "vmm/virtio/virtio.h"

/* Build the back end that @spec asks for (instance @instance of its type). */
int virtio_kind_new(const struct virtio_spec *spec, uint32_t instance, struct virtio_kind **out,
		    struct err *e);

/* May a destination reach what is behind such a device under the source's name for it (a disk, a
 * bridge)? Not so a terminal or a socket of the source's host. */
bool virtio_kind_back_end_travels(const char *type);

/* No argument. */
int virtio_rng_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		   struct virtio_kind **out, struct err *e);
/* Where it leads to, as in vm_config.serial; nothing is null. */
int virtio_console_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		       struct virtio_kind **out, struct err *e);
/* No argument; at most one. See vmm/virtio/balloon.h. */
int virtio_balloon_new(const char *spec, uint32_t instance, const struct virtio_face *face,
		       struct virtio_kind **out, struct err *e);
