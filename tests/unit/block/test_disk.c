/* vmm/block/disk.c: what may be opened, how an image changes hands, what is marked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/block/images.h"

#define MIB (1ull << 20)

static void a_disk_is_whole_sectors(void **state)
{
	struct disk_config config = {.path = image_make(*state, "a", 1000)};
	struct disk *d;

	image_refused(&config, "multiple of 512");
	config.path = image_make(*state, "a", 0);
	image_refused(&config, "0 bytes");
	d = image_open(image_make(*state, "a", 1536), DISK_OWNED, 0);
	assert_int_equal(disk_bytes(d), 1536);
	assert_int_equal(disk_nr_blocks(d), 1);
	disk_close(d);
}

static void what_is_no_image_is_refused(void **state)
{
	struct disk_config config = {.path = image_path(*state, "absent")};

	image_refused(&config, "No such file");
	config.path = "/tmp";
	image_refused(&config, "/tmp");
	config.path = "/dev/null";
	image_refused(&config, "neither a file nor a block device");
}

static void one_writer_or_many_readers(void **state)
{
	const char *path = image_make(*state, "a", MIB);
	struct disk_config reader = {.path = path, .readonly = true};
	struct disk_config writer = {.path = path};
	struct disk *d = image_open(path, DISK_OWNED, 0);
	struct disk *readers[2];
	struct err e = ERR_INIT;
	char me[32];

	snprintf(me, sizeof(me), "(process %d)", (int)getpid());
	image_refused(&writer, me);
	image_refused(&reader, me);
	disk_close(d);
	assert_int_equal(disk_open(&reader, &readers[0], &e), 0);
	assert_int_equal(disk_open(&reader, &readers[1], &e), 0);
	image_refused(&writer, "in use by");
	writer.unlocked = true;
	assert_int_equal(disk_open(&writer, &d, &e), 0);
	disk_close(d);
	disk_close(readers[0]);
	disk_close(readers[1]);
}

static void nobody_else_gets_in(const char *path)
{
	struct disk_config stranger = {.path = path};

	image_refused(&stranger, "in use by");
}

static void an_image_changes_hands(void **state)
{
	const char *path = image_make(*state, "a", MIB);
	struct disk *source = image_open(path, DISK_OWNED, 0);
	struct disk *destination = image_open(path, DISK_INCOMING, MIB);
	struct err e = ERR_INIT;

	/* Not before it is offered. */
	assert_true(disk_accept(destination, &e) < 0);
	assert_non_null(strstr(e.msg, "in use by"));
	assert_int_equal(disk_offer(source, &e), 0);
	nobody_else_gets_in(path);
	assert_int_equal(disk_accept(destination, &e), 0);
	nobody_else_gets_in(path);
	assert_false(disk_settle(destination)); /* the source has not let go */
	disk_release(source);
	nobody_else_gets_in(path);
	assert_true(disk_settle(destination));
	assert_true(disk_seize(source, &e) < 0);
	disk_close(source);
	nobody_else_gets_in(path);
	/* And on to the next. */
	source = destination;
	destination = image_open(path, DISK_INCOMING, MIB);
	assert_int_equal(disk_offer(source, &e), 0);
	assert_int_equal(disk_accept(destination, &e), 0);
	disk_close(source);
	disk_close(destination);
	disk_close(image_open(path, DISK_OWNED, 0));
}

static void an_undone_migration_gives_it_back(void **state)
{
	const char *path = image_make(*state, "a", MIB);
	struct disk *source = image_open(path, DISK_OWNED, 0);
	struct disk *destination = image_open(path, DISK_INCOMING, MIB);
	struct err e = ERR_INIT;

	assert_int_equal(disk_offer(source, &e), 0);
	assert_int_equal(disk_accept(destination, &e), 0);
	/* The destination cannot be reached to let go; the source goes on all the same, and
	 * strangers stay out. */
	disk_reclaim(source);
	nobody_else_gets_in(path);
	disk_close(destination);
	nobody_else_gets_in(path);
	/* The next attempt works. */
	destination = image_open(path, DISK_INCOMING, MIB);
	assert_int_equal(disk_offer(source, &e), 0);
	assert_int_equal(disk_accept(destination, &e), 0);
	disk_close(destination);
	disk_reclaim(source);
	assert_int_equal(disk_seize(source, &e), 0);
	disk_close(source);
}

/* A destination that has not got the gate yet must not pass the baton on: a stranger could get
 * both. */
static void one_that_has_not_settled_cannot_offer(void **state)
{
	const char *path = image_make(*state, "a", MIB);
	struct disk *source = image_open(path, DISK_OWNED, 0);
	struct disk *destination = image_open(path, DISK_INCOMING, MIB);
	struct err e = ERR_INIT;

	assert_int_equal(disk_offer(source, &e), 0);
	assert_int_equal(disk_accept(destination, &e), 0);
	assert_true(disk_offer(destination, &e) < 0);
	assert_non_null(strstr(e.msg, "in use by"));
	disk_close(source);
	assert_int_equal(disk_offer(destination, &e), 0);
	disk_close(destination);
}

static void another_image_is_not_taken_for_the_guests(void **state)
{
	struct disk_config config = {
		.path = image_make(*state, "other", MIB), .role = DISK_INCOMING, .bytes = MIB};
	struct disk *d;
	struct err e = ERR_INIT;

	image_refused(&config, "not the one the guest uses");
	config.unlocked = true;
	assert_int_equal(disk_open(&config, &d, &e), 0);
	assert_int_equal(disk_accept(d, &e), 0);
	disk_close(d);
	config.bytes = 2 * MIB;
	image_refused(&config, "the guest's disk 2097152");
}

