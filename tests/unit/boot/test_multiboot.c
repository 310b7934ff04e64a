/* Multiboot 1: offsets are those of the specification, 3.1.1 and 3.3. */
#include "images.h"

#define FLAG_ADDRESSES (1u << 16)

static uint32_t word(const struct guest_mem *mem, uint64_t gpa)
{
	uint32_t value;

	memcpy(&value, guest_at(mem, gpa, sizeof(value)), sizeof(value));
	return value;
}

static void check_loaded(const struct guest_mem *mem, const struct boot_entry *entry)
{
	uint8_t marker[CODE_BYTES];

	fill_marker(marker, sizeof(marker));
	assert_memory_equal(guest_at(mem, CODE_GPA, CODE_BYTES), marker, CODE_BYTES);
	assert_string_equal(entry->format, "Multiboot 1");
	assert_int_equal(entry->mode, BOOT_PROTECTED);
	assert_int_equal(entry->rax, 0x2badb002);
	assert_int_equal(entry->rip, CODE_GPA + 0x10);
}

static void elf_images_load(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	for (int bits = 32; bits <= 64; bits += 32) {
		struct guest_mem *mem = new_mem(64 << 20);
		struct boot_entry entry;

		if (bits == 64)
			make_elf64(image, EM_X86_64, false);
		else
			make_elf32(image, EM_386, false);
		make_multiboot_header(image + MB_OFFSET, 3, NULL);
		load_ok(mem, &in, &entry);
		check_loaded(mem, &entry); /* ELF64: the entry is a virtual address */
		guest_mem_free(mem);
	}
}

/* A flat image whose header lies @before bytes into what is loaded at CODE_GPA - MB_OFFSET. */
static void make_flat(uint8_t *image, uint32_t load_end, uint32_t bss_end)
{
	const uint32_t base = CODE_GPA - CODE_OFFSET;
	const uint32_t addresses[] = {base + MB_OFFSET, base, load_end, bss_end, CODE_GPA + 0x10};

	memset(image, 0xcc, IMAGE_BYTES);
	make_multiboot_header(image + MB_OFFSET, FLAG_ADDRESSES, addresses);
	fill_marker(image + CODE_OFFSET, CODE_BYTES);
}

static void address_fields_place_the_image(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));
	struct guest_mem *mem = new_mem(64 << 20);
	struct boot_entry entry;
	struct err e = ERR_INIT;
	const uint32_t end = CODE_GPA + CODE_BYTES;
	uint8_t junk = 0x55;

	(void)state;
	assert_int_equal(guest_mem_write(mem, end + 100, &junk, 1, &e), 0);
	make_flat(image, end, end + BSS_BYTES);
	load_ok(mem, &in, &entry);
	check_loaded(mem, &entry);
	assert_all_zero(mem, end, BSS_BYTES);
	make_flat(image, 0, 0); /* all of the file, no bss */
	load_ok(mem, &in, &entry);
	check_loaded(mem, &entry);
	assert_int_equal(word(mem, CODE_GPA + IMAGE_BYTES - CODE_OFFSET - 4), 0xcccccccc);
	guest_mem_free(mem);
}

static void information_describes_memory(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));
	struct guest_mem *mem = new_mem(4ull << 30);
	struct boot_entry entry;
	uint32_t map;

	(void)state;
	make_elf32(image, EM_386, false);
	make_multiboot_header(image + MB_OFFSET, 2, NULL);
	load_ok(mem, &in, &entry);
	assert_int_equal(word(mem, entry.rbx), 1u << 0 | 1u << 2 | 1u << 6 | 1u << 9);
	assert_int_equal(word(mem, entry.rbx + 4), 639);
	assert_int_equal(word(mem, entry.rbx + 8), 3 * 1024 * 1024 - 1024);
	assert_string_equal(guest_at(mem, word(mem, entry.rbx + 16), 64), "image " TEST_APPEND);
	assert_int_equal(word(mem, entry.rbx + 44), 4 * 24);
	map = word(mem, entry.rbx + 48);
	assert_int_equal(word(mem, map), 20);
	assert_int_equal(word(mem, map + 3 * 24 + 4), 0);
	assert_int_equal(word(mem, map + 3 * 24 + 8), 1);
	assert_int_equal(word(mem, map + 3 * 24 + 20), 1);
	assert_string_equal(guest_at(mem, word(mem, entry.rbx + 64), 8), "Godwit");
	guest_mem_free(mem);
}

static void initrd_is_the_module(void **state)
{
	static uint8_t initrd[5000];
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));
	struct guest_mem *mem = new_mem(64 << 20);
	struct boot_entry entry;
	uint32_t module;

	(void)state;
	fill_marker(initrd, sizeof(initrd));
	in.initrd = (struct boot_file){"module", initrd, sizeof(initrd)};
	make_elf32(image, EM_386, false);
	make_multiboot_header(image + MB_OFFSET, 1, NULL);
	load_ok(mem, &in, &entry);
	assert_true(word(mem, entry.rbx) & 1u << 3);
	assert_int_equal(word(mem, entry.rbx + 20), 1);
	module = word(mem, entry.rbx + 24);
	assert_int_equal(word(mem, module) % PAGE_BYTES, 0);
	assert_int_equal(word(mem, module + 4) - word(mem, module), sizeof(initrd));
	assert_memory_equal(guest_at(mem, word(mem, module), sizeof(initrd)), initrd,
			    sizeof(initrd));
	assert_string_equal(guest_at(mem, word(mem, module + 8), 7), "module");
	guest_mem_free(mem);
}

