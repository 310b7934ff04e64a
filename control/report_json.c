#include "control/report_json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/json_text.h"

/* One row per number that is printed as it is: the same table writes and reads. */
struct number {
	const char *name;
	size_t offset;
	size_t size; /* of an unsigned integer */
};

#define REPORT_NUMBER(member)                                          \
	{                                                              \
#member, offsetof(struct migration_report, member),    \
			sizeof(((struct migration_report *)0)->member) \
	}
#define ROUND_NUMBER(member)                                       \
	{                                                          \
#member, offsetof(struct round_report, member),    \
			sizeof(((struct round_report *)0)->member) \
	}

static const struct number report_numbers[] = {
	REPORT_NUMBER(nr_channels),
	REPORT_NUMBER(nr_fallbacks),
	REPORT_NUMBER(started_ns),
	REPORT_NUMBER(total_ns),
	REPORT_NUMBER(setup_ns),
	REPORT_NUMBER(ram_bytes),
	REPORT_NUMBER(remaining_bytes),
	REPORT_NUMBER(wire_bytes),
	REPORT_NUMBER(bytes_per_s),
	REPORT_NUMBER(dirty_pages_per_s),
	REPORT_NUMBER(downtime_limit_ns),
	REPORT_NUMBER(predicted_downtime_ns),
	REPORT_NUMBER(throttle_percent),
	REPORT_NUMBER(throttle_max_percent),
	REPORT_NUMBER(throttled_ns),
	REPORT_NUMBER(downtime_ns),
	{NULL, 0, 0},
};

static const struct number round_numbers[] = {
	ROUND_NUMBER(number),
	ROUND_NUMBER(duration_ns),
	ROUND_NUMBER(dirty_pages),
	ROUND_NUMBER(skipped_pages),
	ROUND_NUMBER(zero_pages),
	ROUND_NUMBER(raw_pages),
	ROUND_NUMBER(compressed_pages),
	ROUND_NUMBER(wire_bytes),
	ROUND_NUMBER(dirty_pages_per_s),
	ROUND_NUMBER(predicted_downtime_ns),
	{NULL, 0, 0},
};

#define DISK_NUMBER(member)                                       \
	{                                                         \
#member, offsetof(struct disk_report, member),    \
			sizeof(((struct disk_report *)0)->member) \
	}

static const struct number disk_numbers[] = {
	DISK_NUMBER(nr),         DISK_NUMBER(nr_copied),
	DISK_NUMBER(bytes),      DISK_NUMBER(nr_passes),
	DISK_NUMBER(data_bytes), DISK_NUMBER(zero_bytes),
	DISK_NUMBER(wire_bytes), {NULL, 0, 0},
};

static void put_numbers(json_t *json, const struct number *rows, const void *from)
{
	for (; rows->name; rows++) {
		const char *member = (const char *)from + rows->offset;
		uint64_t value = 0;

		memcpy(&value, member, rows->size); /* little endian, as every x86-64 */
		json_object_set_new(json, rows->name, json_integer((json_int_t)value));
	}
}

static void get_numbers(json_t *json, const struct number *rows, void *to)
{
	for (; rows->name; rows++) {
		json_int_t number = json_integer_value(json_object_get(json, rows->name));
		uint64_t value = number > 0 ? (uint64_t)number : 0;

		memcpy((char *)to + rows->offset, &value, rows->size);
	}
}

/* QMP's name, except that here UNKNOWN need not hide behind "failed". */
static const char *status_name(enum migration_status status)
{
	return status == MIGRATION_UNKNOWN ? "unknown" : migration_status_name(status);
}

static json_t *phases_to_json(const struct migration_report *report)
{
	json_t *phases = json_object();

	for (int p = 0; p < NR_PHASES; p++)
		json_object_set_new(phases, migration_phase_name((enum migration_phase)p),
				    json_integer((json_int_t)report->phase_ns[p]));
	return phases;
}

static json_t *rounds_to_json(const struct migration_report *report)
{
	json_t *rounds = json_array();

	for (uint32_t i = 0; i < report->nr_rounds && i < REPORT_MAX_ROUNDS; i++) {
		json_t *round = json_object();

		put_numbers(round, round_numbers, &report->rounds[i]);
		json_array_append_new(rounds, round);
	}
	return rounds;
}

static json_t *pages_to_json(const struct migration_report *report)
{
	struct round_report sum = {.number = 0};

	for (uint32_t i = 0; i < report->nr_rounds && i < REPORT_MAX_ROUNDS; i++) {
		sum.skipped_pages += report->rounds[i].skipped_pages;
		sum.zero_pages += report->rounds[i].zero_pages;
		sum.raw_pages += report->rounds[i].raw_pages;
		sum.compressed_pages += report->rounds[i].compressed_pages;
	}
	return json_pack("{s:I,s:I,s:I,s:I}", "skipped", (json_int_t)sum.skipped_pages, "zero",
			 (json_int_t)sum.zero_pages, "raw", (json_int_t)sum.raw_pages, "compressed",
			 (json_int_t)sum.compressed_pages);
}

