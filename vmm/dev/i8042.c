/*
 * i8042 keyboard controller of an AT: no auxiliary port, and a keyboard that acknowledges
 * everything and never types. A controller that answers every probe at once is what keeps Linux'
 * i8042 and atkbd drivers from waiting for time-outs (500 ms each). Command set: IBM PS/2 Hardware
 * Interface Technical Reference, keyboard and auxiliary device controller. A20 is remembered but
 * always open: KVM has no gate.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/device.pb-c.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/irq_line.h"
#include "vmm/dev/state_message.h"

#define PORT_DATA    0x60
#define PORT_COMMAND 0x64

#define STATUS_OBF      0x01
#define STATUS_SYSTEM   0x04
#define STATUS_COMMAND  0x08
#define STATUS_UNLOCKED 0x10
#define STATUS_AUX      0x20
#define STATUS_TIMEOUT  0x40

#define CONFIG_KBD_IRQ   0x01
#define CONFIG_SYSTEM    0x04
#define CONFIG_KBD_OFF   0x10
#define CONFIG_AUX_OFF   0x20
#define CONFIG_TRANSLATE 0x40
#define CONFIG_RESERVED  0x88
#define CONFIG_POWER_ON  (CONFIG_KBD_IRQ | CONFIG_SYSTEM | CONFIG_AUX_OFF | CONFIG_TRANSLATE)

#define OUTPUT_NO_RESET 0x01
#define OUTPUT_A20      0x02

#define RAM_BYTES   32 /* byte 0 is the configuration byte, kept apart */
#define QUEUE_BYTES 16

enum controller_command {
	CMD_READ_RAM = 0x20,  /* to 0x3f */
	CMD_WRITE_RAM = 0x60, /* to 0x7f */
	CMD_AUX_OFF = 0xa7,
	CMD_AUX_ON = 0xa8,
	CMD_AUX_TEST = 0xa9,
	CMD_SELF_TEST = 0xaa,
	CMD_KBD_TEST = 0xab,
	CMD_KBD_OFF = 0xad,
	CMD_KBD_ON = 0xae,
	CMD_READ_INPUT_PORT = 0xc0,
	CMD_READ_OUTPUT_PORT = 0xd0,
	CMD_WRITE_OUTPUT_PORT = 0xd1,
	CMD_WRITE_KBD_BUFFER = 0xd2,
	CMD_WRITE_AUX_BUFFER = 0xd3,
	CMD_WRITE_AUX = 0xd4,
	CMD_A20_OFF = 0xdd,
	CMD_A20_ON = 0xdf,
	CMD_PULSE = 0xf0, /* to 0xff: bits 0-3 that are 0 pulse low */
};

enum keyboard_command {
	KBD_SET_LEDS = 0xed,
	KBD_ECHO = 0xee,
	KBD_SCAN_SET = 0xf0,
	KBD_IDENTIFY = 0xf2,
	KBD_SET_RATE = 0xf3,
	KBD_RESET = 0xff,
};

#define KBD_ACK       0xfa
#define KBD_RESEND    0xfe
#define KBD_SELF_TEST 0xaa

struct i8042 {
	struct device dev;

	/* immutable after new */
	const struct machine *m;

	pthread_mutex_t lock;
	/* guarded by lock */
	uint8_t config;
	uint8_t output_port;
	uint8_t pending_command;  /* waits for its data byte; 0: none */
	uint8_t pending_keyboard; /* likewise */
	bool last_was_command;
	uint8_t ram[RAM_BYTES];
	uint8_t queue[QUEUE_BYTES];       /* bytes for the guest, oldest first */
	uint8_t queue_flags[QUEUE_BYTES]; /* status bits that go with each */
	uint32_t queue_len;
	uint8_t last_data; /* what port 0x60 reads when there is nothing new; not saved: garbage */
	struct irq_line irq;
	bool reset_wanted;
};