static void program_name_stands_before_the_arguments(void **state)
{
	static char line[LAYOUT_MULTIBOOT_CMDLINE_BYTES];
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));
	struct guest_mem *mem = new_mem(64 << 20);
	struct boot_entry entry;

	(void)state;
	make_elf32(image, EM_386, false);
	make_multiboot_header(image + MB_OFFSET, 0, NULL);
	in.append = "";
	load_ok(mem, &in, &entry);
	assert_string_equal(guest_at(mem, word(mem, entry.rbx + 16), 8), "image");
	memset(line, 'x', sizeof(line) - 1);
	in.append = line;
	load_refused(&in, 64, "8197 characters");
	guest_mem_free(mem);
}

/* kvm-unit-tests' realmode is linked to 0x8000; its boot structures must not lie on it. */
static void a_low_image_is_left_alone(void **state)
{
	static uint8_t image[0x10000];
	const uint32_t addresses[] = {0x8000, 0x8000, 0, 0x20000, 0x8020};
	struct boot_input in = input_of(image, sizeof(image));
	struct guest_mem *mem = new_mem(64 << 20);
	struct boot_entry entry;

	(void)state;
	fill_marker(image, sizeof(image));
	make_multiboot_header(image, FLAG_ADDRESSES, addresses);
	load_ok(mem, &in, &entry);
	assert_int_equal(entry.rip, 0x8020);
	assert_memory_equal(guest_at(mem, 0x8000, sizeof(image)), image, sizeof(image));
	assert_true(entry.rbx + 4096 <= 0x8000 && entry.gdt_gpa + entry.gdt_limit < 0x8000);
	assert_true(word(mem, entry.rbx + 16) < entry.rbx);
	guest_mem_free(mem);
}

static void unusable_images_are_refused(void **state)
{
	uint32_t addresses[] = {CODE_GPA, CODE_GPA, 0, 0, CODE_GPA};
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	make_elf32(image, EM_386, false);
	make_multiboot_header(image + MB_OFFSET, 4, NULL);
	load_refused(&in, 64, "video mode");
	make_multiboot_header(image + MB_OFFSET, 0x100, NULL);
	load_refused(&in, 64, "flags 0x100");
	memset(image, 0, sizeof(image));
	make_multiboot_header(image, 0, NULL);
	load_refused(&in, 64, "is not an ELF file");
	addresses[1] = CODE_GPA + 4;
	make_multiboot_header(image, FLAG_ADDRESSES, addresses);
	load_refused(&in, 64, "does not fit its header");
	addresses[1] = CODE_GPA - 4;
	make_multiboot_header(image, FLAG_ADDRESSES, addresses);
	load_refused(&in, 64, "does not fit its header");
	addresses[1] = CODE_GPA;
	addresses[2] = CODE_GPA + IMAGE_BYTES + 1;
	make_multiboot_header(image, FLAG_ADDRESSES, addresses);
	load_refused(&in, 64, "load_end_addr");
	addresses[2] = 0;
	addresses[3] = 0xf0000000;
	make_multiboot_header(image, FLAG_ADDRESSES, addresses);
	load_refused(&in, 64, "no free RAM");
	addresses[3] = 0;
	addresses[4] = 0xfee00000;
	make_multiboot_header(image, FLAG_ADDRESSES, addresses);
	load_refused(&in, 64, "entry point 0xfee00000");
}

/* 3.1: within the first 8192 bytes, aligned to 4. */
static void header_elsewhere_does_not_count(void **state)
{
	const uint32_t addresses[] = {CODE_GPA, CODE_GPA, 0, 0, CODE_GPA};
	uint8_t image[IMAGE_BYTES] = {0};
	struct boot_input in = input_of(image, sizeof(image));

	(void)state;
	make_multiboot_header(image + 8192 - 28, FLAG_ADDRESSES, addresses);
	load_refused(&in, 64, "no known format");
	memset(image, 0, sizeof(image));
	make_multiboot_header(image + 2, FLAG_ADDRESSES, addresses);
	load_refused(&in, 64, "no known format");
}

static void damage_is_survived(void **state)
{
	uint8_t image[IMAGE_BYTES];
	struct boot_input in = input_of(image, CODE_OFFSET + CODE_BYTES);

	(void)state;
	make_elf32(image, EM_386, false);
	make_multiboot_header(image + MB_OFFSET, 3, NULL);
	survive_damage(&in, image, MB_OFFSET + 12);
	make_flat(image, CODE_GPA + CODE_BYTES, CODE_GPA + CODE_BYTES + BSS_BYTES);
	survive_damage(&in, image, MB_OFFSET + 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(elf_images_load),
		cmocka_unit_test(address_fields_place_the_image),
		cmocka_unit_test(information_describes_memory),
		cmocka_unit_test(initrd_is_the_module),
		cmocka_unit_test(a_low_image_is_left_alone),
		cmocka_unit_test(program_name_stands_before_the_arguments),
		cmocka_unit_test(unusable_images_are_refused),
		cmocka_unit_test(header_elsewhere_does_not_count),
		cmocka_unit_test(damage_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
