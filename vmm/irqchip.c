#include "vmm/irqchip.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "proto/state.pb-c.h"
#include "vmm/guest_time.h"
#include "vmm/machine.h"
#include "vmm/mem.h"

/*
 * Intel CPUs without unrestricted guest mode run real mode with the help of three pages for a TSS
 * and one for an identity page table, in the guest's address space and not in RAM (KVM API
 * document, 4.35 and 4.40). Below the BIOS area at the top of 4 GiB, where QEMU puts them as well.
 */
#define TSS_ADDRESS          0xfffbd000ul
#define IDENTITY_MAP_ADDRESS 0xfffbc000ull

_Static_assert(IDENTITY_MAP_ADDRESS >= MEM_HOLE_START && TSS_ADDRESS + 0x3000 <= MEM_HOLE_END,
	       "in the hole");

struct kvm_device {
	struct device dev;
	/* immutable after new */
	int vm_fd;
	/* What KVM made the chips: the power-on state that reset goes back to. */
	struct kvm_irqchip power_on[2];
	struct kvm_pit_state2 pit_power_on;
	/* controller thread: the PIT to go on with, while quiesced */
	struct kvm_pit_state2 pit;
};

#define PIC_PINS  16
#define PIT_GSI   0
#define PIT_PIN   2 /* of the IOAPIC, as the MADT's override says (vmm/acpi/madt.c) */
#define NR_ROUTES (PIC_PINS - 1 + KVM_IOAPIC_NUM_PINS - 1)

static struct kvm_irq_routing_entry route(uint32_t gsi, uint32_t chip, uint32_t pin)
{
	return (struct kvm_irq_routing_entry){.gsi = gsi,
					      .type = KVM_IRQ_ROUTING_IRQCHIP,
					      .u.irqchip = {.irqchip = chip, .pin = pin}};
}

/*
 * KVM's own routing sends GSI 0, the PIT's, to pin 0 of the IOAPIC. On a PC it is pin 2, because
 * the PIC pair has its cascade there and so no device of its own: GSI 2 goes nowhere.
 */
static int route_gsis(int vm_fd, struct err *e)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entries[NR_ROUTES];
	} table = {.head.nr = 0};

	for (uint32_t gsi = 0; gsi < KVM_IOAPIC_NUM_PINS; gsi++) {
		uint32_t pic = gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;

		if (gsi == PIT_PIN)
			continue;
		if (gsi < PIC_PINS)
			table.entries[table.head.nr++] = route(gsi, pic, gsi & 7);
		table.entries[table.head.nr++] =
			route(gsi, KVM_IRQCHIP_IOAPIC, gsi == PIT_GSI ? PIT_PIN : gsi);
	}
	if (ioctl(vm_fd, KVM_SET_GSI_ROUTING, &table) < 0)
		return err_sys(e, "KVM_SET_GSI_ROUTING");
	return 0;
}

