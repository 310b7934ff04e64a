/*
 * Migration capabilities and parameters as QMP reads and writes them. A set that fails changes
 * nothing. Pure.
 */
#pragma once

#include <jansson.h>

#include "control/migration_settings.h"
#include "control/qmp_args.h"

/* The members migrate-set-parameters takes. */
extern const struct qmp_arg qmp_parameter_args[];

json_t *qmp_capabilities_to_json(const struct migration_settings *s);
int qmp_capabilities_set(struct migration_settings *s, json_t *list, struct err *e);

json_t *qmp_parameters_to_json(const struct migration_settings *s);
/* @args has passed qmp_args_check. */
int qmp_parameters_set(struct migration_settings *s, json_t *args, struct err *e);
