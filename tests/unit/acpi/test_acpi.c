/* The ACPI tables: checksums and pointers by hand, contents by ACPICA's own compiler (iasl). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/acpi/acpi.h"
#include "vmm/acpi/tables.h"
#include "vmm/machine.h"

static const struct acpi_mmio_device virtio[] = {
	{"LNRO0005", 0, 0xd0000000, 0x200, 16},
	{"LNRO0005", 1, 0xd0000200, 0x200, 17},
};

static const char *const signatures[] = {"FACS", "DSDT", "FACP", "APIC", "XSDT", "RSDT"};

static void build(const struct acpi_config *config, const char *signature, struct buf *out)
{
	struct err e = ERR_INIT;

	if (acpi_build_table(config, signature, out, &e))
		fail_msg("%s: %s", signature, e.msg);
}

static uint8_t sum(const uint8_t *data, size_t bytes)
{
	uint8_t s = 0;

	for (size_t i = 0; i < bytes; i++)
		s = (uint8_t)(s + data[i]);
	return s;
}

/* Run a shell command in @dir; its output goes to DIR/out. */
static int run_in(const char *dir, const char *command)
{
	char line[1024];

	snprintf(line, sizeof(line), "cd '%s' && (set -e; %s) >out 2>&1", dir, command);
	return system(line);
}

static void print_file(const char *dir, const char *name)
{
	char line[1024];

	snprintf(line, sizeof(line), "cat '%s/%s' >&2", dir, name);
	if (system(line))
		print_error("cannot show %s\n", name);
}

static size_t read_back(const char *dir, const char *name, uint8_t *data, size_t cap)
{
	char path[512];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "rb");
	if (!f)
		fail_msg("iasl wrote no %s", name);
	n = fread(data, 1, cap, f);
	fclose(f);
	return n;
}

static void dump(const char *dir, const char *signature, const struct buf *b)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.dat", dir, signature);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
	fclose(f);
}

/* The table must disassemble, compile again without a remark, and give the same bytes (past the
 * header, where iasl puts its own name). */
static void check_with_iasl(const char *dir, const struct acpi_config *config,
			    const char *signature)
{
	uint8_t again[1 << 17];
	struct buf b = BUF_INIT;
	char command[512], name[32];
	size_t n, skip = strcmp(signature, "FACS") == 0 ? 0 : sizeof(struct acpi_header);

	build(config, signature, &b);
	dump(dir, signature, &b);
	snprintf(command, sizeof(command),
		 "iasl -d %s.dat 2>&1 | tee log; "
		 "if grep -iE 'warning|error|invalid' log; then exit 1; fi; "
		 "iasl -p new-%s %s.dsl | tee log; grep -q ' 0 Errors, 0 Warnings' log",
		 signature, signature, signature);
	if (run_in(dir, command)) {
		print_file(dir, "out");
		fail_msg("iasl finds fault with %s of %u CPUs", signature, config->nr_cpus);
	}
	snprintf(name, sizeof(name), "new-%s.aml", signature);
	n = read_back(dir, name, again, sizeof(again));
	assert_int_equal(n, b.len);
	assert_memory_equal(again + skip, b.data + skip, n - skip);
	buf_fini(&b);
}

static void iasl_agrees(void **state)
{
	static const uint32_t nr_cpus[] = {1, 2, 64, 300};
	char dir[] = "/tmp/godwit-acpi-XXXXXX", command[64];

	(void)state;
	if (system("command -v iasl >/dev/null 2>&1")) {
		print_message("SKIPPED: iasl is not installed (apt install acpica-tools)\n");
		skip();
	}
	assert_non_null(mkdtemp(dir));
	for (size_t c = 0; c < sizeof(nr_cpus) / sizeof(nr_cpus[0]); c++) {
		const struct acpi_config config = {.nr_cpus = nr_cpus[c],
						   .devices = virtio,
						   .nr_devices = c ? 2 : 0,
						   .sleeps = c % 2};

		for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++)
			check_with_iasl(dir, &config, signatures[i]);
	}
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	assert_int_equal(system(command), 0);
}

