/*
 * Inside vmm/acpi: what all tables share, and one function for each table. All tables are built in
 * one buffer that stands for guest memory from ACPI_BASE on. Any thread; no state.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm/acpi/acpi.h"
#include "vmm/base/buf.h"
#include "vmm/base/err.h"

/* The RSDP is searched for on 16-byte boundaries in 0xe0000-0xfffff (ACPI 6.4, 5.2.5.1). */
#define ACPI_BASE      0xe0000ull
#define ACPI_MAX_BYTES 0x20000ull

/* 5.2.6 */
struct acpi_header {
	char signature[4];
	uint32_t bytes;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_header) == 36, "ACPI 6.4, 5.2.6");

#define ACPI_OEM_ID "GODWIT"

/* 5.2.3.2: where a register is. */
struct acpi_gas {
	uint8_t space; /* 1: I/O ports */
	uint8_t bits;
	uint8_t bit_offset;
	uint8_t access; /* 1: byte, 2: word, 3: dword */
	uint64_t address;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_gas) == 12, "ACPI 6.4, 5.2.3.2");

struct acpi_header acpi_header(const char *signature, uint8_t revision);

/* The byte that makes all @bytes add up to 0. */
uint8_t acpi_checksum(const uint8_t *data, size_t bytes);

/* Fill in length and checksum of the table that starts at @start and ends where @out does. */
void acpi_finish_table(struct buf *out, size_t start);

/* Each appends one whole table. */
int acpi_append_facs(struct buf *out, struct err *e);
int acpi_append_fadt(const struct acpi_config *config, uint64_t facs_gpa, uint64_t dsdt_gpa,
		     struct buf *out, struct err *e);
int acpi_append_madt(const struct acpi_config *config, struct buf *out, struct err *e);
int acpi_append_dsdt(const struct acpi_config *config, struct buf *out, struct err *e);
/* XSDT or RSDT: the list of the other tables, in entries of 8 or 4 bytes. */
int acpi_append_sdt(const char *signature, size_t entry_bytes, const uint64_t *gpas, uint32_t nr,
		    struct buf *out, struct err *e);
/* The RSDP goes to @at, where there is room for ACPI_RSDP_BYTES. */
void acpi_fill_rsdp(uint8_t *at, uint64_t rsdt_gpa, uint64_t xsdt_gpa);
#define ACPI_RSDP_BYTES 36
