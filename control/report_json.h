/*
 * A migration report as JSON, for --json and for the x-godwit member of query-migrate, and back
 * (godwit migrate prints the report that another process sent). Member names are those of struct
 * migration_report; times are ns. Pure.
 */
#pragma once

#include <jansson.h>

#include "migration/report.h"

/* New reference; NULL when memory is short. */
json_t *report_to_json(const struct migration_report *report);

/* Missing or odd members leave zeroes: the sender may be of another version. */
void report_from_json(json_t *json, struct migration_report *report);

/* What query-migrate calls the same report: QEMU's MigrationInfo, without x-godwit. New reference.
 */
json_t *report_to_migration_info(const struct migration_report *report);