static json_t *disks_to_json(const struct disk_report *disks)
{
	json_t *json = json_object();

	put_numbers(json, disk_numbers, disks);
	return json;
}

static json_t *blackout_to_json(const struct guest_blackout *blackout)
{
	if (!blackout->present)
		return json_null();
	return json_pack("{s:I,s:b,s:I}", "gap_ns", (json_int_t)blackout->gap_ns, "below",
			 blackout->below, "precopy_max_ns", (json_int_t)blackout->precopy_max_ns);
}

json_t *report_to_json(const struct migration_report *report)
{
	json_t *json = json_object();

	json_object_set_new(json, "status", json_string(status_name(report->status)));
	if (report->error.kind != ERR_NONE) {
		json_object_set_new(json, "error", json_text(report->error.msg));
		json_object_set_new(json, "error_kind",
				    json_string(err_kind_name(report->error.kind)));
	}
	json_object_set_new(json, "ended", json_boolean(report->ended));
	json_object_set_new(json, "uri", json_text(report->uri));
	json_object_set_new(json, "tracker", json_text(report->tracker));
	json_object_set_new(json, "codec", json_text(report->codec));
	json_object_set_new(json, "policy", json_text(report->policy));
	json_object_set_new(json, "verified", json_boolean(report->verified));
	json_object_set_new(json, "phase", json_string(migration_phase_name(report->phase)));
	put_numbers(json, report_numbers, report);
	json_object_set_new(json, "phase_ns", phases_to_json(report));
	json_object_set_new(json, "pages", pages_to_json(report));
	json_object_set_new(json, "disks", disks_to_json(&report->disks));
	json_object_set_new(json, "blackout", blackout_to_json(&report->blackout));
	json_object_set_new(json, "rounds", rounds_to_json(report));
	return json;
}

static void get_text(json_t *json, const char *name, char *out, size_t cap)
{
	const char *text = json_string_value(json_object_get(json, name));

	snprintf(out, cap, "%s", text ? text : "");
}

static enum migration_status status_from(const char *name)
{
	for (int s = MIGRATION_NONE; name && s <= MIGRATION_UNKNOWN; s++)
		if (!strcmp(name, status_name((enum migration_status)s)))
			return (enum migration_status)s;
	return MIGRATION_NONE;
}

static void get_phases(json_t *json, struct migration_report *report)
{
	json_t *phases = json_object_get(json, "phase_ns");
	const char *now = json_string_value(json_object_get(json, "phase"));

	for (int p = 0; p < NR_PHASES; p++) {
		const char *name = migration_phase_name((enum migration_phase)p);

		report->phase_ns[p] = (uint64_t)json_integer_value(json_object_get(phases, name));
		if (now && !strcmp(now, name))
			report->phase = (enum migration_phase)p;
	}
}

static void get_blackout(json_t *json, struct guest_blackout *blackout)
{
	if (!json_is_object(json))
		return;
	blackout->present = true;
	blackout->below = json_is_true(json_object_get(json, "below"));
	blackout->gap_ns = (uint64_t)json_integer_value(json_object_get(json, "gap_ns"));
	blackout->precopy_max_ns =
		(uint64_t)json_integer_value(json_object_get(json, "precopy_max_ns"));
}

void report_from_json(json_t *json, struct migration_report *report)
{
	json_t *rounds = json_object_get(json, "rounds");

	memset(report, 0, sizeof(*report));
	report->status = status_from(json_string_value(json_object_get(json, "status")));
	get_text(json, "error", report->error.msg, sizeof(report->error.msg));
	if (report->error.msg[0])
		report->error.kind = ERR_PEER;
	get_text(json, "uri", report->uri, sizeof(report->uri));
	get_text(json, "tracker", report->tracker, sizeof(report->tracker));
	get_text(json, "codec", report->codec, sizeof(report->codec));
	get_text(json, "policy", report->policy, sizeof(report->policy));
	report->ended = json_is_true(json_object_get(json, "ended"));
	report->verified = json_is_true(json_object_get(json, "verified"));
	get_numbers(json, report_numbers, report);
	get_phases(json, report);
	get_numbers(json_object_get(json, "disks"), disk_numbers, &report->disks);
	get_blackout(json_object_get(json, "blackout"), &report->blackout);
	for (size_t i = 0; i < json_array_size(rounds) && i < REPORT_MAX_ROUNDS; i++) {
		get_numbers(json_array_get(rounds, i), round_numbers, &report->rounds[i]);
		report->nr_rounds++;
	}
}
