/*
 * Synthetic kernel images for the tests of vmm/boot, and reading guest memory back. Each image is a
 * plain array; the code in it is a marker that the test finds again in guest memory.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <asm/bootparam.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/boot/formats.h"
#include "vmm/boot/layout.h"
#include "vmm/mem.h"

#define IMAGE_BYTES  0x3000
#define CODE_OFFSET  0x2000u
#define CODE_GPA     0x200000u
#define CODE_BYTES   0x100u
#define BSS_BYTES    0x2000u
#define NOTE_OFFSET  0x800u
#define MB_OFFSET    0x1000u
#define TEST_RSDP    0xe0000u
#define TEST_APPEND  "console=ttyS0 quiet"
#define PVH_NOTE     18
#define MB_MAGIC     0x1badb002u
#define BZ_SETUP     0x1400u /* boot sector and 9 of setup */
#define BZ_PREF      0x1000000u
#define BZ_INIT_SIZE 0x800000u

static inline void fill_marker(uint8_t *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		at[i] = (uint8_t)(i * 7 + 1);
}

static inline void make_note(uint8_t *at, uint64_t entry, uint32_t desc_bytes)
{
	const Elf64_Nhdr n = {.n_namesz = 4, .n_descsz = desc_bytes, .n_type = PVH_NOTE};

	memcpy(at, &n, sizeof(n));
	memcpy(at + sizeof(n), "Xen", 4);
	memcpy(at + sizeof(n) + 4, &entry, desc_bytes);
}

/* One loadable segment of CODE_BYTES with a bss behind it, one note segment. */
static inline void make_elf64(uint8_t image[IMAGE_BYTES], uint16_t machine, bool pvh)
{
	const Elf64_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1},
			      .e_type = ET_EXEC,
			      .e_machine = machine,
			      .e_entry = 0xffffffff80000010,
			      .e_phoff = sizeof(h),
			      .e_phentsize = sizeof(Elf64_Phdr),
			      .e_phnum = 2};
	const Elf64_Phdr p[2] = {{.p_type = PT_LOAD,
				  .p_offset = CODE_OFFSET,
				  .p_vaddr = 0xffffffff80000000,
				  .p_paddr = CODE_GPA,
				  .p_filesz = CODE_BYTES,
				  .p_memsz = CODE_BYTES + BSS_BYTES},
				 {.p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = 24}};

	memset(image, 0, IMAGE_BYTES);
	memcpy(image, &h, sizeof(h));
	memcpy(image + sizeof(h), p, sizeof(p));
	if (pvh)
		make_note(image + NOTE_OFFSET, CODE_GPA + 4, 8);
	fill_marker(image + CODE_OFFSET, CODE_BYTES);
}

static inline void make_elf32(uint8_t image[IMAGE_BYTES], uint16_t machine, bool pvh)
{
	const Elf32_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, 1},
			      .e_type = ET_EXEC,
			      .e_machine = machine,
			      .e_entry = CODE_GPA + 0x10,
			      .e_phoff = sizeof(h),
			      .e_phentsize = sizeof(Elf32_Phdr),
			      .e_phnum = 2};
	const Elf32_Phdr p[2] = {{.p_type = PT_LOAD,
				  .p_offset = CODE_OFFSET,
				  .p_vaddr = CODE_GPA,
				  .p_paddr = CODE_GPA,
				  .p_filesz = CODE_BYTES,
				  .p_memsz = CODE_BYTES + BSS_BYTES},
				 {.p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = 20}};

	memset(image, 0, IMAGE_BYTES);
	memcpy(image, &h, sizeof(h));
	memcpy(image + sizeof(h), p, sizeof(p));
	if (pvh)
		make_note(image + NOTE_OFFSET, CODE_GPA + 4, 4);
	fill_marker(image + CODE_OFFSET, CODE_BYTES);
}

static inline void put_u32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

/* @addresses: the five fields of flag 16, or NULL. */
static inline void make_multiboot_header(uint8_t *at, uint32_t flags, const uint32_t *addresses)
{
	put_u32(at, MB_MAGIC);
	put_u32(at + 4, flags);
	put_u32(at + 8, (uint32_t) - (MB_MAGIC + flags));
	if (addresses)
		memcpy(at + 12, addresses, 5 * sizeof(*addresses));
}