static bool exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static void a_copy_gets_its_name_when_it_is_whole(void **state)
{
	const char *path = image_path(*state, "copy");
	const char *part = image_path(*state, "copy.part");
	struct disk *d = image_open(path, DISK_COPY, MIB);
	struct err e = ERR_INIT;

	assert_int_equal(disk_bytes(d), MIB);
	assert_true(exists(part));
	assert_false(exists(path));
	assert_int_equal(disk_accept(d, &e), 0);
	assert_true(exists(path));
	assert_false(exists(part));
	assert_true(disk_settle(d));
	disk_close(d);
	assert_true(exists(path));
}

static void a_copy_that_failed_leaves_nothing(void **state)
{
	const char *path = image_path(*state, "copy");
	const char *part = image_path(*state, "copy.part");
	struct disk *d = image_open(path, DISK_COPY, MIB);
	struct err e = ERR_INIT;

	disk_close(d);
	assert_false(exists(part));
	d = image_open(path, DISK_COPY, MIB);
	assert_int_equal(disk_accept(d, &e), 0);
	disk_close(d); /* whole, but COMMIT never came */
	assert_false(exists(path));
	/* What a killed process left is used again. */
	image_make(*state, "copy.part", 12345);
	d = image_open(path, DISK_COPY, MIB);
	assert_int_equal(disk_bytes(d), MIB);
	disk_close(d);
}

static void a_copy_overwrites_only_what_fits(void **state)
{
	struct disk_config config = {
		.path = image_make(*state, "b", 2 * MIB), .role = DISK_COPY, .bytes = MIB};
	const char *source = image_make(*state, "a", MIB);
	struct disk *d = image_open(source, DISK_OWNED, 0);
	char was[16] = "old contents 123";
	char is[16];
	int fd;

	image_refused(&config, "2097152 bytes");
	config.path = source; /* its own source */
	image_refused(&config, "without --copy-disks");
	config.path = "/nowhere/at/all";
	image_refused(&config, "see the permissions");
	disk_close(d);
	/* The right size: overwritten, and it stays whatever happens. */
	fd = open(source, O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, was, sizeof(was), 4096), sizeof(was));
	d = image_open(source, DISK_COPY, MIB);
	assert_int_equal(pread(fd, is, sizeof(is), 4096), sizeof(is));
	assert_int_equal(is[0], 0);
	close(fd);
	disk_close(d);
	assert_true(exists(source));
}

static void what_is_written_is_marked(void **state)
{
	struct disk *d = image_open(image_make(*state, "a", 100 * MIB), DISK_OWNED, 0);
	struct bitmap set;
	struct err e = ERR_INIT;

	assert_int_equal(bitmap_init(&set, disk_nr_blocks(d), &e), 0);
	disk_mark(d, 0, 512); /* not tracked: forgotten */
	assert_int_equal(disk_track_start(d, &e), 0);
	disk_track_take(d, &set);
	assert_int_equal(bitmap_count(&set), 0);
	disk_mark(d, DISK_BLOCK_BYTES - 512, 1024);
	disk_mark(d, 100 * MIB - 512, 512);
	disk_track_take(d, &set);
	assert_int_equal(bitmap_count(&set), 3);
	assert_true(bitmap_test(&set, 0) && bitmap_test(&set, 1));
	assert_true(bitmap_test(&set, disk_nr_blocks(d) - 1));
	bitmap_zero(&set);
	disk_track_take(d, &set);
	assert_int_equal(bitmap_count(&set), 0);
	disk_mark(d, 0, MIB);
	assert_int_equal(disk_track_start(d, &e), 0); /* a new migration begins anew */
	disk_track_take(d, &set);
	assert_int_equal(bitmap_count(&set), 0);
	disk_track_stop(d);
	bitmap_fini(&set);
	disk_close(d);
}

static void zeroing_makes_holes_or_not(void **state)
{
	const char *path = image_make(*state, "a", MIB);
	struct disk *d = image_open(path, DISK_OWNED, 0);
	static char ones[8192];
	char is[8192];
	struct err e = ERR_INIT;

	memset(ones, 1, sizeof(ones));
	for (int unmap = 0; unmap < 2; unmap++) {
		assert_int_equal(pwrite(disk_fd(d), ones, sizeof(ones), 0), sizeof(ones));
		assert_int_equal(disk_zero(d, 4096, 4096, unmap, &e), 0);
		assert_int_equal(pread(disk_fd(d), is, sizeof(is), 0), sizeof(is));
		assert_int_equal(is[4095], 1);
		assert_int_equal(is[4096] | is[8191], 0);
	}
	assert_int_equal(disk_bytes(d), MIB);
	disk_close(d);
}

#define T(test) cmocka_unit_test_setup_teardown(test, images_make, images_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_disk_is_whole_sectors),
		T(what_is_no_image_is_refused),
		T(one_writer_or_many_readers),
		T(an_image_changes_hands),
		T(an_undone_migration_gives_it_back),
		T(one_that_has_not_settled_cannot_offer),
		T(another_image_is_not_taken_for_the_guests),
		T(a_copy_gets_its_name_when_it_is_whole),
		T(a_copy_that_failed_leaves_nothing),
		T(a_copy_overwrites_only_what_fits),
		T(what_is_written_is_marked),
		T(zeroing_makes_holes_or_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
