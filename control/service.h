/*
 * Receiving as a service: listens at one address for any number of guests, each of which gets a
 * process of its own (this program again) to arrive and to run in.
 *
 * The service's process has no guest memory and reads of a connection only what it begins with,
 * which says to which migration it belongs; then the connection is handed over to that guest's
 * process. So a guest's process that dies takes nobody along, and guests survive the service.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

#define SERVICE_MAX_GUESTS 64

/* Everything is borrowed for the call. */
struct service_config {
	const char *uri;     /* where to listen: tcp: or unix: */
	uint32_t max_guests; /* at once; they are numbered from 1, the lowest free number first */
	/* The options of `godwit receive` for each guest; their %n is its number. */
	const char *const *options;
	size_t nr_options;
	bool json; /* one object per line instead of text */
};

/* Serve until a signal ends it: the exit status, or an error before it could begin. The first
 * signal stops it from taking guests and lets it wait for those it has, the second leaves them to
 * themselves. */
int service_run(const struct service_config *config, struct err *e);
