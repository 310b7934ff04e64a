/* A report in the words of QEMU's query-migrate (qapi/migration.json, MigrationInfo). */
#include "control/json_text.h"
#include "control/report_json.h"
#include "vmm/base/clock.h"
#include "vmm/mem.h"

static json_t *ms(uint64_t ns)
{
	return json_integer((json_int_t)((ns + NS_PER_MS / 2) / NS_PER_MS));
}

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

struct totals {
	uint64_t skipped, zero, normal, bytes, final_bytes;
	uint64_t duration_ns;
};

static void add_up(const struct migration_report *report, struct totals *t)
{
	for (uint32_t i = 0; i < report->nr_rounds && i < REPORT_MAX_ROUNDS; i++) {
		const struct round_report *r = &report->rounds[i];

		t->skipped += r->skipped_pages;
		t->zero += r->zero_pages;
		t->normal += r->raw_pages + r->compressed_pages;
		t->bytes += r->wire_bytes;
		t->duration_ns += r->duration_ns;
		t->final_bytes = r->wire_bytes;
	}
}

/* Rates: the present ones while it runs, the average of the whole afterwards. */
static uint64_t bytes_per_s(const struct migration_report *report)
{
	if (report->status != MIGRATION_COMPLETED || !report->total_ns)
		return report->bytes_per_s;
	return (uint64_t)((double)report->wire_bytes * 1e9 / (double)report->total_ns);
}

static json_t *ram(const struct migration_report *report)
{
	bool over = report->status == MIGRATION_COMPLETED;
	struct totals t = {.skipped = 0};
	json_t *json = json_object();
	uint64_t rate = bytes_per_s(report);
	uint64_t downtime_bytes;

	add_up(report, &t);
	t.zero += report->round_zero_pages;
	t.normal += report->round_data_pages;
	downtime_bytes = over ? t.final_bytes : 0;
	json_object_set_new(json, "total", number(report->ram_bytes));
	json_object_set_new(json, "remaining", number(over ? 0 : report->remaining_bytes));
	json_object_set_new(json, "transferred", number(report->wire_bytes));
	/* "duplicate" is QEMU's word for pages of one repeated byte, sent without their contents.
	 * Pages that were never touched it sends as such too; here they cost nothing at all. */
	json_object_set_new(json, "duplicate", number(t.zero + t.skipped));
	json_object_set_new(json, "skipped", number(0));
	json_object_set_new(json, "normal", number(t.normal));
	json_object_set_new(json, "normal-bytes", number(t.normal * PAGE_BYTES));
	json_object_set_new(json, "page-size", number(PAGE_BYTES));
	json_object_set_new(json, "mbps", json_real((double)rate * 8 / 1e6));
	/* QEMU counts the synchronisation that begins a round, the report the rounds that ended. */
	json_object_set_new(json, "dirty-sync-count", number(report->nr_rounds + !over));
	json_object_set_new(json, "dirty-sync-missed-zero-copy", number(0));
	json_object_set_new(json, "dirty-pages-rate", number(report->dirty_pages_per_s));
	json_object_set_new(json, "pages-per-second", number(over ? 0 : rate / PAGE_BYTES));
	json_object_set_new(json, "multifd-bytes",
			    number(report->nr_channels > 1 ? report->wire_bytes : 0));
	json_object_set_new(json, "downtime-bytes", number(downtime_bytes));
	json_object_set_new(json, "precopy-bytes",
			    number(report->wire_bytes > downtime_bytes
					   ? report->wire_bytes - downtime_bytes
					   : 0));
	json_object_set_new(json, "postcopy-bytes", number(0));
	json_object_set_new(json, "postcopy-requests", number(0));
	return json;
}

static void put_progress(json_t *info, const struct migration_report *report)
{
	json_object_set_new(info, "total-time", ms(report->total_ns));
	if (report->status == MIGRATION_SETUP)
		return;
	json_object_set_new(info, "setup-time", ms(report->setup_ns));
	if (report->status == MIGRATION_COMPLETED)
		json_object_set_new(info, "downtime", ms(report->downtime_ns));
	else
		json_object_set_new(info, "expected-downtime", ms(report->predicted_downtime_ns));
	if (report->throttle_percent)
		json_object_set_new(info, "cpu-throttle-percentage",
				    number(report->throttle_percent));
	json_object_set_new(info, "ram", ram(report));
}

json_t *report_to_migration_info(const struct migration_report *report)
{
	json_t *info = json_object();

	if (report->status == MIGRATION_NONE)
		return info;
	json_object_set_new(info, "status", json_string(migration_status_name(report->status)));
	if (report->error.kind != ERR_NONE)
		json_object_set_new(info, "error-desc", json_text(report->error.msg));
	if (report->status != MIGRATION_CANCELLED && report->status != MIGRATION_FAILED &&
	    report->status != MIGRATION_UNKNOWN)
		put_progress(info, report);
	return info;
}
