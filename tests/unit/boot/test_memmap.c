#include "images.h"
#include "vmm/boot/memmap.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct memmap map_of(uint64_t bytes)
{
	struct guest_mem *mem = new_mem(bytes);
	struct memmap map;

	memmap_init(&map, mem);
	guest_mem_free(mem);
	return map;
}

static void check_entry(const struct memmap *map, uint32_t i, uint64_t base, uint64_t end,
			enum memmap_type type)
{
	assert_true(i < map->nr);
	assert_int_equal(map->entries[i].base, base);
	assert_int_equal(map->entries[i].bytes, end - base);
	assert_int_equal(map->entries[i].type, type);
}

static void low_memory_has_the_bios_hole(void **state)
{
	static const uint64_t sizes[] = {2 * MIB, 128 * MIB, 3 * GIB, 4 * GIB, 64 * GIB};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct memmap map = map_of(sizes[i]);

		check_entry(&map, 0, 0, 0x9fc00, MEMMAP_RAM);
		check_entry(&map, 1, 0x9fc00, 0x100000, MEMMAP_RESERVED);
	}
}

static void ram_goes_around_the_pci_hole(void **state)
{
	struct memmap small = map_of(128 * MIB), full = map_of(3 * GIB);
	struct memmap four = map_of(4 * GIB), large = map_of(64 * GIB);

	(void)state;
	assert_int_equal(small.nr, 3);
	check_entry(&small, 2, MIB, 128 * MIB, MEMMAP_RAM);
	assert_int_equal(memmap_low_end(&small), 128 * MIB);
	assert_int_equal(full.nr, 3);
	check_entry(&full, 2, MIB, 3 * GIB, MEMMAP_RAM);
	assert_int_equal(four.nr, 4);
	check_entry(&four, 2, MIB, 3 * GIB, MEMMAP_RAM);
	check_entry(&four, 3, 4 * GIB, 5 * GIB, MEMMAP_RAM);
	check_entry(&large, 3, 4 * GIB, 65 * GIB, MEMMAP_RAM);
	assert_int_equal(memmap_low_end(&large), 3 * GIB);
}

static void is_ram_knows_edges_and_overflow(void **state)
{
	struct memmap map = map_of(4 * GIB);

	(void)state;
	assert_true(memmap_is_ram(&map, 0, 0x9fc00));
	assert_false(memmap_is_ram(&map, 0, 0x9fc01));
	assert_false(memmap_is_ram(&map, 0x9fc00, 1));
	assert_false(memmap_is_ram(&map, 0xfffff, 2));
	assert_true(memmap_is_ram(&map, MIB, 3 * GIB - MIB));
	assert_false(memmap_is_ram(&map, MIB, 3 * GIB - MIB + 1));
	assert_true(memmap_is_ram(&map, 4 * GIB, GIB));
	assert_false(memmap_is_ram(&map, 3 * GIB - 1, 2 * GIB));
	assert_false(memmap_is_ram(&map, 4 * GIB, UINT64_MAX));
	assert_false(memmap_is_ram(&map, UINT64_MAX, 2));
	assert_false(memmap_is_ram(&map, 5 * GIB - 1, UINT64_MAX - GIB));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(low_memory_has_the_bios_hole),
		cmocka_unit_test(ram_goes_around_the_pci_hole),
		cmocka_unit_test(is_ram_knows_edges_and_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