int irqchip_create(int vm_fd, struct err *e)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY}; /* answers port 0x61 too */
	uint64_t identity = IDENTITY_MAP_ADDRESS;

	if (ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)
		return err_sys(e, "KVM_SET_IDENTITY_MAP_ADDR");
	if (ioctl(vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0)
		return err_sys(e, "KVM_SET_TSS_ADDR");
	if (ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return err_sys(e, "KVM_CREATE_IRQCHIP");
	if (ioctl(vm_fd, KVM_CREATE_PIT2, &pit) < 0)
		return err_sys(e, "KVM_CREATE_PIT2");
	return route_gsis(vm_fd, e);
}

static int get_chip(int vm_fd, uint32_t id, struct kvm_irqchip *chip, struct err *e)
{
	*chip = (struct kvm_irqchip){.chip_id = id};
	if (ioctl(vm_fd, KVM_GET_IRQCHIP, chip) < 0)
		return err_sys(e, "KVM_GET_IRQCHIP %u", id);
	return 0;
}

static int set_chip(int vm_fd, const struct kvm_irqchip *chip, struct err *e)
{
	struct kvm_irqchip copy = *chip;

	if (ioctl(vm_fd, KVM_SET_IRQCHIP, &copy) < 0)
		return err_sys(e, "KVM_SET_IRQCHIP %u", chip->chip_id);
	return 0;
}

static const struct kvm_device *of(const struct device *d)
{
	return (const struct kvm_device *)d;
}

static struct kvm_device *to(struct device *d)
{
	return (struct kvm_device *)d;
}

static void kvm_device_free(struct device *d)
{
	free(d);
}

/* NULL when out of memory, which is in @e. */
static struct kvm_device *kvm_device_new(int vm_fd, const struct dev_ops *ops, struct err *e)
{
	struct kvm_device *k = calloc(1, sizeof(*k));

	if (!k) {
		err_set(e, ERR_SYS, ENOMEM, "out of memory for %s", ops->type);
		return NULL;
	}
	k->dev.ops = ops;
	k->vm_fd = vm_fd;
	return k;
}

static int append_message(const ProtobufCMessage *m, struct buf *out, struct err *e)
{
	size_t len = protobuf_c_message_get_packed_size(m);
	int ret = buf_reserve(out, len, e);

	if (ret == 0)
		out->len += protobuf_c_message_pack(m, out->data + out->len);
	return ret;
}

static int malformed(const char *what, struct err *e)
{
	return err_set(e, ERR_STREAM, EBADMSG, "malformed %s state", what);
}

/* ---- PIC ---- */

static int chips_new(int vm_fd, const struct dev_ops *ops, uint32_t first, uint32_t nr,
		     struct device **out, struct err *e)
{
	struct kvm_device *k = kvm_device_new(vm_fd, ops, e);
	int ret = 0;

	if (!k)
		return -e->code;
	for (uint32_t i = 0; i < nr && ret == 0; i++)
		ret = get_chip(vm_fd, first + i, &k->power_on[i], e);
	if (ret < 0) {
		free(k);
		return ret;
	}
	*out = &k->dev;
	return 0;
}

static void pic_reset(struct device *d)
{
	struct err e = ERR_INIT;

	/* KVM takes back what it gave out. */
	set_chip(of(d)->vm_fd, &of(d)->power_on[0], &e);
	set_chip(of(d)->vm_fd, &of(d)->power_on[1], &e);
}

static int pic_save(const struct device *d, struct buf *out, struct err *e)
{
	Godwit__PicState m = GODWIT__PIC_STATE__INIT;
	struct kvm_irqchip chip[2];
	int ret = get_chip(of(d)->vm_fd, KVM_IRQCHIP_PIC_MASTER, &chip[0], e);

	if (ret == 0)
		ret = get_chip(of(d)->vm_fd, KVM_IRQCHIP_PIC_SLAVE, &chip[1], e);
	if (ret < 0)
		return ret;
	m.has_master = m.has_slave = 1;
	m.master = (ProtobufCBinaryData){.len = sizeof(chip[0].chip.pic),
					 .data = (uint8_t *)&chip[0].chip.pic};
	m.slave = (ProtobufCBinaryData){.len = sizeof(chip[1].chip.pic),
					.data = (uint8_t *)&chip[1].chip.pic};
	return append_message(&m.base, out, e);
}

static int pic_apply(const struct kvm_device *k, const Godwit__PicState *m, struct err *e)
{
	struct kvm_irqchip chip[2] = {{.chip_id = KVM_IRQCHIP_PIC_MASTER},
				      {.chip_id = KVM_IRQCHIP_PIC_SLAVE}};
	int ret;

	if (!m->has_master || !m->has_slave || m->master.len != sizeof(chip[0].chip.pic) ||
	    m->slave.len != sizeof(chip[1].chip.pic))
		return malformed("pic", e);
	memcpy(&chip[0].chip.pic, m->master.data, m->master.len);
	memcpy(&chip[1].chip.pic, m->slave.data, m->slave.len);
	ret = set_chip(k->vm_fd, &chip[0], e);
	return ret < 0 ? ret : set_chip(k->vm_fd, &chip[1], e);
}

static int pic_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		    struct err *e)
{
	Godwit__PicState *m = godwit__pic_state__unpack(NULL, len, data);
	int ret = m ? pic_apply(of(d), m, e) : malformed("pic", e);

	(void)version;
	if (m)
		godwit__pic_state__free_unpacked(m, NULL);
	return ret;
}

static const struct dev_ops pic_ops = {.type = "kvm-pic",
				       .state_version = 1,
				       .oldest_loadable = 1,
				       .reset = pic_reset,
				       .save = pic_save,
				       .load = pic_load,
				       .free = kvm_device_free};

int pic_new(int vm_fd, struct device **out, struct err *e)
{
	return chips_new(vm_fd, &pic_ops, KVM_IRQCHIP_PIC_MASTER, 2, out, e);
}

/* ---- IOAPIC ---- */

static void ioapic_reset(struct device *d)
{
	struct err e = ERR_INIT;

	set_chip(of(d)->vm_fd, &of(d)->power_on[0], &e);
}