static void every_checksum_is_right(void **state)
{
	const struct acpi_config config = {.nr_cpus = 64};

	(void)state;
	for (size_t i = 1; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
		struct buf b = BUF_INIT;
		uint32_t bytes;

		build(&config, signatures[i], &b);
		memcpy(&bytes, b.data + 4, sizeof(bytes));
		assert_memory_equal(b.data, signatures[i], 4);
		assert_int_equal(bytes, b.len);
		assert_int_equal(sum(b.data, b.len), 0);
		buf_fini(&b);
	}
}

static uint64_t field(const struct guest_mem *mem, uint64_t gpa, size_t bytes)
{
	struct err e = ERR_INIT;
	uint64_t value = 0;

	if (guest_mem_read(mem, gpa, &value, bytes, &e))
		fail_msg("%s", e.msg);
	return value;
}

static void check_signature(const struct guest_mem *mem, uint64_t gpa, const char *signature)
{
	char found[5] = "";
	struct err e = ERR_INIT;

	assert_in_range(gpa, 0xe0000, 0xfffff);
	assert_int_equal(guest_mem_read(mem, gpa, found, 4, &e), 0);
	assert_string_equal(found, signature);
}

/* From the RSDP a guest must come to every table. */
static void pointers_lead_to_every_table(void **state)
{
	const struct acpi_config config = {.nr_cpus = 2};
	struct err e = ERR_INIT;
	struct guest_mem *mem;
	uint64_t rsdp, xsdt, rsdt, fadt;
	uint8_t bytes[ACPI_RSDP_BYTES];

	(void)state;
	assert_int_equal(guest_mem_new(16 << 20, &mem, &e), 0);
	assert_int_equal(acpi_install(mem, &config, &rsdp, &e), 0);
	assert_in_range(rsdp, 0xe0000, 0xfffff);
	assert_int_equal(rsdp % 16, 0);
	assert_int_equal(guest_mem_read(mem, rsdp, bytes, sizeof(bytes), &e), 0);
	assert_memory_equal(bytes, "RSD PTR ", 8);
	assert_int_equal(sum(bytes, 20), 0);
	assert_int_equal(sum(bytes, sizeof(bytes)), 0);
	rsdt = field(mem, rsdp + 16, 4);
	xsdt = field(mem, rsdp + 24, 8);
	check_signature(mem, xsdt, "XSDT");
	check_signature(mem, rsdt, "RSDT");
	fadt = field(mem, xsdt + 36, 8);
	check_signature(mem, fadt, "FACP");
	check_signature(mem, field(mem, xsdt + 44, 8), "APIC");
	assert_int_equal(field(mem, rsdt + 36, 4), fadt);
	check_signature(mem, field(mem, fadt + 36, 4), "FACS");
	assert_int_equal(field(mem, fadt + 36, 4) % 64, 0);
	check_signature(mem, field(mem, fadt + 40, 4), "DSDT");
	check_signature(mem, field(mem, fadt + 140, 8), "DSDT");
	guest_mem_free(mem);
}

/* Offsets of ACPI 6.4, 5.2.9. */
static void fadt_names_the_boards_registers(void **state)
{
	const struct acpi_config config = {.nr_cpus = 1};
	struct buf b = BUF_INIT;
	uint32_t value, flags;

	(void)state;
	build(&config, "FACP", &b);
	assert_int_equal(b.len, 276);
	assert_int_equal(b.data[46], BOARD_SCI_GSI);
	memcpy(&value, b.data + 56, sizeof(value));
	assert_int_equal(value, BOARD_PM_EVENT_PORT);
	memcpy(&value, b.data + 64, sizeof(value));
	assert_int_equal(value, BOARD_PM_CONTROL_PORT);
	memcpy(&value, b.data + 76, sizeof(value));
	assert_int_equal(value, BOARD_PM_TIMER_PORT);
	memcpy(&flags, b.data + 112, sizeof(flags));
	assert_false(flags & 1u << 4);  /* the power button is a fixed feature */
	assert_true(flags & 1u << 10);  /* the reset register works */
	assert_false(flags & 1u << 20); /* not a hardware-reduced platform */
	memcpy(&value, b.data + 120, sizeof(value));
	assert_int_equal(value, BOARD_RESET_PORT);
	assert_int_equal(b.data[128], 6);
	buf_fini(&b);
}