static struct i8042 *to_i8042(struct device *d)
{
	return (struct i8042 *)d;
}

static bool wants_irq(const struct i8042 *k)
{
	return k->queue_len && (k->config & CONFIG_KBD_IRQ) && !(k->queue_flags[0] & STATUS_AUX);
}

static void update_irq(struct i8042 *k)
{
	irq_line_set(&k->irq, wants_irq(k));
}

static void reply_flagged(struct i8042 *k, uint8_t byte, uint8_t flags)
{
	if (k->queue_len == QUEUE_BYTES)
		return; /* a guest that asks without reading the answers */
	k->queue[k->queue_len] = byte;
	k->queue_flags[k->queue_len++] = flags;
}

static void reply(struct i8042 *k, uint8_t byte)
{
	reply_flagged(k, byte, 0);
}

static void write_output_port(struct i8042 *k, uint8_t value)
{
	k->output_port = value | OUTPUT_NO_RESET;
	if (!(value & OUTPUT_NO_RESET))
		k->reset_wanted = true;
}

/* --- the keyboard --- */

static void keyboard_argument(struct i8042 *k, uint8_t value)
{
	bool asks_scan_set = k->pending_keyboard == KBD_SCAN_SET && value == 0;

	k->pending_keyboard = 0;
	reply(k, KBD_ACK);
	if (asks_scan_set)
		reply(k, k->config & CONFIG_TRANSLATE ? 0x41 : 0x02); /* set 2 */
}

static void keyboard_command(struct i8042 *k, uint8_t value)
{
	reply(k, value == KBD_ECHO ? KBD_ECHO : KBD_ACK);
	switch (value) {
	case KBD_SET_LEDS:
	case KBD_SCAN_SET:
	case KBD_SET_RATE:
		k->pending_keyboard = value;
		break;
	case KBD_IDENTIFY: /* an MF2 keyboard: ab 83, and translation makes 41 of 83 */
		reply(k, 0xab);
		reply(k, k->config & CONFIG_TRANSLATE ? 0x41 : 0x83);
		break;
	case KBD_RESET:
		reply(k, KBD_SELF_TEST);
		break;
	default:
		break;
	}
}

static void write_keyboard(struct i8042 *k, uint8_t value)
{
	/* Talking to the keyboard enables its interface. */
	k->config &= (uint8_t)~CONFIG_KBD_OFF;
	if (k->pending_keyboard && value < KBD_SET_LEDS)
		keyboard_argument(k, value);
	else {
		k->pending_keyboard = 0;
		keyboard_command(k, value);
	}
}

/* --- the controller --- */

static void self_test(struct i8042 *k)
{
	k->queue_len = 0;
	k->pending_command = 0;
	k->config |= CONFIG_SYSTEM;
	reply(k, 0x55);
}

static void set_config_bit(struct i8042 *k, uint8_t bit, bool on)
{
	k->config = (uint8_t)(on ? k->config | bit : k->config & ~bit);
}

static void set_a20(struct i8042 *k, bool on)
{
	k->output_port = (uint8_t)(on ? k->output_port | OUTPUT_A20 : k->output_port & ~OUTPUT_A20);
}

/* Commands 0x20-0x3f, 0x60-0x7f and 0xf0-0xff carry an operand in their low bits. */
static bool ranged_command(struct i8042 *k, uint8_t cmd)
{
	switch (cmd & 0xe0) {
	case CMD_READ_RAM:
		reply(k, cmd == CMD_READ_RAM ? k->config : k->ram[cmd & 0x1f]);
		return true;
	case CMD_WRITE_RAM:
		k->pending_command = cmd;
		return true;
	default:
		break;
	}
	if (cmd < CMD_PULSE)
		return false;
	if (!(cmd & OUTPUT_NO_RESET)) /* 0xfe is what everybody uses */
		k->reset_wanted = true;
	return true;
}

