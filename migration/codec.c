#include "migration/codec.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "proto/batch.h"

static const struct codec_ops *const codecs[] = {&codec_lz4};

/* One sample counts as no more than this many times what was measured before. */
#define SLOW_SAMPLE 2

#define NR_CODECS (sizeof(codecs) / sizeof(codecs[0]))

const struct codec_ops *codec_by_wire_id(uint8_t wire_id)
{
	for (size_t i = 0; i < NR_CODECS; i++)
		if (codecs[i]->wire_id == wire_id)
			return codecs[i];
	return NULL;
}

static const struct codec_ops *by_name(const char *name)
{
	for (size_t i = 0; i < NR_CODECS; i++)
		if (!strcmp(codecs[i]->name, name))
			return codecs[i];
	return NULL;
}

int codec_check_name(const char *name, struct err *e)
{
	if (!strcmp(name, "auto") || !strcmp(name, "none") || by_name(name))
		return 0;
	return err_set(e, ERR_USAGE, EINVAL, "there is no codec '%s'; choose auto, none or lz4",
		       name);
}

int codec_choice_init(struct codec_choice *c, const char *name, struct err *e)
{
	*c = (struct codec_choice){.automatic = !strcmp(name, "auto")};
	if (codec_check_name(name, e) < 0)
		return -e->code;
	c->codec = c->automatic ? &codec_lz4 : by_name(name);
	return 0;
}

/* Is compressing first cheaper, by what was measured? */
static bool compressing_pays(const struct codec_choice *c)
{
	double raw = c->link_ns_per_byte;
	double packed = c->codec_ns_per_byte + c->ratio * c->link_ns_per_byte;

	return packed < raw;
}

const struct codec_ops *codec_choose(struct codec_choice *c)
{
	bool probe = c->nr_batches++ % CODEC_PROBE_INTERVAL == CODEC_PROBE_INTERVAL / 2;

	if (!c->automatic || !c->codec)
		return c->codec;
	/* Tried at once: waiting for a probe's turn would cost a slow link 64 batches, and small
	 * guests have no more than that. */
	if (c->nr_tried < CODEC_TRIAL)
		return c->nr_batches > 1 ? c->codec : NULL;
	return compressing_pays(c) != probe ? c->codec : NULL;
}

static void average(double *mean, double sample)
{
	*mean = *mean == 0 ? sample : *mean * 0.875 + sample * 0.125;
}

void codec_note_link(struct codec_choice *c, uint64_t ns, size_t wire_bytes)
{
	if (wire_bytes)
		average(&c->link_ns_per_byte, (double)ns / (double)wire_bytes);
}

void codec_note_codec(struct codec_choice *c, uint64_t ns, size_t page_bytes, size_t payload_bytes)
{
	double sample = (double)ns / (double)page_bytes;

	/* A codec is never faster than it is, but it may have had to wait for a processor: what
	 * is slow must be slow again and again to be believed, or a machine that stood still for a
	 * second would send raw all that comes before the next probe. */
	if (sample < c->codec_ns_per_byte)
		c->codec_ns_per_byte = sample;
	else if (c->codec_ns_per_byte != 0 && sample > SLOW_SAMPLE * c->codec_ns_per_byte)
		average(&c->codec_ns_per_byte, SLOW_SAMPLE * c->codec_ns_per_byte);
	else
		average(&c->codec_ns_per_byte, sample);
	c->nr_tried++;
	average(&c->ratio, (double)payload_bytes / (double)page_bytes);
}