static int ioapic_save(const struct device *d, struct buf *out, struct err *e)
{
	Godwit__IoapicState m = GODWIT__IOAPIC_STATE__INIT;
	uint64_t redirtbl[KVM_IOAPIC_NUM_PINS];
	struct kvm_irqchip chip;
	const struct kvm_ioapic_state *s = &chip.chip.ioapic;
	int ret = get_chip(of(d)->vm_fd, KVM_IRQCHIP_IOAPIC, &chip, e);

	if (ret < 0)
		return ret;
	m.has_base_address = m.has_ioregsel = m.has_id = m.has_irr = 1;
	m.base_address = s->base_address;
	m.ioregsel = s->ioregsel;
	m.id = s->id;
	m.irr = s->irr;
	for (int i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		redirtbl[i] = s->redirtbl[i].bits;
	m.n_redirtbl = KVM_IOAPIC_NUM_PINS;
	m.redirtbl = redirtbl;
	return append_message(&m.base, out, e);
}

static int ioapic_apply(const struct kvm_device *k, const Godwit__IoapicState *m, struct err *e)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
	struct kvm_ioapic_state *s = &chip.chip.ioapic;

	if (!m->has_base_address || m->base_address != BOARD_IOAPIC_ADDRESS || !m->has_ioregsel ||
	    !m->has_id || !m->has_irr || m->n_redirtbl != KVM_IOAPIC_NUM_PINS)
		return malformed("ioapic", e);
	s->base_address = m->base_address;
	s->ioregsel = m->ioregsel;
	s->id = m->id;
	s->irr = m->irr;
	for (int i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		s->redirtbl[i].bits = m->redirtbl[i];
	return set_chip(k->vm_fd, &chip, e);
}

static int ioapic_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		       struct err *e)
{
	Godwit__IoapicState *m = godwit__ioapic_state__unpack(NULL, len, data);
	int ret = m ? ioapic_apply(of(d), m, e) : malformed("ioapic", e);

	(void)version;
	if (m)
		godwit__ioapic_state__free_unpacked(m, NULL);
	return ret;
}

static const struct dev_ops ioapic_ops = {.type = "kvm-ioapic",
					  .state_version = 1,
					  .oldest_loadable = 1,
					  .reset = ioapic_reset,
					  .save = ioapic_save,
					  .load = ioapic_load,
					  .free = kvm_device_free};

int ioapic_new(int vm_fd, struct device **out, struct err *e)
{
	return chips_new(vm_fd, &ioapic_ops, KVM_IRQCHIP_IOAPIC, 1, out, e);
}

/* ---- PIT ---- */

/*
 * KVM's PIT ticks whether vCPUs run or not, and a tick changes interrupt controllers: state that
 * was just saved, or just compared, would not stay the same. So while the machine is quiesced the
 * PIT in KVM has no count in channel 0, and the state it is to go on with is kept here.
 */

#define PIT_NO_MODE 0xff /* as KVM makes it (kvm_pit_reset): the channel counts nothing */

static int pit_get(const struct kvm_device *k, struct kvm_pit_state2 *s, struct err *e)
{
	if (ioctl(k->vm_fd, KVM_GET_PIT2, s) < 0)
		return err_sys(e, "KVM_GET_PIT2");
	/* The host's clock at the last load: KVM_SET_PIT2 replaces it by the present moment. */
	for (int i = 0; i < 3; i++)
		s->channels[i].count_load_time = 0;
	return 0;
}

static void pit_reset(struct device *d)
{
	to(d)->pit = of(d)->pit_power_on;
}

static int pit_quiesce(struct device *d, struct err *e)
{
	struct kvm_pit_state2 still;
	int ret = pit_get(of(d), &to(d)->pit, e);

	if (ret < 0)
		return ret;
	still = of(d)->pit;
	still.channels[0].mode = PIT_NO_MODE;
	if (ioctl(of(d)->vm_fd, KVM_SET_PIT2, &still) < 0)
		return err_sys(e, "KVM_SET_PIT2");
	return 0;
}

static void pit_unquiesce(struct device *d)
{
	ioctl(of(d)->vm_fd, KVM_SET_PIT2, &to(d)->pit);
}

static int pit_save(const struct device *d, struct buf *out, struct err *e)
{
	Godwit__PitState m = GODWIT__PIT_STATE__INIT;
	struct kvm_pit_state2 s = of(d)->pit;

	m.has_channels = m.has_flags = 1;
	m.channels =
		(ProtobufCBinaryData){.len = sizeof(s.channels), .data = (uint8_t *)s.channels};
	m.flags = s.flags;
	return append_message(&m.base, out, e);
}

