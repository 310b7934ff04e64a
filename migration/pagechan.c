/* The kinds of page channel. */
#include "migration/pagechan.h"

static int (*const kinds[])(const struct pagechan_source *, struct link *, struct pagechan **,
			    struct err *) = {
	[URI_TCP] = pagechan_stream_open,
	[URI_UNIX] = pagechan_stream_open,
	[URI_RDMA] = pagechan_rdma_open,
};

int pagechan_open(const struct pagechan_source *src, struct link *link, struct pagechan **out,
		  struct err *e)
{
	/* Without RDMA on both sides (and with leave to go on) an rdma: address is a tcp: one. */
	enum uri_scheme scheme =
		src->uri->scheme == URI_RDMA && !src->pin_bytes ? URI_TCP : src->uri->scheme;

	return kinds[scheme](src, link, out, e);
}