static void plain_command(struct i8042 *k, uint8_t cmd)
{
	switch (cmd) {
	case CMD_AUX_OFF:
	case CMD_AUX_ON:
		set_config_bit(k, CONFIG_AUX_OFF, cmd == CMD_AUX_OFF);
		break;
	case CMD_AUX_TEST:
		reply(k, 0x01); /* "clock line stuck low": there is no such port */
		break;
	case CMD_SELF_TEST:
		self_test(k);
		break;
	case CMD_KBD_TEST:
		reply(k, 0x00);
		break;
	case CMD_KBD_OFF:
	case CMD_KBD_ON:
		set_config_bit(k, CONFIG_KBD_OFF, cmd == CMD_KBD_OFF);
		break;
	case CMD_READ_INPUT_PORT:
		reply(k, 0x80); /* keyboard not locked */
		break;
	case CMD_READ_OUTPUT_PORT:
		reply(k, k->output_port);
		break;
	case CMD_WRITE_OUTPUT_PORT:
	case CMD_WRITE_KBD_BUFFER:
	case CMD_WRITE_AUX_BUFFER:
	case CMD_WRITE_AUX:
		k->pending_command = cmd;
		break;
	case CMD_A20_OFF:
	case CMD_A20_ON:
		set_a20(k, cmd == CMD_A20_ON);
		break;
	default:
		break;
	}
}

static void write_command(struct i8042 *k, uint8_t cmd)
{
	k->last_was_command = true;
	k->pending_command = 0;
	if (!ranged_command(k, cmd))
		plain_command(k, cmd);
}

static void write_ram(struct i8042 *k, uint8_t cmd, uint8_t value)
{
	if (cmd == CMD_WRITE_RAM)
		k->config = value & (uint8_t)~CONFIG_RESERVED;
	else
		k->ram[cmd & 0x1f] = value;
}

static void write_data(struct i8042 *k, uint8_t value)
{
	uint8_t cmd = k->pending_command;

	k->last_was_command = false;
	k->pending_command = 0;
	switch (cmd) {
	case 0:
		write_keyboard(k, value);
		break;
	case CMD_WRITE_OUTPUT_PORT:
		write_output_port(k, value);
		break;
	case CMD_WRITE_KBD_BUFFER:
	case CMD_WRITE_AUX_BUFFER:
		/* Without the AUX status bit: Linux takes its absence for "no auxiliary port". */
		reply(k, value);
		break;
	case CMD_WRITE_AUX:
		reply_flagged(k, KBD_RESEND, STATUS_AUX | STATUS_TIMEOUT);
		break;
	default:
		write_ram(k, cmd, value);
		break;
	}
}

static uint8_t read_status(const struct i8042 *k)
{
	return (uint8_t)(STATUS_UNLOCKED | (k->config & CONFIG_SYSTEM ? STATUS_SYSTEM : 0) |
			 (k->last_was_command ? STATUS_COMMAND : 0) |
			 (k->queue_len ? STATUS_OBF | k->queue_flags[0] : 0));
}

static uint8_t read_data(struct i8042 *k)
{
	if (!k->queue_len)
		return k->last_data;
	k->last_data = k->queue[0];
	k->queue_len--;
	memmove(k->queue, k->queue + 1, k->queue_len);
	memmove(k->queue_flags, k->queue_flags + 1, k->queue_len);
	/* One edge per byte: the line drops before it announces the next. */
	irq_line_set(&k->irq, false);
	return k->last_data;
}

static void data_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct i8042 *k = ctx;

	(void)offset;
	memset(data, 0xff, len);
	pthread_mutex_lock(&k->lock);
	*(uint8_t *)data = read_data(k);
	update_irq(k);
	pthread_mutex_unlock(&k->lock);
}

static void status_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct i8042 *k = ctx;

	(void)offset;
	memset(data, 0xff, len);
	pthread_mutex_lock(&k->lock);
	*(uint8_t *)data = read_status(k);
	pthread_mutex_unlock(&k->lock);
}

