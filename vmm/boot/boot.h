/*
 * Loading a guest image into memory and saying where vCPU 0 starts.
 *
 * Formats are detected from the bytes: ELF64 with a PVH note (XEN_ELFNOTE_PHYS32_ENTRY), Linux
 * bzImage by its 64-bit boot protocol (>= 2.12), Multiboot 1. One file a format, one line in a
 * table (boot.c). Runs on the controller's thread while the VM is paused; every byte goes through
 * guest_mem_write().
 */
#pragma once

#include <stdint.h>

#include "vmm/base/err.h"
#include "vmm/boot/image.h"
#include "vmm/mem.h"

enum boot_mode {
	BOOT_PROTECTED, /* 32-bit, flat segments, paging off (PVH, multiboot) */
	BOOT_LONG,      /* 64-bit, identity page tables at cr3 (bzImage) */
};

/* The registers that differ between formats; vmm/cpu_reset.h turns this into KVM state. */
struct boot_entry {
	const char *format; /* "PVH ELF", "Linux bzImage", "Multiboot 1" */
	enum boot_mode mode;
	uint64_t rip;
	uint64_t rax, rbx, rsi;
	uint64_t cr3;     /* BOOT_LONG */
	uint64_t gdt_gpa; /* a GDT in guest memory: 0x10 = code, 0x18 = data, of the mode above */
	uint16_t gdt_limit;
};

/* @image is sealed; @rsdp_gpa is where vmm/acpi put the RSDP. An image that is none of the formats
 * is ERR_STREAM with a message that says what it is and what is accepted. */
int boot_load(struct guest_mem *mem, const struct boot_image *image, uint64_t rsdp_gpa,
	      struct boot_entry *entry, struct err *e);
