/*
 * Device state from a hostile stream. The first byte picks the device, the rest is its state. What
 * is refused must change nothing; what is taken must survive the guest's next accesses, and save to
 * bytes that load again to the same.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/virtio_bench.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/serial_backend.h"

#define NR_PLATFORM  9
#define MEMORY_BYTES (64ull << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void set_irq(void *ctx, uint32_t gsi, bool level)
{
	(void)ctx;
	(void)gsi;
	(void)level;
}

static void request(void *ctx, enum machine_request what, int code)
{
	(void)ctx;
	(void)what;
	(void)code;
}

static int two_cpus_fw_cfg_new(const struct machine *m, struct device **out, struct err *e)
{
	return fw_cfg_new(m, 2, out, e);
}

#define NR_DEVICES (NR_PLATFORM + BENCH_NR_KINDS)

static struct device *new_device(const struct machine *m, const struct bench_back_ends *ends,
				 uint32_t which)
{
	static int (*const constructors[])(const struct machine *, struct device **,
					   struct err *) = {rtc_new,
							    i8042_new,
							    acpi_pm_new,
							    guest_report_dev_new,
							    two_cpus_fw_cfg_new,
							    shutdown_port_new,
							    test_device_new,
							    hpet_new};
	struct serial_backend *b;
	struct device *d = NULL;
	struct err e = ERR_INIT;

	if (which >= NR_PLATFORM)
		return bench_device_new(m, ends, which - NR_PLATFORM);
	if (which) {
		must(!constructors[which - 1](m, &d, &e));
		return d;
	}
	must(!serial_backend_new("null", &b, &e));
	must(!uart16550_new(m, b, &d, &e));
	return d;
}

static void save(const struct device *d, struct buf *out)
{
	struct err e = ERR_INIT;

	buf_reset(out);
	must(!d->ops->save(d, out, &e));
}

static bool same(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

/* Read and rewrite every register the devices have. */
static void poke(struct bus *bus)
{
	static const uint16_t ports[][2] = {{0x60, 1},  {0x64, 1},  {0x70, 2},    {0xe0, 4},
					    {0xe4, 4},  {0x3f8, 8}, {0x510, 2},   {0x600, 4},
					    {0x604, 2}, {0x608, 4}, {0x2000, 24}, {0x6770, 4},
					    {0x8900, 1}};
	static const uint32_t mmio[] = {0xfed00010, 0xfed00020, 0xfed000f0, 0xfed00100, 0xfed00108,
					0xfed00120, 0xfed00128, 0xfed00140, 0xfed00148, 0xff000000};

	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		for (uint16_t k = 0; k < ports[i][1]; k++) {
			uint8_t byte;

			bus_read(bus, BUS_PIO, ports[i][0] + k, &byte, 1);
			bus_write(bus, BUS_PIO, ports[i][0] + k, &byte, 1);
		}
	}
	for (size_t i = 0; i < sizeof(mmio) / sizeof(mmio[0]); i++) {
		uint64_t value;

		bus_read(bus, BUS_MMIO, mmio[i], &value, sizeof(value));
		bus_write(bus, BUS_MMIO, mmio[i], &value, sizeof(value));
	}
}

static void try_load(struct device *d, struct bus *bus, const uint8_t *data, size_t len)
{
	struct buf before = BUF_INIT;
	struct buf after = BUF_INIT;
	struct err e = ERR_INIT;

	if (d->ops->quiesce)
		must(!d->ops->quiesce(d, &e));
	save(d, &before);
	if (d->ops->load(d, d->ops->state_version, data, len, &e)) {
		save(d, &after);
		must(e.msg[0] && same(&before, &after));
	} else {
		save(d, &before);
		must(!d->ops->load(d, d->ops->state_version, before.data, before.len, &e));
		save(d, &after);
		must(same(&before, &after));
	}
	if (d->ops->unquiesce)
		d->ops->unquiesce(d);
	poke(bus);
	buf_fini(&before);
	buf_fini(&after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct machine m = {.set_irq = set_irq, .request = request};
	struct bench_back_ends ends;
	struct device *d;
	struct err e = ERR_INIT;

	if (!len)
		return 0;
	must(!bus_new(&m.bus, &e));
	must(!guest_mem_new(MEMORY_BYTES, &m.mem, &e));
	bench_open_back_ends(&ends);
	d = new_device(&m, &ends, data[0] % NR_DEVICES);
	try_load(d, m.bus, data + 1, len - 1);
	d->ops->free(d);
	bench_close_back_ends(&ends);
	bus_free(m.bus);
	guest_mem_free(m.mem);
	return 0;
}
