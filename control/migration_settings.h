/*
 * The choices a QMP client makes with migrate-set-capabilities and migrate-set-parameters, under
 * QEMU's rules (channels count only with the multifd capability), and how they become the engine's
 * parameters. Plain data.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "migration/params.h"

struct migration_settings {
	struct migration_params params; /* nr_channels is not used: see below */
	bool events;                    /* capability: MIGRATION and MIGRATION_PASS events */
	bool multifd;                   /* capability: more than one channel */
	uint32_t multifd_channels;
};

void migration_settings_init(struct migration_settings *s);

/* The parameters of a migration started now. */
void migration_settings_resolve(const struct migration_settings *s, struct migration_params *out);
