/* The 64-bit Linux boot protocol. */
#include "images.h"

static uint8_t initrd_bytes[10000];

static void load(struct guest_mem *mem, const struct setup_header *h, const char *append,
		 bool with_initrd, struct boot_entry *entry)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));

	make_bzimage(image, h);
	in.append = append;
	if (with_initrd)
		in.initrd = (struct boot_file){"initrd", initrd_bytes, sizeof(initrd_bytes)};
	load_ok(mem, &in, entry);
}

static const struct boot_params *params(const struct guest_mem *mem, const struct boot_entry *entry)
{
	return guest_at(mem, entry->rsi, sizeof(struct boot_params));
}

static void kernel_starts_at_its_preferred_address(void **state)
{
	struct setup_header h = bz_header();
	struct guest_mem *mem = new_mem(128 << 20);
	uint8_t marker[IMAGE_BYTES - BZ_SETUP];
	struct boot_entry entry;

	(void)state;
	load(mem, &h, TEST_APPEND, false, &entry);
	fill_marker(marker, sizeof(marker));
	assert_memory_equal(guest_at(mem, BZ_PREF, sizeof(marker)), marker, sizeof(marker));
	assert_string_equal(entry.format, "Linux bzImage");
	assert_int_equal(entry.mode, BOOT_LONG);
	assert_int_equal(entry.rip, BZ_PREF + 0x200);
	h.relocatable_kernel = 0;
	load(mem, &h, TEST_APPEND, false, &entry);
	assert_int_equal(entry.rip, 0x100000 + 0x200);
	guest_mem_free(mem);
}

static void zero_page_says_what_is_there(void **state)
{
	const struct setup_header h = bz_header();
	struct guest_mem *mem = new_mem(4ull << 30);
	const struct boot_params *bp;
	struct boot_entry entry;
	uint64_t at;

	(void)state;
	fill_marker(initrd_bytes, sizeof(initrd_bytes));
	load(mem, &h, TEST_APPEND, true, &entry);
	bp = params(mem, &entry);
	assert_int_equal(bp->hdr.type_of_loader, 0xff);
	assert_int_equal(bp->hdr.header, 0x53726448);
	assert_int_equal(bp->sentinel, 0);
	assert_int_equal(bp->acpi_rsdp_addr, TEST_RSDP);
	assert_string_equal(guest_at(mem, bp->hdr.cmd_line_ptr, 64), TEST_APPEND);
	assert_int_equal(bp->e820_entries, 4);
	assert_int_equal(bp->e820_table[3].addr, 4ull << 30);
	assert_int_equal(bp->e820_table[3].size, 1ull << 30);
	at = bp->hdr.ramdisk_image;
	assert_int_equal(bp->hdr.ramdisk_size, sizeof(initrd_bytes));
	assert_true(at + sizeof(initrd_bytes) <= 0x80000000); /* initrd_addr_max */
	assert_int_equal(at, 0x80000000 - 3 * PAGE_BYTES);
	assert_memory_equal(guest_at(mem, at, sizeof(initrd_bytes)), initrd_bytes,
			    sizeof(initrd_bytes));
	guest_mem_free(mem);
}

/* Everything outside the header, and fields that the kernel's header does not have, stay zero. */
static void zero_page_takes_only_the_header(void **state)
{
	struct setup_header h = bz_header();
	struct guest_mem *mem = new_mem(128 << 20);
	const uint8_t *page;
	struct boot_entry entry;

	(void)state;
	h.version = 0x020c;
	h.jump = 0x66eb; /* the header ends at 0x268: with handover_offset, not kernel_info */
	h.kernel_info_offset = 0xeeeeeeee;
	load(mem, &h, TEST_APPEND, false, &entry);
	page = guest_at(mem, entry.rsi, PAGE_BYTES);
	assert_int_equal(params(mem, &entry)->acpi_rsdp_addr, 0); /* unknown before 2.14 */
	for (size_t i = 0; i < 0x1e8; i++)
		assert_int_equal(page[i], 0);
	for (size_t i = 0x268; i < 0x2d0; i++)
		assert_int_equal(page[i], 0);
	guest_mem_free(mem);
}

static uint64_t entry_of(const struct guest_mem *mem, uint64_t table, uint64_t index)
{
	const uint64_t *t = guest_at(mem, table, PAGE_BYTES);

	return t[index];
}

