#include "migration/batch_out.h"

#include <errno.h>

int batch_out_send(struct batch_out *out, const struct batch_head *head,
		   const struct batch_run *runs, uint32_t nr_runs, struct err *e)
{
	struct batch_header h = {.magic = BATCH_MAGIC,
				 .kind = (uint8_t)head->kind,
				 .codec = head->codec,
				 .nr_runs = (uint16_t)nr_runs,
				 .payload_bytes = head->payload_bytes,
				 .round = head->round,
				 .sequence = out->sequence++};
	struct iovec iov[2] = {{.iov_base = &h, .iov_len = sizeof(h)},
			       {.iov_base = (void *)(uintptr_t)runs, /* sendmsg only reads it */
				.iov_len = nr_runs * sizeof(*runs)}};

	return link_sendv_more(out->link, iov, 2, head->more || head->payload_bytes > 0, e);
}

int batch_out_await_back(struct batch_out *out, uint32_t round, struct err *e)
{
	struct batch_back back;

	if (link_recv(out->link, &back, sizeof(back), e) < 0)
		return -e->code;
	if (back.magic != BATCH_BACK_MAGIC || back.round != round)
		return err_set(e, ERR_STREAM, EPROTO,
			       "the destination answered round %u's barrier with 0x%08x, %u", round,
			       back.magic, back.round);
	return 0;
}