static inline struct setup_header bz_header(void)
{
	return (struct setup_header){.setup_sects = 9,
				     .syssize = (IMAGE_BYTES - BZ_SETUP) / 16,
				     .boot_flag = 0xaa55,
				     .jump = 0x6aeb,
				     .header = 0x53726448,
				     .version = 0x020f,
				     .loadflags = LOADED_HIGH,
				     .code32_start = 0x100000,
				     .initrd_addr_max = 0x7fffffff,
				     .kernel_alignment = 0x200000,
				     .relocatable_kernel = 1,
				     .xloadflags = XLF_KERNEL_64,
				     .cmdline_size = 2047,
				     .pref_address = BZ_PREF,
				     .init_size = BZ_INIT_SIZE};
}

static inline void make_bzimage(uint8_t image[IMAGE_BYTES], const struct setup_header *h)
{
	memset(image, 0xee, IMAGE_BYTES); /* nothing but the header may reach the zero page */
	memcpy(image + 0x1f1, h, sizeof(*h));
	fill_marker(image + BZ_SETUP, IMAGE_BYTES - BZ_SETUP);
}

static inline struct boot_input input_of(const uint8_t *image, uint64_t bytes)
{
	return (struct boot_input){.kernel = {.name = "image", .data = image, .bytes = bytes},
				   .append = TEST_APPEND,
				   .rsdp_gpa = TEST_RSDP};
}

static inline struct guest_mem *new_mem(uint64_t bytes)
{
	struct err e = ERR_INIT;
	struct guest_mem *mem = NULL;

	if (guest_mem_new(bytes, &mem, &e))
		fail_msg("%s", e.msg);
	return mem;
}

static inline const void *guest_at(const struct guest_mem *mem, uint64_t gpa, uint64_t bytes)
{
	const void *at = guest_mem_at(mem, gpa, bytes);

	if (!at)
		fail_msg("0x%llx is not RAM", (unsigned long long)gpa);
	return at;
}

static inline void assert_all_zero(const struct guest_mem *mem, uint64_t gpa, uint64_t bytes)
{
	const uint8_t *at = guest_at(mem, gpa, bytes);

	for (uint64_t i = 0; i < bytes; i++)
		assert_int_equal(at[i], 0);
}

static inline void load_ok(struct guest_mem *mem, const struct boot_input *in,
			   struct boot_entry *entry)
{
	struct err e = ERR_INIT;

	if (boot_load_bytes(mem, in, entry, &e))
		fail_msg("%s", e.msg);
}

/* Loading into @mib MiB must fail with a message that has @text in it. */
static inline void load_refused(const struct boot_input *in, uint64_t mib, const char *text)
{
	struct guest_mem *mem = new_mem(mib << 20);
	struct err e = ERR_INIT;
	struct boot_entry entry;

	assert_true(boot_load_bytes(mem, in, &entry, &e) < 0);
	if (!strstr(e.msg, text))
		fail_msg("expected \"%s\" in \"%s\"", text, e.msg);
	guest_mem_free(mem);
}

/* Every truncation and every flipped byte of the first @headers bytes must be survived. */
static inline void survive_damage(const struct boot_input *good, uint8_t *image, uint64_t headers)
{
	struct guest_mem *mem = new_mem(64 << 20);
	struct boot_input in = *good;
	struct boot_entry entry;
	struct err e = ERR_INIT;

	for (uint64_t n = 0; n < good->kernel.bytes; n += n < headers ? 1 : 61) {
		uint8_t *copy = malloc(n ? n : 1); /* exact, so that ASan sees an overrun */

		assert_non_null(copy);
		memcpy(copy, image, n);
		in.kernel.data = copy;
		in.kernel.bytes = n;
		assert_true(boot_load_bytes(mem, &in, &entry, &e) < 0);
		free(copy);
	}
	for (uint64_t i = 0; i < headers; i++) {
		static const uint8_t flips[] = {0xff, 0x80, 0x01};
		uint8_t old = image[i];

		for (size_t f = 0; f < sizeof(flips); f++) {
			image[i] = old ^ flips[f];
			(void)!boot_load_bytes(mem, good, &entry, &e);
		}
		image[i] = old;
	}
	guest_mem_free(mem);
}
