/* PVH: offsets are those of Xen's hvm_start_info, version 1. */
#include "images.h"

static uint8_t initrd_bytes[5000];

static const struct boot_file initrd = {"initrd", initrd_bytes, sizeof(initrd_bytes)};

static uint64_t info(const struct guest_mem *mem, uint64_t gpa, size_t bytes)
{
	uint64_t value = 0;

	memcpy(&value, guest_at(mem, gpa, bytes), bytes);
	return value;
}

static void check_loaded(const struct guest_mem *mem, const struct boot_entry *entry)
{
	uint8_t marker[CODE_BYTES];
	uint64_t cmdline;

	fill_marker(marker, sizeof(marker));
	assert_memory_equal(guest_at(mem, CODE_GPA, CODE_BYTES), marker, CODE_BYTES);
	assert_string_equal(entry->format, "PVH ELF");
	assert_int_equal(entry->mode, BOOT_PROTECTED);
	assert_int_equal(entry->rip, CODE_GPA + 4);
	assert_int_equal(info(mem, entry->rbx, 4), 0x336ec578);
	assert_int_equal(info(mem, entry->rbx + 4, 4), 1);
	assert_int_equal(info(mem, entry->rbx + 32, 8), TEST_RSDP);
	cmdline = info(mem, entry->rbx + 24, 8);
	assert_string_equal(guest_at(mem, cmdline, sizeof(TEST_APPEND)), TEST_APPEND);
}

static void check_gdt(const struct guest_mem *mem, const struct boot_entry *entry)
{
	assert_true(entry->gdt_limit >= 0x1f);
	assert_int_equal(info(mem, entry->gdt_gpa, 8), 0);
	assert_int_equal(info(mem, entry->gdt_gpa + 0x10, 8), 0x00cf9b000000ffff);
	assert_int_equal(info(mem, entry->gdt_gpa + 0x18, 8), 0x00cf93000000ffff);
}

static void elf64_and_elf32_load(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	for (int bits = 32; bits <= 64; bits += 32) {
		struct guest_mem *mem = new_mem(64 << 20);
		struct boot_entry entry;

		if (bits == 64)
			make_elf64(image, EM_X86_64, true);
		else
			make_elf32(image, EM_386, true);
		load_ok(mem, &in, &entry);
		check_loaded(mem, &entry);
		check_gdt(mem, &entry);
		assert_int_equal(info(mem, entry.rbx + 12, 4), 0); /* no modules */
		guest_mem_free(mem);
	}
}

static void memory_map_and_initrd_are_described(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));
	struct guest_mem *mem = new_mem(4ull << 30);
	struct boot_entry entry;
	uint64_t map, module, at;

	(void)state;
	fill_marker(initrd_bytes, sizeof(initrd_bytes));
	in.initrd = initrd;
	make_elf64(image, EM_X86_64, true);
	load_ok(mem, &in, &entry);
	map = info(mem, entry.rbx + 40, 8);
	assert_int_equal(info(mem, entry.rbx + 48, 4), 4);
	assert_int_equal(info(mem, map + 3 * 24, 8), 4ull << 30);
	assert_int_equal(info(mem, map + 3 * 24 + 8, 8), 1ull << 30);
	assert_int_equal(info(mem, map + 3 * 24 + 16, 4), 1);
	assert_int_equal(info(mem, entry.rbx + 12, 4), 1);
	module = info(mem, entry.rbx + 16, 8);
	at = info(mem, module, 8);
	assert_int_equal(info(mem, module + 8, 8), sizeof(initrd_bytes));
	assert_int_equal(at % PAGE_BYTES, 0);
	assert_int_equal(at, (3ull << 30) - 2 * PAGE_BYTES);
	assert_memory_equal(guest_at(mem, at, sizeof(initrd_bytes)), initrd_bytes,
			    sizeof(initrd_bytes));
	guest_mem_free(mem);
}

/* A reboot finds the old guest's bytes where the bss is; a first boot must not touch it. */
static void bss_is_cleared_only_where_dirty(void **state)
{
	uint8_t image[IMAGE_BYTES], junk[64];
	struct boot_input in = input_of(image, sizeof(image));
	struct guest_mem *mem = new_mem(64 << 20);
	struct err e = ERR_INIT;
	struct boot_entry entry;
	uint64_t start, stop, untouched, bss = CODE_GPA + CODE_BYTES, end = bss + BSS_BYTES;

	(void)state;
	make_elf64(image, EM_X86_64, true);
	load_ok(mem, &in, &entry);
	/* The code's own page is there, however large pages are. */
	untouched = CODE_GPA + (guest_mem_is_huge(mem) ? 2u << 20 : PAGE_BYTES);
	assert_false(guest_mem_next_data(mem, NULL, untouched, 64 << 20, &start, &stop));
	memset(junk, 0x55, sizeof(junk));
	assert_int_equal(guest_mem_write(mem, end - sizeof(junk), junk, sizeof(junk), &e), 0);
	assert_int_equal(guest_mem_write(mem, bss, junk, sizeof(junk), &e), 0);
	assert_int_equal(guest_mem_write(mem, end, junk, 1, &e), 0);
	load_ok(mem, &in, &entry);
	assert_all_zero(mem, bss, BSS_BYTES);
	assert_int_equal(info(mem, end, 1), 0x55); /* not ours */
	guest_mem_free(mem);
}

static void set_load(uint8_t *image, uint64_t paddr, uint64_t memsz)
{
	memcpy(image + sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_paddr), &paddr, 8);
	memcpy(image + sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_memsz), &memsz, 8);
}

static void unusable_segments_are_refused(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	make_elf64(image, EM_X86_64, true);
	set_load(image, 64 << 20, CODE_BYTES);
	load_refused(&in, 64, "no RAM");
	set_load(image, CODE_GPA, 1ull << 40);
	load_refused(&in, 64, "no RAM");
	set_load(image, UINT64_MAX - 0x10, CODE_BYTES);
	load_refused(&in, 64, "no RAM");
	set_load(image, LAYOUT_CMDLINE, CODE_BYTES);
	load_refused(&in, 64, "boot structures");
	set_load(image, 0xe0000, CODE_BYTES);
	load_refused(&in, 64, "no RAM");
	set_load(image, CODE_GPA, 1);
	load_refused(&in, 64, "beyond its end");
	make_elf64(image, EM_X86_64, true);
	make_note(image + NOTE_OFFSET, 0xd0000000, 8);
	load_refused(&in, 64, "entry point 0xd0000000");
}

static void too_much_is_refused(void **state)
{
	static char line[LAYOUT_CMDLINE_BYTES + 1];
	static uint8_t big[62 << 20];
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	make_elf64(image, EM_X86_64, true);
	memset(line, 'x', sizeof(line) - 1);
	in.append = line;
	load_refused(&in, 64, "65536 characters");
	in.append = "";
	in.initrd = (struct boot_file){"big", big, sizeof(big)};
	load_refused(&in, 64, "big: the initrd of 62 MiB does not fit");
}

static void damage_is_survived(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, CODE_OFFSET + CODE_BYTES);

	(void)state;
	make_elf64(image, EM_X86_64, true);
	survive_damage(&in, image, NOTE_OFFSET + 24);
	make_elf32(image, EM_386, true);
	survive_damage(&in, image, NOTE_OFFSET + 24);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(elf64_and_elf32_load),
		cmocka_unit_test(memory_map_and_initrd_are_described),
		cmocka_unit_test(bss_is_cleared_only_where_dirty),
		cmocka_unit_test(unusable_segments_are_refused),
		cmocka_unit_test(too_much_is_refused),
		cmocka_unit_test(damage_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