/* Walk as the CPU does. */
static uint64_t translate(const struct guest_mem *mem, uint64_t cr3, uint64_t va)
{
	uint64_t pdpt = entry_of(mem, cr3, va >> 39 & 511);
	uint64_t pd = entry_of(mem, pdpt & ~0xfffull, va >> 30 & 511);
	uint64_t page = entry_of(mem, pd & ~0xfffull, va >> 21 & 511);

	assert_true(pdpt & 1);
	assert_true(pd & 1);
	assert_int_equal(page & 0x83, 0x83);
	return (page & ~0x1fffffull) | (va & 0x1fffff);
}

static void first_four_gib_are_mapped_to_themselves(void **state)
{
	const struct setup_header h = bz_header();
	struct guest_mem *mem = new_mem(128 << 20);
	const uint64_t *gdt;
	struct boot_entry entry;

	(void)state;
	load(mem, &h, TEST_APPEND, false, &entry);
	for (uint64_t va = 0x1234; va < 4ull << 30; va += 2 << 20)
		assert_int_equal(translate(mem, entry.cr3, va), va);
	gdt = guest_at(mem, entry.gdt_gpa, entry.gdt_limit + 1u);
	assert_int_equal(gdt[2], 0x00af9b000000ffff);
	assert_int_equal(gdt[3], 0x00cf93000000ffff);
	guest_mem_free(mem);
}

static void refused(const struct setup_header *h, uint64_t bytes, uint64_t mib, const char *text)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, bytes);

	make_bzimage(image, h);
	load_refused(&in, mib, text);
}

static void unusable_kernels_are_refused(void **state)
{
	struct setup_header h = bz_header();

	(void)state;
	h.version = 0x0204;
	refused(&h, IMAGE_BYTES, 64, "image: is a bzImage of protocol 2.04, too old; accepted are");
	h = bz_header();
	h.xloadflags = 0;
	refused(&h, IMAGE_BYTES, 64, "32-bit kernel");
	h = bz_header();
	h.loadflags = 0;
	refused(&h, IMAGE_BYTES, 64, "zImage");
	h = bz_header();
	refused(&h, IMAGE_BYTES - 16, 64, "truncated bzImage");
	refused(&h, BZ_SETUP, 64, "truncated bzImage");
	refused(&h, IMAGE_BYTES, 16, "from 16 to 24 MiB");
	refused(&h, IMAGE_BYTES, 22, "give the guest more memory");
	h.pref_address = 0;
	refused(&h, IMAGE_BYTES, 64, "more memory");
	h.pref_address = 1ull << 40;
	refused(&h, IMAGE_BYTES, 64, "impossible address");
}

static void command_line_limit_is_the_kernels(void **state)
{
	struct setup_header h = bz_header();
	struct guest_mem *mem = new_mem(64 << 20);
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));
	struct boot_entry entry;

	(void)state;
	h.cmdline_size = 8;
	load(mem, &h, "12345678", false, &entry);
	make_bzimage(image, &h);
	in.append = "123456789";
	load_refused(&in, 64, "has 9 characters, this kernel takes at most 8");
	guest_mem_free(mem);
}

static void initrd_must_fit_above_the_kernel(void **state)
{
	static uint8_t big[41 << 20];
	const struct setup_header h = bz_header();
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	make_bzimage(image, &h);
	in.initrd = (struct boot_file){"big", big, sizeof(big)};
	load_refused(&in, 64,
		     "the initrd of 41 MiB does not fit between the kernel (which ends at "
		     "24 MiB) and 64 MiB");
}

static void damage_is_survived(void **state)
{
	const struct setup_header h = bz_header();
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	make_bzimage(image, &h);
	survive_damage(&in, image, 0x280);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernel_starts_at_its_preferred_address),
		cmocka_unit_test(zero_page_says_what_is_there),
		cmocka_unit_test(zero_page_takes_only_the_header),
		cmocka_unit_test(first_four_gib_are_mapped_to_themselves),
		cmocka_unit_test(unusable_kernels_are_refused),
		cmocka_unit_test(command_line_limit_is_the_kernels),
		cmocka_unit_test(initrd_must_fit_above_the_kernel),
		cmocka_unit_test(damage_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
