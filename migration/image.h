/*
 * The boot image on the control connection (proto/STREAM.md, section 2): the source says in
 * DESCRIBE what will come and sends it once the destination has built the machine; the destination
 * collects it. Each on its engine's thread.
 */
#pragma once

#include "migration/rate.h"
#include "proto/record.h"
#include "proto/stream.pb-c.h"
#include "vmm/base/fault.h"
#include "vmm/boot/image.h"

/* What DESCRIBE says about @image. Borrows its strings. */
void image_describe(const struct boot_image *image, Godwit__Image *out);

/* Source: all of it, within @limit. */
int image_send(struct record_stream *records, const struct boot_image *image,
	       struct rate_limit *limit, const struct cancel *cancel, struct fault *fault,
	       struct err *e);

/* Destination: an empty image as described, or an error when it is too large or makes no sense. */
int image_expect(const Godwit__Image *description, struct boot_image **out, struct err *e);

/* Destination: all of it; @image is sealed after that. @record is where records are received. */
int image_receive(struct record_stream *records, struct record *record, struct boot_image *image,
		  const struct cancel *cancel, struct fault *fault, struct err *e);