static bool pit_valid(const struct kvm_pit_state2 *s)
{
	for (int i = 0; i < 3; i++) {
		const struct kvm_pit_channel_state *c = &s->channels[i];

		if (c->count > 0x10000 || (c->mode > 5 && c->mode != PIT_NO_MODE))
			return false;
	}
	return true;
}

static int pit_apply(struct kvm_device *k, const Godwit__PitState *m, struct err *e)
{
	struct kvm_pit_state2 s = {.flags = m->flags};

	if (!m->has_channels || m->channels.len != sizeof(s.channels) || !m->has_flags)
		return malformed("pit", e);
	memcpy(s.channels, m->channels.data, sizeof(s.channels));
	if (!pit_valid(&s))
		return malformed("pit", e);
	k->pit = s;
	return 0;
}

static int pit_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		    struct err *e)
{
	Godwit__PitState *m = godwit__pit_state__unpack(NULL, len, data);
	int ret = m ? pit_apply(to(d), m, e) : malformed("pit", e);

	(void)version;
	if (m)
		godwit__pit_state__free_unpacked(m, NULL);
	return ret;
}

static const struct dev_ops pit_ops = {.type = "kvm-pit",
				       .state_version = 1,
				       .oldest_loadable = 1,
				       .reset = pit_reset,
				       .quiesce = pit_quiesce,
				       .unquiesce = pit_unquiesce,
				       .save = pit_save,
				       .load = pit_load,
				       .free = kvm_device_free};

int pit_new(int vm_fd, struct device **out, struct err *e)
{
	struct kvm_device *k = kvm_device_new(vm_fd, &pit_ops, e);
	int ret;

	if (!k)
		return -e->code;
	ret = pit_get(k, &k->pit_power_on, e);
	if (ret < 0) {
		free(k);
		return ret;
	}
	k->pit = k->pit_power_on;
	*out = &k->dev;
	return 0;
}

/* ---- kvmclock ---- */

static void kvmclock_reset(struct device *d)
{
	struct kvm_clock_data c = {.clock = 0};

	ioctl(of(d)->vm_fd, KVM_SET_CLOCK, &c);
}

static int kvmclock_save(const struct device *d, struct buf *out, struct err *e)
{
	Godwit__ClockState m = GODWIT__CLOCK_STATE__INIT;
	struct kvm_clock_data c = {.clock = 0};

	if (ioctl(of(d)->vm_fd, KVM_GET_CLOCK, &c) < 0)
		return err_sys(e, "KVM_GET_CLOCK");
	m.has_clock_ns = m.has_realtime_ns = 1;
	m.clock_ns = c.clock;
	/* Both of one instant where KVM can say so (a host whose clock source is the TSC). */
	m.realtime_ns = c.flags & KVM_CLOCK_REALTIME ? c.realtime : guest_time_realtime_ns();
	return append_message(&m.base, out, e);
}

/* KVM can add the elapsed time by itself (KVM_CLOCK_REALTIME), but without a bound: a host whose
 * clock is wrong by a day would send the guest a day ahead. So it is added here, by the same rule
 * as for the TSC. */
static int kvmclock_apply(const struct kvm_device *k, const Godwit__ClockState *m, struct err *e)
{
	struct kvm_clock_data c = {.clock = 0};

	if (!m->has_clock_ns || !m->has_realtime_ns || m->clock_ns > INT64_MAX)
		return malformed("kvm-clock", e);
	c.clock = m->clock_ns + guest_time_away_ns(m->realtime_ns);
	if (ioctl(k->vm_fd, KVM_SET_CLOCK, &c) < 0)
		return err_sys(e, "KVM_SET_CLOCK");
	return 0;
}

static int kvmclock_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
			 struct err *e)
{
	Godwit__ClockState *m = godwit__clock_state__unpack(NULL, len, data);
	int ret = m ? kvmclock_apply(of(d), m, e) : malformed("kvm-clock", e);

	(void)version;
	if (m)
		godwit__clock_state__free_unpacked(m, NULL);
	return ret;
}

static const struct dev_ops kvmclock_ops = {.type = "kvm-clock",
					    .state_version = 1,
					    .oldest_loadable = 1,
					    .reset = kvmclock_reset,
					    .save = kvmclock_save,
					    .load = kvmclock_load,
					    .free = kvm_device_free};

int kvmclock_new(int vm_fd, struct device **out, struct err *e)
{
	struct kvm_device *k = kvm_device_new(vm_fd, &kvmclock_ops, e);

	if (!k)
		return -e->code;
	*out = &k->dev;
	return 0;
}