static void write_port(struct i8042 *k, void (*write)(struct i8042 *, uint8_t), uint8_t value)
{
	bool reset;

	pthread_mutex_lock(&k->lock);
	write(k, value);
	update_irq(k);
	reset = k->reset_wanted;
	k->reset_wanted = false;
	pthread_mutex_unlock(&k->lock);
	/* Outside the lock: the controller comes back here through i8042_reset. */
	if (reset)
		k->m->request(k->m->ctx, MACHINE_RESET, 0);
}

static void data_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	(void)offset;
	(void)len;
	write_port(ctx, write_data, *(const uint8_t *)data);
}

static void command_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	(void)offset;
	(void)len;
	write_port(ctx, write_command, *(const uint8_t *)data);
}

/* --- device --- */

static void power_on(struct i8042 *k)
{
	k->config = CONFIG_POWER_ON;
	k->output_port = OUTPUT_NO_RESET | OUTPUT_A20;
	k->pending_command = 0;
	k->pending_keyboard = 0;
	k->last_was_command = true;
	k->queue_len = 0;
	k->reset_wanted = false;
	memset(k->ram, 0, sizeof(k->ram));
}

static void i8042_reset(struct device *d)
{
	struct i8042 *k = to_i8042(d);

	pthread_mutex_lock(&k->lock);
	power_on(k);
	update_irq(k);
	pthread_mutex_unlock(&k->lock);
}

/* Without the lock: vCPUs are paused. */
static int i8042_save(const struct device *d, struct buf *out, struct err *e)
{
	const struct i8042 *k = (const struct i8042 *)d;
	Godwit__I8042State s = GODWIT__I8042_STATE__INIT;
	struct i8042 copy = {.queue_len = k->queue_len};

	memcpy(copy.ram, k->ram, sizeof(copy.ram));
	memcpy(copy.queue, k->queue, sizeof(copy.queue));
	memcpy(copy.queue_flags, k->queue_flags, sizeof(copy.queue_flags));
	s.has_config = s.has_output_port = s.has_pending_command = s.has_pending_keyboard = true;
	s.has_last_was_command = s.has_ram = s.has_queue = s.has_queue_flags = true;
	s.config = k->config;
	s.output_port = k->output_port;
	s.pending_command = k->pending_command;
	s.pending_keyboard = k->pending_keyboard;
	s.last_was_command = k->last_was_command;
	s.ram = (ProtobufCBinaryData){.len = RAM_BYTES, .data = copy.ram};
	s.queue = (ProtobufCBinaryData){.len = k->queue_len, .data = copy.queue};
	s.queue_flags = (ProtobufCBinaryData){.len = k->queue_len, .data = copy.queue_flags};
	return state_message_pack(&s.base, out, e);
}

static const struct state_limit i8042_limits[] = {
	{"config", 0xff},
	{"output_port", 0xff},
	{"pending_command", 0xff},
	{"pending_keyboard", 0xff},
	{"ram", RAM_BYTES},
	{"queue", QUEUE_BYTES},
	{"queue_flags", QUEUE_BYTES},
	{NULL, 0},
};

static bool takes_data(uint32_t cmd)
{
	return !cmd || (cmd & 0xe0) == CMD_WRITE_RAM ||
	       (cmd >= CMD_WRITE_OUTPUT_PORT && cmd <= CMD_WRITE_AUX);
}

static bool takes_argument(uint32_t kbd)
{
	return !kbd || kbd == KBD_SET_LEDS || kbd == KBD_SCAN_SET || kbd == KBD_SET_RATE;
}

