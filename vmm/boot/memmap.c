#include "vmm/boot/memmap.h"

#include "vmm/boot/layout.h"

static void add(struct memmap *map, uint64_t base, uint64_t end, enum memmap_type type)
{
	if (end > base)
		map->entries[map->nr++] = (struct memmap_entry){base, end - base, type};
}

/* The first slot of a PC has a hole from the EBDA to 1 MiB: firmware data, video memory and ROMs.
 * Here it is RAM too, which is where the ACPI tables live. */
static void add_first_slot(struct memmap *map, uint64_t end)
{
	add(map, 0, LAYOUT_EBDA, MEMMAP_RAM);
	add(map, LAYOUT_EBDA, LAYOUT_ONE_MIB, MEMMAP_RESERVED);
	add(map, LAYOUT_ONE_MIB, end, MEMMAP_RAM);
}

void memmap_init(struct memmap *map, const struct guest_mem *mem)
{
	map->nr = 0;
	for (uint32_t i = 0; i < guest_mem_nr_slots(mem); i++) {
		const struct mem_slot *slot = guest_mem_slot(mem, i);

		if (slot->gpa == 0)
			add_first_slot(map, slot->bytes);
		else
			add(map, slot->gpa, slot->gpa + slot->bytes, MEMMAP_RAM);
	}
}

bool memmap_is_ram(const struct memmap *map, uint64_t base, uint64_t bytes)
{
	for (uint32_t i = 0; i < map->nr; i++) {
		const struct memmap_entry *m = &map->entries[i];

		if (m->type == MEMMAP_RAM && base >= m->base && base - m->base <= m->bytes &&
		    bytes <= m->bytes - (base - m->base))
			return true;
	}
	return false;
}

uint64_t memmap_low_end(const struct memmap *map)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < map->nr; i++) {
		const struct memmap_entry *m = &map->entries[i];

		if (m->type == MEMMAP_RAM && m->base < MEM_HOLE_START)
			end = m->base + m->bytes;
	}
	return end;
}
