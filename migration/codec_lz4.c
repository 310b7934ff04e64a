#include <errno.h>
#include <lz4.h>

#include "migration/codec.h"
#include "proto/batch.h"

static size_t compress(const uint8_t *in, size_t len, uint8_t *out, size_t cap)
{
	int packed = LZ4_compress_default((const char *)in, (char *)out, (int)len, (int)cap);

	return packed > 0 ? (size_t)packed : 0;
}

static int decompress(const uint8_t *in, size_t len, uint8_t *out, size_t out_len, struct err *e)
{
	int got = LZ4_decompress_safe((const char *)in, (char *)out, (int)len, (int)out_len);

	if (got < 0 || (size_t)got != out_len)
		return err_set(e, ERR_STREAM, EPROTO,
			       "an lz4 block of %zu bytes does not unpack to %zu", len, out_len);
	return 0;
}

const struct codec_ops codec_lz4 = {
	.name = "lz4",
	.wire_id = BATCH_CODEC_LZ4,
	.compress = compress,
	.decompress = decompress,
};