static bool has(const struct buf *table, const char *name)
{
	return memmem(table->data, table->len, name, strlen(name)) != NULL;
}

static void only_some_machines_sleep(void **state)
{
	static const bool sleeps[] = {false, true};

	(void)state;
	for (size_t i = 0; i < sizeof(sleeps) / sizeof(sleeps[0]); i++) {
		const struct acpi_config config = {.nr_cpus = 1, .sleeps = sleeps[i]};
		struct buf dsdt = BUF_INIT, fadt = BUF_INIT;

		build(&config, "DSDT", &dsdt);
		build(&config, "FACP", &fadt);
		assert_true(has(&dsdt, "_S5_"));
		assert_int_equal(has(&dsdt, "_S3_"), sleeps[i]);
		assert_int_equal(fadt.data[112] >> 6 & 1, !sleeps[i]); /* no RTC wake in PM1 */
		buf_fini(&dsdt);
		buf_fini(&fadt);
	}
}

/* Where pointers_lead_to_every_table() finds the FACS, there is the waking vector. */
static void the_facs_has_the_waking_vector(void **state)
{
	const struct acpi_config config = {.nr_cpus = 1, .sleeps = true};
	const uint32_t vector = 0x5000;
	struct err e = ERR_INIT;
	struct guest_mem *mem;
	uint64_t rsdp, facs;
	uint32_t found = 0;

	(void)state;
	assert_int_equal(guest_mem_new(16 << 20, &mem, &e), 0);
	assert_true(acpi_waking_vector(mem, &found, &e) < 0); /* no table */
	assert_int_equal(acpi_install(mem, &config, &rsdp, &e), 0);
	assert_true(acpi_waking_vector(mem, &found, &e) < 0); /* nothing in it */
	facs = field(mem, field(mem, field(mem, rsdp + 24, 8) + 36, 8) + 36, 4);
	assert_int_equal(guest_mem_write(mem, facs + 12, &vector, sizeof(vector), &e), 0);
	assert_int_equal(acpi_waking_vector(mem, &found, &e), 0);
	assert_int_equal(found, vector);
	guest_mem_free(mem);
}

static uint32_t count_entries(const struct buf *madt, uint8_t type)
{
	uint32_t nr = 0;

	for (size_t at = 44; at + 1 < madt->len; at += madt->data[at + 1]) {
		assert_int_not_equal(madt->data[at + 1], 0);
		nr += madt->data[at] == type;
	}
	return nr;
}

static void madt_has_every_cpu(void **state)
{
	static const uint32_t nr[] = {1, 64, 255, 256, 300};

	(void)state;
	for (size_t i = 0; i < sizeof(nr) / sizeof(nr[0]); i++) {
		const struct acpi_config config = {.nr_cpus = nr[i]};
		uint32_t small = nr[i] < 255 ? nr[i] : 255;
		struct buf b = BUF_INIT;

		build(&config, "APIC", &b);
		assert_int_equal(count_entries(&b, 0), small);
		assert_int_equal(count_entries(&b, 9), nr[i] - small);
		assert_int_equal(count_entries(&b, 1), 1);
		assert_int_equal(count_entries(&b, 2), 2);
		buf_fini(&b);
	}
}

static void impossible_requests_are_errors(void **state)
{
	const struct acpi_config none = {.nr_cpus = 0}, huge = {.nr_cpus = 100000},
				 one = {.nr_cpus = 1};
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;

	(void)state;
	assert_true(acpi_build_table(&none, "DSDT", &b, &e) < 0);
	assert_true(acpi_build_table(&huge, "DSDT", &b, &e) < 0);
	assert_non_null(strstr(e.msg, "100000 CPUs"));
	assert_true(acpi_build_table(&one, "SRAT", &b, &e) < 0);
	assert_int_equal(b.len, 0);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iasl_agrees),
		cmocka_unit_test(every_checksum_is_right),
		cmocka_unit_test(pointers_lead_to_every_table),
		cmocka_unit_test(fadt_names_the_boards_registers),
		cmocka_unit_test(only_some_machines_sleep),
		cmocka_unit_test(the_facs_has_the_waking_vector),
		cmocka_unit_test(madt_has_every_cpu),
		cmocka_unit_test(impossible_requests_are_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
