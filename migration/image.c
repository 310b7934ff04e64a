#include "migration/image.h"

#include <errno.h>

/* Less than a record may have: what a slow rate limit lets through piece by piece must not look
 * like a source that has died. */
#define PIECE_BYTES (128u << 10)

void image_describe(const struct boot_image *image, Godwit__Image *out)
{
	struct boot_image_spec spec = boot_image_spec(image);

	godwit__image__init(out);
	out->has_kernel_bytes = out->has_initrd_bytes = 1;
	out->kernel_bytes = spec.kernel_bytes;
	out->initrd_bytes = spec.initrd_bytes;
	/* protobuf-c has no const, and only reads these */
	out->kernel_name = (char *)(uintptr_t)spec.kernel_name;
	out->initrd_name = (char *)(uintptr_t)spec.initrd_name;
	out->append = (char *)(uintptr_t)spec.append;
}

int image_send(struct record_stream *records, const struct boot_image *image,
	       struct rate_limit *limit, const struct cancel *cancel, struct fault *fault,
	       struct err *e)
{
	struct boot_image_spec spec = boot_image_spec(image);
	uint64_t left = spec.kernel_bytes + spec.initrd_bytes;
	const uint8_t *data = boot_image_data(image);

	while (left) {
		size_t len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;

		/* Nothing else notices a cancellation while the link never blocks. */
		if (cancel_check(cancel, e) < 0 || fault_point(fault, "src.image", e) < 0 ||
		    rate_limit_take(limit, len, e) < 0 ||
		    record_send_bytes(records, RECORD_IMAGE, data, len, e) < 0)
			return -e->code;
		data += len;
		left -= len;
	}
	return 0;
}

int image_expect(const Godwit__Image *description, struct boot_image **out, struct err *e)
{
	struct boot_image_spec spec = {.kernel_name = description->kernel_name,
				       .kernel_bytes = description->kernel_bytes,
				       .initrd_name = description->initrd_name,
				       .initrd_bytes = description->initrd_bytes,
				       .append = description->append};

	return boot_image_new(&spec, out, e);
}

static int receive_one(struct record_stream *records, struct record *record,
		       struct boot_image *image, struct err *e)
{
	if (record_expect(records, RECORD_IMAGE, record, e) < 0)
		return -e->code;
	if (record->body.len == 0) /* a source could send those for ever */
		return err_set(e, ERR_STREAM, EPROTO, "an IMAGE record without bytes");
	return boot_image_add(image, record->body.data, record->body.len, e);
}

int image_receive(struct record_stream *records, struct record *record, struct boot_image *image,
		  const struct cancel *cancel, struct fault *fault, struct err *e)
{
	while (boot_image_missing_bytes(image))
		if (cancel_check(cancel, e) < 0 || fault_point(fault, "dst.image", e) < 0 ||
		    receive_one(records, record, image, e) < 0)
			return -e->code;
	return boot_image_seal(image, e);
}
