/*
 * Bytes of a QMP client: framing, JSON, negotiation, argument checks and every command, against a
 * target without a machine. The first byte chooses how the bytes are cut into reads.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "control/qmp_dispatch.h"
#include "control/qmp_framer.h"
#include "control/report_json.h"
#include "tests/unit/control/fake_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct connection {
	struct qmp_target target;
	struct qmp_peer peer;
};

static bool on_message(void *ctx, const char *text, size_t len)
{
	struct connection *c = ctx;
	json_t *answer = qmp_answer(&c->target, &c->peer, text, len);
	struct migration_report report;

	if (!answer)
		abort();
	/* The client's parser of our reports sees arbitrary JSON as well. */
	report_from_json(json_object_get(answer, "id"), &report);
	free(json_dumps(answer, 0));
	json_decref(answer);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fake_target fake;
	struct connection c = {.target = {&fake_ops, &fake}};
	struct qmp_framer framer;
	struct err e = ERR_INIT;
	size_t step;

	if (!size)
		return 0;
	fake_target_init(&fake);
	fake.refuse = data[0] & 1;
	fake.active = data[0] & 2;
	fake.has_report = data[0] & 4;
	c.peer.negotiated = data[0] & 8;
	step = (size_t)(data[0] >> 4) + 1;
	qmp_framer_init(&framer);
	for (size_t at = 1; at < size; at += step)
		qmp_framer_feed(&framer, (const char *)data + at,
				size - at < step ? size - at : step, on_message, &c, &e);
	qmp_framer_fini(&framer);
	return 0;
}