static int check_i8042(const Godwit__I8042State *s, struct err *e)
{
	if ((s->config & CONFIG_RESERVED) || !(s->output_port & OUTPUT_NO_RESET) ||
	    !takes_data(s->pending_command) || !takes_argument(s->pending_keyboard))
		return err_set(e, ERR_STREAM, EINVAL,
			       "i8042 state: config 0x%x, output port 0x%x, command 0x%x/0x%x are "
			       "impossible",
			       s->config, s->output_port, s->pending_command, s->pending_keyboard);
	if (s->ram.len != RAM_BYTES || s->queue.len != s->queue_flags.len)
		return err_set(e, ERR_STREAM, EINVAL,
			       "i8042 state: %zu bytes of RAM, %zu of queue, %zu of queue flags",
			       s->ram.len, s->queue.len, s->queue_flags.len);
	for (size_t i = 0; i < s->queue_flags.len; i++)
		if (s->queue_flags.data[i] & ~(STATUS_AUX | STATUS_TIMEOUT))
			return err_set(e, ERR_STREAM, EINVAL,
				       "i8042 state: queue flags 0x%x are impossible",
				       s->queue_flags.data[i]);
	return 0;
}

static void assign_i8042(struct i8042 *k, const Godwit__I8042State *s)
{
	k->config = (uint8_t)s->config;
	k->output_port = (uint8_t)s->output_port;
	k->pending_command = (uint8_t)s->pending_command;
	k->pending_keyboard = (uint8_t)s->pending_keyboard;
	k->last_was_command = s->last_was_command;
	memcpy(k->ram, s->ram.data, RAM_BYTES);
	k->queue_len = (uint32_t)s->queue.len;
	if (k->queue_len) {
		memcpy(k->queue, s->queue.data, k->queue_len);
		memcpy(k->queue_flags, s->queue_flags.data, k->queue_len);
	}
	k->reset_wanted = false;
	irq_line_load(&k->irq, wants_irq(k));
}

static int i8042_load(struct device *d, uint32_t version, const uint8_t *data, size_t len,
		      struct err *e)
{
	struct i8042 *k = to_i8042(d);
	ProtobufCMessage *msg;
	int ret;

	(void)version;
	ret = state_message_unpack(d->ops->type, &godwit__i8042_state__descriptor, i8042_limits,
				   data, len, &msg, e);
	if (ret)
		return ret;
	ret = check_i8042((const Godwit__I8042State *)msg, e);
	if (!ret) {
		pthread_mutex_lock(&k->lock);
		assign_i8042(k, (const Godwit__I8042State *)msg);
		pthread_mutex_unlock(&k->lock);
	}
	protobuf_c_message_free_unpacked(msg, NULL);
	return ret;
}

static void i8042_free(struct device *d)
{
	struct i8042 *k = to_i8042(d);

	pthread_mutex_destroy(&k->lock);
	free(k);
}

static const struct dev_ops i8042_ops = {
	.type = "i8042",
	.state_version = 1,
	.oldest_loadable = 1,
	.reset = i8042_reset,
	.save = i8042_save,
	.load = i8042_load,
	.free = i8042_free,
};

static const struct bus_ops data_ops = {.read = data_read, .write = data_write};
static const struct bus_ops command_ops = {.read = status_read, .write = command_write};

int i8042_new(const struct machine *m, struct device **out, struct err *e)
{
	struct i8042 *k = calloc(1, sizeof(*k));
	int ret;

	if (!k)
		return err_set(e, ERR_SYS, ENOMEM, "out of memory for the i8042");
	k->dev.ops = &i8042_ops;
	k->m = m;
	k->irq = (struct irq_line){.m = m, .gsi = BOARD_KBD_GSI};
	pthread_mutex_init(&k->lock, NULL);
	power_on(k);
	/* Not the ports between the two: 0x61 is the in-kernel PIT's. */
	ret = bus_add(m->bus, BUS_PIO, PORT_DATA, 1, "i8042 data", &data_ops, k, e);
	if (!ret)
		ret = bus_add(m->bus, BUS_PIO, PORT_COMMAND, 1, "i8042 command", &command_ops, k,
			      e);
	if (ret) {
		i8042_free(&k->dev);
		return ret;
	}
	*out = &k->dev;
	return 0;
}
