/*
 * Writing AML, the bytecode of the DSDT (ACPI 6.4, chapter 20; resource descriptors: 6.4), without
 * a compiler. A block is opened by a function that returns a mark and closed by aml_end(mark),
 * which puts its length in front:
 *
 *	size_t com1 = aml_device(a, "COM1");
 *	aml_name_eisa_id(a, "_HID", "PNP0501");
 *	aml_end(a, com1);
 *
 * The first failure (only memory can run out) sticks: later calls do nothing and aml_result()
 * returns it. Names have up to 4 characters and are padded with '_'. One thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm/base/buf.h"
#include "vmm/base/err.h"

struct aml {
	struct buf *out;
	struct err *err;
	int rc;
};

struct aml aml_start(struct buf *out, struct err *e);
int aml_result(const struct aml *a);

/* Blocks. */
size_t aml_scope(struct aml *a, const char *name);
size_t aml_device(struct aml *a, const char *name);
size_t aml_package(struct aml *a, uint8_t nr_elements);
void aml_end(struct aml *a, size_t mark);

/* Terms. */
void aml_name(struct aml *a, const char *name); /* what follows is its value */
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);

void aml_name_integer(struct aml *a, const char *name, uint64_t value);
void aml_name_string(struct aml *a, const char *name, const char *text);
/* @id such as "PNP0501": three letters, four hexadecimal digits. */
void aml_name_eisa_id(struct aml *a, const char *name, const char *id);

/* A resource template, as the value of a name such as _CRS, and what may be in it. */
size_t aml_resources(struct aml *a);
void aml_io(struct aml *a, uint16_t port, uint8_t nr_ports);
void aml_isa_irq(struct aml *a, uint8_t irq); /* edge, active high */
void aml_memory(struct aml *a, uint32_t base, uint32_t bytes);
void aml_level_interrupt(struct aml *a, uint32_t gsi); /* level, active high */
void aml_end_resources(struct aml *a, size_t mark);
