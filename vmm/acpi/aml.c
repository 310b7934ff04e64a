#include "vmm/acpi/aml.h"

#include <string.h>

/* ACPI 6.4, 20.3 */
#define OP_ZERO     0x00
#define OP_ONE      0x01
#define OP_NAME     0x08
#define OP_BYTE     0x0a
#define OP_WORD     0x0b
#define OP_DWORD    0x0c
#define OP_STRING   0x0d
#define OP_QWORD    0x0e
#define OP_SCOPE    0x10
#define OP_BUFFER   0x11
#define OP_PACKAGE  0x12
#define OP_EXT      0x5b
#define OP_EXT_DEV  0x82
#define NAME_BYTES  4
#define PKG_MAX     4 /* bytes of a package length */
#define INTEGER_MAX 9 /* bytes of an integer with its opcode */

struct aml aml_start(struct buf *out, struct err *e)
{
	return (struct aml){.out = out, .err = e};
}

int aml_result(const struct aml *a)
{
	return a->rc;
}

static void put(struct aml *a, const void *data, size_t bytes)
{
	if (a->rc == 0)
		a->rc = buf_append(a->out, data, bytes, a->err);
}

static void put_byte(struct aml *a, uint8_t byte)
{
	put(a, &byte, 1);
}

static void put_name(struct aml *a, const char *name)
{
	char padded[NAME_BYTES];
	size_t len = strnlen(name, NAME_BYTES);

	memset(padded, '_', sizeof(padded));
	memcpy(padded, name, len);
	put(a, padded, sizeof(padded));
}

/* Make room at @at for bytes that were not known before what follows them was. */
static void insert(struct aml *a, size_t at, const uint8_t *data, size_t bytes)
{
	size_t tail = a->out->len - at;

	put(a, NULL, bytes);
	if (a->rc)
		return;
	memmove(a->out->data + at + bytes, a->out->data + at, tail);
	memcpy(a->out->data + at, data, bytes);
}

/* 20.2.4: a length counts its own bytes. One byte up to 63; else the low 4 bits, and 8 more in each
 * of up to 3 further bytes, whose number is in the first one's top bits. */
static size_t encode_package_length(size_t content, uint8_t out[PKG_MAX])
{
	size_t extra = 0, length = content + 1;

	if (length < 64) {
		out[0] = (uint8_t)length;
		return 1;
	}
	do {
		extra++;
		length = content + 1 + extra;
	} while (length >> (4 + 8 * extra) && extra < PKG_MAX - 1);
	out[0] = (uint8_t)(extra << 6 | (length & 0xf));
	for (size_t i = 1; i <= extra; i++)
		out[i] = (uint8_t)(length >> (8 * i - 4));
	return extra + 1;
}

void aml_end(struct aml *a, size_t mark)
{
	uint8_t length[PKG_MAX];

	if (a->rc == 0)
		insert(a, mark, length, encode_package_length(a->out->len - mark, length));
}

size_t aml_scope(struct aml *a, const char *name)
{
	size_t mark;

	put_byte(a, OP_SCOPE);
	mark = a->out->len;
	put_name(a, name);
	return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
	size_t mark;

	put_byte(a, OP_EXT);
	put_byte(a, OP_EXT_DEV);
	mark = a->out->len;
	put_name(a, name);
	return mark;
}

size_t aml_package(struct aml *a, uint8_t nr_elements)
{
	size_t mark;

	put_byte(a, OP_PACKAGE);
	mark = a->out->len;
	put_byte(a, nr_elements);
	return mark;
}

void aml_name(struct aml *a, const char *name)
{
	put_byte(a, OP_NAME);
	put_name(a, name);
}

static size_t encode_integer(uint64_t value, uint8_t out[INTEGER_MAX])
{
	size_t bytes = value > UINT32_MAX ? 8 : value > UINT16_MAX ? 4 : value > UINT8_MAX ? 2 : 1;

	if (value <= 1) {
		out[0] = value ? OP_ONE : OP_ZERO;
		return 1;
	}
	out[0] = bytes == 8 ? OP_QWORD : bytes == 4 ? OP_DWORD : bytes == 2 ? OP_WORD : OP_BYTE;
	memcpy(out + 1, &value, bytes);
	return 1 + bytes;
}

void aml_integer(struct aml *a, uint64_t value)
{
	uint8_t bytes[INTEGER_MAX];

	put(a, bytes, encode_integer(value, bytes));
}

void aml_string(struct aml *a, const char *text)
{
	put_byte(a, OP_STRING);
	put(a, text, strlen(text) + 1);
}

void aml_name_integer(struct aml *a, const char *name, uint64_t value)
{
	aml_name(a, name);
	aml_integer(a, value);
}

void aml_name_string(struct aml *a, const char *name, const char *text)
{
	aml_name(a, name);
	aml_string(a, text);
}

static uint32_t hex_digit(char c)
{
	return (uint32_t)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* 19.3.4, EISAID: letters in 5 bits each, digits in 4, the whole big endian. */
void aml_name_eisa_id(struct aml *a, const char *name, const char *id)
{
	uint32_t value = 0;

	for (int i = 0; i < 3; i++)
		value = value << 5 | (uint32_t)(id[i] - 0x40);
	for (int i = 3; i < 7; i++)
		value = value << 4 | hex_digit(id[i]);
	aml_name(a, name);
	aml_integer(a, __builtin_bswap32(value));
}

size_t aml_resources(struct aml *a)
{
	put_byte(a, OP_BUFFER);
	return a->out->len;
}

/* 6.4.2.5 */
void aml_io(struct aml *a, uint16_t port, uint8_t nr_ports)
{
	const uint8_t lo = (uint8_t)port, hi = (uint8_t)(port >> 8);
	const uint8_t io[] = {0x47, 1 /* decodes 16 bits */, lo, hi, lo, hi, 1, nr_ports};

	put(a, io, sizeof(io));
}

/* 6.4.2.1, without the flags byte */
void aml_isa_irq(struct aml *a, uint8_t irq)
{
	const uint32_t mask = 1u << irq;
	const uint8_t r[] = {0x22, (uint8_t)mask, (uint8_t)(mask >> 8)};

	put(a, r, sizeof(r));
}

/* 6.4.3.4 */
void aml_memory(struct aml *a, uint32_t base, uint32_t bytes)
{
	const uint8_t head[] = {0x86, 9, 0, 1 /* writable */};

	put(a, head, sizeof(head));
	put(a, &base, sizeof(base));
	put(a, &bytes, sizeof(bytes));
}

/* 6.4.3.6: flags 1 = consumer, level, active high, exclusive */
void aml_level_interrupt(struct aml *a, uint32_t gsi)
{
	const uint8_t head[] = {0x89, 6, 0, 1, 1 /* one interrupt */};

	put(a, head, sizeof(head));
	put(a, &gsi, sizeof(gsi));
}

/* The end tag (6.4.2.9; checksum 0 means "assume it is right"), then the buffer's size in front of
 * the bytes, then the package's length in front of that. */
void aml_end_resources(struct aml *a, size_t mark)
{
	const uint8_t end_tag[] = {0x79, 0};
	uint8_t size[INTEGER_MAX];

	put(a, end_tag, sizeof(end_tag));
	if (a->rc)
		return;
	insert(a, mark, size, encode_integer(a->out->len - mark, size));
	aml_end(a, mark);
}
