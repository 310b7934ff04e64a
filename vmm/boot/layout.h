/*
 * Where the boot structures lie in guest memory: the one place that says so. Constants only.
 *
 *   0x00000  real-mode vectors and BIOS data area: left zero
 *   0x00500  GDT                                      (all formats)
 *   0x01000  boot_params, the "zero page"             (bzImage)
 *   0x02000  hvm_start_info, module, memory map       (PVH)
 *   0x04000  page tables: PML4, PDPT, 4 directories   (bzImage)
 *   0x10000  command line, up to 64 KiB with its NUL  (PVH, bzImage)
 *   0x20000  end: from here on an image may put its own segments
 *   0x9fc00  reserved up to 1 MiB, as the EBDA and ROMs of a PC; ACPI tables at 0xe0000;
 *            SMI handlers from 0xa0000 to 0xbffff where there are test devices (vmm/smm.h)
 *
 * Multiboot images may lie lower (kvm-unit-tests' realmode is linked to 0x8000), so theirs is
 * short:
 *
 *   0x01000  command line, up to 8 KiB with its NUL
 *   0x03000  Multiboot information, module, map
 *   0x04000  end
 *
 * All of it is ordinary RAM that the guest may reuse once it has read what it needs. Page 0x8000
 * is left free on purpose: guests like to put their AP start-up code there.
 */
#pragma once

#define LAYOUT_GDT           0x500ull
#define LAYOUT_ZERO_PAGE     0x1000ull
#define LAYOUT_PVH           0x2000ull
#define LAYOUT_PAGE_TABLES   0x4000ull /* 6 pages, see place_page_tables() */
#define LAYOUT_CMDLINE       0x10000ull
#define LAYOUT_CMDLINE_BYTES 0x10000ull
#define LAYOUT_END           0x20000ull

#define LAYOUT_MULTIBOOT_CMDLINE       0x1000ull
#define LAYOUT_MULTIBOOT_CMDLINE_BYTES 0x2000ull
#define LAYOUT_MULTIBOOT               0x3000ull
#define LAYOUT_MULTIBOOT_END           0x4000ull

#define LAYOUT_EBDA    0x9fc00ull  /* 639 KiB: where a PC's conventional memory ends */
#define LAYOUT_ONE_MIB 0x100000ull /* and where RAM goes on */
